//! The element types of safetensors files.

use half::{bf16, f16};

use crate::{
    error::{Error, Result},
    parallel::{PIECE, over_pieces},
};

macro_rules! element_types {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $bits:literal;)*) => {
        /// An element type of safetensors files.
        ///
        /// ```
        /// use lowbit::io::safetensors::ElementType;
        /// assert_eq!(ElementType::Bf16.name(), "BF16");
        /// assert_eq!(ElementType::Bf16.bits(), 16);
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ElementType {
            $($(#[$doc])* $variant,)*
        }

        impl ElementType {
            pub(super) fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name in files.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Bits of an element.
            #[must_use]
            pub fn bits(self) -> usize {
                match self {
                    $(Self::$variant => $bits,)*
                }
            }
        }
    };
}

element_types! {
    /// True or false, a byte each.
    Bool = "BOOL", 8;
    /// Floats of 4 bits (E2M1), two to a byte; read as bytes only.
    F4 = "F4", 4;
    /// Floats of 6 bits (E2M3); read as bytes only.
    F6E2M3 = "F6_E2M3", 6;
    /// Floats of 6 bits (E3M2); read as bytes only.
    F6E3M2 = "F6_E3M2", 6;
    /// Unsigned integers of 8 bits.
    U8 = "U8", 8;
    /// Signed integers of 8 bits.
    I8 = "I8", 8;
    /// Floats of 8 bits (E5M2); read as bytes only.
    F8E5M2 = "F8_E5M2", 8;
    /// Floats of 8 bits (E4M3); read as bytes only.
    F8E4M3 = "F8_E4M3", 8;
    /// Powers of two, as 8-bit exponents; read as bytes only.
    F8E8M0 = "F8_E8M0", 8;
    /// Signed integers of 16 bits.
    I16 = "I16", 16;
    /// Unsigned integers of 16 bits.
    U16 = "U16", 16;
    /// Floats of 16 bits.
    F16 = "F16", 16;
    /// Floats of 16 bits, 8 of them exponent.
    Bf16 = "BF16", 16;
    /// Signed integers of 32 bits.
    I32 = "I32", 32;
    /// Unsigned integers of 32 bits.
    U32 = "U32", 32;
    /// Floats of 32 bits.
    F32 = "F32", 32;
    /// Complex numbers of two 32-bit floats; read as bytes only.
    C64 = "C64", 64;
    /// Floats of 64 bits; read as bytes only.
    F64 = "F64", 64;
    /// Signed integers of 64 bits.
    I64 = "I64", 64;
    /// Unsigned integers of 64 bits.
    U64 = "U64", 64;
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Writes the floats of bytes that are as many.
pub(super) fn to_floats(kind: ElementType, bytes: &[u8], floats: &mut [f32]) -> Result<()> {
    fn convert<const N: usize>(bytes: &[u8], floats: &mut [f32], of: fn([u8; N]) -> f32) {
        let (elements, _) = bytes.as_chunks::<N>();
        for (float, &element) in floats.iter_mut().zip(elements) {
            *float = of(element);
        }
    }
    let convert: fn(&[u8], &mut [f32]) = match kind {
        ElementType::F32 => |bytes, floats| convert(bytes, floats, f32::from_le_bytes),
        ElementType::F16 => |bytes, floats| {
            convert(bytes, floats, |element| {
                f16::from_le_bytes(element).to_f32()
            });
        },
        ElementType::Bf16 => |bytes, floats| {
            convert(bytes, floats, |element| {
                bf16::from_le_bytes(element).to_f32()
            });
        },
        other => {
            return Err(Error::Unsupported {
                operation: "reading a tensor as floats",
                expected: "F32, F16 or BF16",
                got: other.name().into(),
            });
        }
    };
    let size = kind.bits() / 8;
    over_pieces(floats, PIECE, |start, floats| {
        convert(&bytes[start * size..][..floats.len() * size], floats);
    });
    Ok(())
}

/// Writes the integers of bytes that are as many; the index of the first that is beyond `i64`.
pub(super) fn to_integers(kind: ElementType, bytes: &[u8], integers: &mut [i64]) -> Result<()> {
    fn convert<const N: usize, T: TryInto<i64>>(
        bytes: &[u8],
        integers: &mut [i64],
        of: fn([u8; N]) -> T,
    ) -> bool {
        let (elements, _) = bytes.as_chunks::<N>();
        integers
            .iter_mut()
            .zip(elements)
            .all(|(integer, &element)| of(element).try_into().map(|value| *integer = value).is_ok())
    }
    let fits = match kind {
        ElementType::U8 | ElementType::Bool => convert(bytes, integers, u8::from_le_bytes),
        ElementType::I8 => convert(bytes, integers, i8::from_le_bytes),
        ElementType::U16 => convert(bytes, integers, u16::from_le_bytes),
        ElementType::I16 => convert(bytes, integers, i16::from_le_bytes),
        ElementType::U32 => convert(bytes, integers, u32::from_le_bytes),
        ElementType::I32 => convert(bytes, integers, i32::from_le_bytes),
        ElementType::I64 => convert(bytes, integers, i64::from_le_bytes),
        ElementType::U64 => convert(bytes, integers, u64::from_le_bytes),
        other => {
            return Err(Error::Unsupported {
                operation: "reading a tensor as integers",
                expected: "an integer type",
                got: other.name().into(),
            });
        }
    };
    if fits {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation: "reading a tensor as integers",
        expected: "integers below 2^63",
        got: "a greater one".into(),
    })
}
