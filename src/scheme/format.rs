//! Number formats: integers of 1 to 8 bits and 16, and floats of 8 and 4 bits.

use crate::error::{Error, Result};

/// What a code stands for before scale and zero point.
///
/// ```
/// use lowbit::{FloatFormat, Format, IntFormat};
/// assert_eq!(Format::Int(IntFormat::new(4, false, false)?).quant_max(), 15);
/// assert_eq!(Format::Float(FloatFormat::E2M1).to_string(), "float4 e2m1");
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// An integer.
    Int(IntFormat),
    /// A small float; the code is its bit pattern.
    Float(FloatFormat),
}

impl Format {
    /// Bits a code takes.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::Int(int) => int.bits(),
            Self::Float(float) => float.bits(),
        }
    }

    /// The least code: for small floats, whose codes are bit patterns, 0.
    #[must_use]
    pub fn quant_min(self) -> i32 {
        match self {
            Self::Int(int) => int.quant_min(),
            Self::Float(_) => 0,
        }
    }

    /// The greatest code.
    #[must_use]
    pub fn quant_max(self) -> i32 {
        match self {
            Self::Int(int) => int.quant_max(),
            Self::Float(float) => (1 << float.bits()) - 1,
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Int(int) => {
                let sign = if int.signed { "" } else { "u" };
                let narrow = if int.narrow { " narrow" } else { "" };
                write!(f, "{sign}int{}{narrow}", int.bits)
            }
            Self::Float(FloatFormat::E4M3) => write!(f, "float8 e4m3"),
            Self::Float(FloatFormat::E5M2) => write!(f, "float8 e5m2"),
            Self::Float(FloatFormat::E2M1) => write!(f, "float4 e2m1"),
        }
    }
}

/// Integers of 1 to 8 bits or 16, signed or unsigned, with all codes or one less.
///
/// ```
/// use lowbit::IntFormat;
/// let narrow = IntFormat::new(8, true, true)?;
/// assert_eq!((narrow.quant_min(), narrow.quant_max()), (-127, 127));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IntFormat {
    bits: u8,
    signed: bool,
    narrow: bool,
}

impl IntFormat {
    /// The format; `narrow` leaves out the least code.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for bits other than 1 to 8 and 16, and for a narrow range of 1 bit.
    pub fn new(bits: u32, signed: bool, narrow: bool) -> Result<Self> {
        let width = match u8::try_from(bits) {
            Ok(width @ (1..=8 | 16)) => width,
            _ => return Err(Error::option("bits", "1 to 8, or 16", bits)),
        };
        if narrow && width == 1 {
            return Err(Error::option(
                "range of 1-bit codes",
                "full",
                "narrow, which has a single code",
            ));
        }
        Ok(Self {
            bits: width,
            signed,
            narrow,
        })
    }

    /// Bits a code takes.
    #[must_use]
    pub fn bits(self) -> u32 {
        u32::from(self.bits)
    }

    /// Whether codes go below 0.
    #[must_use]
    pub fn is_signed(self) -> bool {
        self.signed
    }

    /// Whether the least code is left out.
    #[must_use]
    pub fn is_narrow(self) -> bool {
        self.narrow
    }

    /// The least code.
    #[must_use]
    pub fn quant_min(self) -> i32 {
        let least = if self.signed {
            -(1 << (self.bits - 1))
        } else {
            0
        };
        least + i32::from(self.narrow)
    }

    /// The greatest code.
    #[must_use]
    pub fn quant_max(self) -> i32 {
        if self.signed {
            (1 << (self.bits - 1)) - 1
        } else {
            (1 << self.bits) - 1
        }
    }
}

/// Floats of 8 and 4 bits, as the Open Compute Project's OFP8 and MX specifications define them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum FloatFormat {
    /// 8 bits, 4 of exponent, no infinity ("e4m3fn"): up to 448.
    E4M3,
    /// 8 bits, 5 of exponent: up to 57,344.
    E5M2,
    /// 4 bits, 2 of exponent, neither infinity nor NaN: 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their
    /// negatives.
    E2M1,
}

impl FloatFormat {
    /// Bits a code takes.
    #[must_use]
    pub fn bits(self) -> u32 {
        match self {
            Self::E4M3 | Self::E5M2 => 8,
            Self::E2M1 => 4,
        }
    }

    /// The greatest finite value.
    #[must_use]
    pub fn max_value(self) -> f32 {
        match self {
            Self::E4M3 => 448.0,
            Self::E5M2 => 57_344.0,
            Self::E2M1 => 6.0,
        }
    }
}
