//! What a quantized tensor is made of: number format, mapping, granularity and scale storage.
//!
//! All plain data, validated when built; nothing here touches a tensor.

mod format;
mod granularity;

pub use format::{FloatFormat, Format, IntFormat};
pub use granularity::Granularity;

use crate::error::{Error, Result};

/// How real numbers are laid onto the codes of a format.
///
/// ```
/// use lowbit::{Mapping, Parameter, Range, Scheme};
/// let parameter = |mapping: Mapping| {
///     let scheme = Scheme::int(8).mapping(mapping).build()?;
///     Parameter::from_range(&scheme, Range::new(1.0, 3.0)?)
/// };
/// assert_eq!(parameter(Mapping::Symmetric)?.scale, 3.0 / 127.0);
/// assert_eq!(parameter(Mapping::SymmetricHalfRange)?.scale, 3.0 / 127.5);
/// assert_eq!(parameter(Mapping::Asymmetric)?.scale, 3.0 / 255.0); // from 0 to 3
/// assert_eq!(parameter(Mapping::AsymmetricFloat)?.scale, 2.0 / 255.0); // from 1 to 3
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Mapping {
    /// The zero point is the middle code (0 for signed formats) and the largest magnitude goes to
    /// the largest code: `scale = max(|min|, |max|) / (qmax − z)`. Nothing is clipped.
    Symmetric,
    /// As `Symmetric`, with the scale of torch's observers,
    /// `scale = max(|min|, |max|) / ((qmax − qmin) / 2)`: half a step finer, and the largest
    /// positive value is clipped by half a step where the range of codes is full.
    SymmetricHalfRange,
    /// The zero point is an integer code and the range is widened to contain 0, so that 0 is exact:
    /// `scale = (max − min) / (qmax − qmin)`, `z = clamp(qmin − round(min / scale))`.
    Asymmetric,
    /// The zero point is a real number and the range is taken as it is, as HQQ and tinygemm have
    /// it: `z = qmin − min / scale`, and codes are `round(x / scale + z)`.
    AsymmetricFloat,
}

impl Mapping {
    /// Whether the zero point is fixed at the middle code.
    #[must_use]
    pub fn is_symmetric(self) -> bool {
        matches!(self, Self::Symmetric | Self::SymmetricHalfRange)
    }
}

/// The storage type of scales, whose rounding is part of the scheme.
///
/// ```
/// use lowbit::{Parameter, Range, ScaleKind, Scheme};
/// let scheme = Scheme::int(8).scale_kind(ScaleKind::PowerOfTwo).build()?;
/// let parameter = Parameter::from_range(&scheme, Range::new(-1.0, 0.5)?)?;
/// assert_eq!(parameter.scale, 1.0 / 64.0); // 1/127, rounded up
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum ScaleKind {
    /// 32-bit floats.
    #[default]
    F32,
    /// 16-bit floats: the scale is rounded to the nearest one, at least the smallest normal one.
    F16,
    /// Powers of two, stored as an 8-bit exponent: the scale is rounded up, so that nothing more is
    /// clipped.
    PowerOfTwo,
}

impl ScaleKind {
    /// Bits that one stored scale takes.
    #[must_use]
    pub fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::F16 => 16,
            Self::PowerOfTwo => 8,
        }
    }
}

/// A complete, valid description of how a tensor is quantized.
///
/// Built with [`Scheme::int`] or [`Scheme::float`]; impossible combinations are errors of
/// [`SchemeBuilder::build`], so that a `Scheme` at hand is always one that works.
///
/// ```
/// use lowbit::{Granularity, Scheme};
///
/// // 4 bits, symmetric, a scale for each 128 elements along the last axis
/// let weights = Scheme::int(4).symmetric().per_group(128).build()?;
/// assert_eq!((weights.quant_min(), weights.quant_max()), (-8, 7));
///
/// // unsigned 8 bits with an integer zero point, one range for the whole tensor
/// let activations = Scheme::int(8).unsigned().asymmetric().build()?;
/// assert_eq!(activations.granularity(), Granularity::PerTensor);
///
/// // a group of nothing is refused
/// assert!(Scheme::int(4).per_group(0).build().is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "SchemeBuilder", into = "SchemeBuilder")
)]
pub struct Scheme {
    format: Format,
    mapping: Mapping,
    granularity: Granularity,
    scale_kind: ScaleKind,
}

impl Scheme {
    /// Starts a scheme of signed integers of `bits` bits (1 to 8, or 16), full range, symmetric,
    /// one f32 scale for the tensor.
    pub fn int(bits: u32) -> SchemeBuilder {
        SchemeBuilder {
            format: Draft::Int {
                bits,
                signed: true,
                narrow: false,
            },
            mapping: Mapping::Symmetric,
            granularity: Granularity::PerTensor,
            scale_kind: ScaleKind::F32,
        }
    }

    /// Starts a scheme of small floats, symmetric, one f32 scale for the tensor.
    ///
    /// ```
    /// use lowbit::{FloatFormat, Scheme};
    /// let scheme = Scheme::float(FloatFormat::E4M3).per_axis(0).build()?;
    /// assert_eq!(scheme.format().bits(), 8);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn float(format: FloatFormat) -> SchemeBuilder {
        SchemeBuilder {
            format: Draft::Float(format),
            ..Self::int(8)
        }
    }

    /// The number format of the codes.
    #[must_use]
    pub fn format(&self) -> Format {
        self.format
    }

    /// How real numbers are laid onto the codes.
    #[must_use]
    pub fn mapping(&self) -> Mapping {
        self.mapping
    }

    /// Which elements share a scale and a zero point.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The storage type of scales.
    #[must_use]
    pub fn scale_kind(&self) -> ScaleKind {
        self.scale_kind
    }

    /// Bits a code takes.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.format.bits()
    }

    /// The least code (0 for small floats, whose codes are bit patterns).
    #[must_use]
    pub fn quant_min(&self) -> i32 {
        self.format.quant_min()
    }

    /// The greatest code.
    #[must_use]
    pub fn quant_max(&self) -> i32 {
        self.format.quant_max()
    }

    /// The zero point of symmetric schemes: 0 for signed integers and small floats, the middle code
    /// for unsigned integers.
    #[must_use]
    pub fn middle(&self) -> i32 {
        match self.format {
            Format::Int(int) if !int.is_signed() => 1 << (int.bits() - 1),
            _ => 0,
        }
    }

    /// The same scheme with another granularity.
    ///
    /// # Errors
    /// A group or block of size 0.
    pub fn with_granularity(self, granularity: Granularity) -> Result<Self> {
        granularity.validate()?;
        Ok(Self {
            granularity,
            ..self
        })
    }
}

/// A scheme being described; [`build`](Self::build) checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a builder does nothing until `build`"]
pub struct SchemeBuilder {
    format: Draft,
    mapping: Mapping,
    granularity: Granularity,
    scale_kind: ScaleKind,
}

/// A number format not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Draft {
    Int {
        bits: u32,
        signed: bool,
        narrow: bool,
    },
    Float(FloatFormat),
}

impl SchemeBuilder {
    fn integer(mut self, change: impl FnOnce(&mut bool, &mut bool)) -> Self {
        if let Draft::Int { signed, narrow, .. } = &mut self.format {
            change(signed, narrow);
        }
        self
    }

    /// Codes from `−2^(b−1)`: the default. Small floats are always signed.
    pub fn signed(self) -> Self {
        self.integer(|signed, _| *signed = true)
    }

    /// Codes from 0. No effect on small floats.
    pub fn unsigned(self) -> Self {
        self.integer(|signed, _| *signed = false)
    }

    /// All `2^b` codes: the default.
    pub fn full_range(self) -> Self {
        self.integer(|_, narrow| *narrow = false)
    }

    /// One code less, so that the codes lie evenly about the middle: `−127..=127`, or `1..=255`
    /// where unsigned.
    pub fn narrow_range(self) -> Self {
        self.integer(|_, narrow| *narrow = true)
    }

    /// The zero point fixed at the middle code: the default.
    pub fn symmetric(mut self) -> Self {
        self.mapping = Mapping::Symmetric;
        self
    }

    /// An integer zero point; ranges contain 0.
    pub fn asymmetric(mut self) -> Self {
        self.mapping = Mapping::Asymmetric;
        self
    }

    /// A real zero point; ranges as they are.
    pub fn asymmetric_float(mut self) -> Self {
        self.mapping = Mapping::AsymmetricFloat;
        self
    }

    /// Any mapping, as a value.
    pub fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// One scale for the whole tensor: the default.
    pub fn per_tensor(self) -> Self {
        self.granularity(Granularity::PerTensor)
    }

    /// A scale for each index along `axis` ("per channel": axis 0 of a weight `[out, in]`).
    pub fn per_axis(self, axis: usize) -> Self {
        self.granularity(Granularity::PerAxis(axis))
    }

    /// A scale for each `size` elements along the last axis; the last group may be shorter.
    pub fn per_group(self, size: usize) -> Self {
        self.granularity(Granularity::PerGroup(size))
    }

    /// A scale for each block of `rows × columns` of the last two axes.
    pub fn per_block(self, rows: usize, columns: usize) -> Self {
        self.granularity(Granularity::PerBlock { rows, columns })
    }

    /// A scale for each row along the last axis, chosen at run time ("per token", dynamic).
    pub fn per_row(self) -> Self {
        self.granularity(Granularity::PerRow)
    }

    /// Any granularity, as a value.
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// The storage type of scales; the default is [`ScaleKind::F32`].
    pub fn scale_kind(mut self, scale_kind: ScaleKind) -> Self {
        self.scale_kind = scale_kind;
        self
    }

    /// The scheme.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for bits other than 1 to 8 and 16, a narrow range of 1 bit (which
    /// has one code), a symmetric scheme of 1 bit (which has no code on one side of the middle),
    /// small floats with a zero point, and groups or blocks of size 0.
    pub fn build(self) -> Result<Scheme> {
        let format = match self.format {
            Draft::Int {
                bits,
                signed,
                narrow,
            } => Format::Int(IntFormat::new(bits, signed, narrow)?),
            Draft::Float(float) => Format::Float(float),
        };
        match format {
            Format::Int(int) if int.bits() == 1 && self.mapping.is_symmetric() => {
                return Err(Error::option(
                    "mapping of 1-bit codes",
                    "asymmetric (integer or float zero point)",
                    "symmetric, which leaves no code above the middle",
                ));
            }
            Format::Float(_) if self.mapping != Mapping::Symmetric => {
                return Err(Error::option(
                    "mapping of small floats",
                    "Symmetric",
                    format!("{:?}", self.mapping),
                ));
            }
            _ => {}
        }
        self.granularity.validate()?;
        Ok(Scheme {
            format,
            mapping: self.mapping,
            granularity: self.granularity,
            scale_kind: self.scale_kind,
        })
    }
}

impl TryFrom<SchemeBuilder> for Scheme {
    type Error = Error;

    fn try_from(builder: SchemeBuilder) -> Result<Self> {
        builder.build()
    }
}

impl From<Scheme> for SchemeBuilder {
    fn from(scheme: Scheme) -> Self {
        Self {
            format: match scheme.format {
                Format::Int(int) => Draft::Int {
                    bits: int.bits(),
                    signed: int.is_signed(),
                    narrow: int.is_narrow(),
                },
                Format::Float(float) => Draft::Float(float),
            },
            mapping: scheme.mapping,
            granularity: scheme.granularity,
            scale_kind: scheme.scale_kind,
        }
    }
}

impl std::fmt::Display for Scheme {
    /// For example `int4 symmetric per group of 128`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mapping = match self.mapping {
            Mapping::Symmetric => "symmetric",
            Mapping::SymmetricHalfRange => "symmetric (half range)",
            Mapping::Asymmetric => "asymmetric",
            Mapping::AsymmetricFloat => "asymmetric (float zero point)",
        };
        write!(f, "{} {mapping} {}", self.format, self.granularity)?;
        match self.scale_kind {
            ScaleKind::F32 => Ok(()),
            ScaleKind::F16 => write!(f, ", f16 scales"),
            ScaleKind::PowerOfTwo => write!(f, ", power-of-two scales"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_combinations_are_refused() {
        for bad in [
            Scheme::int(0),
            Scheme::int(9),
            Scheme::int(15),
            Scheme::int(17),
            Scheme::int(u32::MAX),
            Scheme::int(1),
            Scheme::int(1).unsigned(),
            Scheme::int(1).asymmetric().narrow_range(),
            Scheme::int(4).per_group(0),
            Scheme::int(4).per_block(0, 4),
            Scheme::int(4).per_block(4, 0),
            Scheme::float(FloatFormat::E2M1).asymmetric(),
        ] {
            assert!(
                matches!(bad.build(), Err(Error::InvalidOption { .. })),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn codes_of_every_width() {
        for bits in [2, 3, 4, 5, 6, 7, 8, 16] {
            let full = Scheme::int(bits).build().unwrap();
            let half = 1_i32 << (bits - 1);
            assert_eq!((full.quant_min(), full.quant_max()), (-half, half - 1));
            let narrow = Scheme::int(bits).narrow_range().build().unwrap();
            assert_eq!(
                (narrow.quant_min(), narrow.quant_max()),
                (1 - half, half - 1)
            );
            let unsigned = Scheme::int(bits).unsigned().build().unwrap();
            assert_eq!(
                (unsigned.quant_min(), unsigned.quant_max()),
                (0, 2 * half - 1)
            );
            assert_eq!(unsigned.middle(), half);
            let both = Scheme::int(bits).unsigned().narrow_range().build().unwrap();
            assert_eq!((both.quant_min(), both.quant_max()), (1, 2 * half - 1));
        }
        let bit = Scheme::int(1)
            .unsigned()
            .asymmetric_float()
            .build()
            .unwrap();
        assert_eq!((bit.quant_min(), bit.quant_max()), (0, 1));
    }

    #[test]
    fn a_scheme_reads_as_a_sentence() {
        let scheme = Scheme::int(4)
            .per_group(128)
            .scale_kind(ScaleKind::F16)
            .build()
            .unwrap();
        assert_eq!(
            scheme.to_string(),
            "int4 symmetric per group of 128, f16 scales"
        );
    }
}
