//! The element types of GGUF tensors: how many elements a block holds, and in how many bytes.
//!
//! Source: ggml, `ggml_type` in `ggml.h` and the block structures in `ggml-common.h`.

use crate::error::{Error, Result};

macro_rules! tensor_types {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $elements:literal in $bytes:literal;)*) => {
        /// An element type of GGUF tensors.
        ///
        /// Types other than the plain numbers store blocks: a scale or two, then the codes of 32,
        /// 64, 128 or 256 neighbours along a row.
        ///
        /// ```
        /// use lowbit::io::gguf::TensorType;
        /// let kind: TensorType = "Q4_K".parse()?;
        /// assert_eq!((kind.block_len(), kind.block_bytes()), (256, 144));
        /// # Ok::<(), lowbit::Error>(())
        /// ```
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum TensorType {
            $($(#[$doc])* $variant,)*
        }

        impl TensorType {
            /// Every type there is.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The number that stands for the type in a file.
            #[must_use]
            pub fn id(self) -> u32 {
                match self {
                    $(Self::$variant => $id,)*
                }
            }

            /// The name that ggml gives the type, such as `Q4_K`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Elements in a block; rows are whole blocks.
            #[must_use]
            pub fn block_len(self) -> usize {
                match self {
                    $(Self::$variant => $elements,)*
                }
            }

            /// Bytes of a block.
            #[must_use]
            pub fn block_bytes(self) -> usize {
                match self {
                    $(Self::$variant => $bytes,)*
                }
            }
        }
    };
}

tensor_types! {
    /// 32-bit floats.
    F32 = 0, "F32", 1 in 4;
    /// 16-bit floats.
    F16 = 1, "F16", 1 in 2;
    /// 4 bits about 8, an f16 scale for 32.
    Q4_0 = 2, "Q4_0", 32 in 18;
    /// 4 bits, an f16 scale and minimum for 32.
    Q4_1 = 3, "Q4_1", 32 in 20;
    /// 5 bits about 16, an f16 scale for 32.
    Q5_0 = 6, "Q5_0", 32 in 22;
    /// 5 bits, an f16 scale and minimum for 32.
    Q5_1 = 7, "Q5_1", 32 in 24;
    /// 8 bits, an f16 scale for 32.
    Q8_0 = 8, "Q8_0", 32 in 34;
    /// 8 bits, an f16 scale and sum for 32: ggml's activations, not read here.
    Q8_1 = 9, "Q8_1", 32 in 36;
    /// 2 bits, 4-bit scales and minimums for 16.
    Q2K = 10, "Q2_K", 256 in 84;
    /// 3 bits, 6-bit scales for 16.
    Q3K = 11, "Q3_K", 256 in 110;
    /// 4 bits, 6-bit scales and minimums for 32.
    Q4K = 12, "Q4_K", 256 in 144;
    /// 5 bits, 6-bit scales and minimums for 32.
    Q5K = 13, "Q5_K", 256 in 176;
    /// 6 bits, 8-bit scales for 16.
    Q6K = 14, "Q6_K", 256 in 210;
    /// 8 bits, an f32 scale for 256: ggml's activations, not read here.
    Q8K = 15, "Q8_K", 256 in 292;
    /// Codebook of 2.06 bits; not read here.
    Iq2Xxs = 16, "IQ2_XXS", 256 in 66;
    /// Codebook of 2.31 bits; not read here.
    Iq2Xs = 17, "IQ2_XS", 256 in 74;
    /// Codebook of 3.06 bits; not read here.
    Iq3Xxs = 18, "IQ3_XXS", 256 in 98;
    /// Codebook of 1.56 bits; not read here.
    Iq1S = 19, "IQ1_S", 256 in 50;
    /// 16 uneven levels, an f16 scale for 32.
    Iq4Nl = 20, "IQ4_NL", 32 in 18;
    /// Codebook of 3.44 bits; not read here.
    Iq3S = 21, "IQ3_S", 256 in 110;
    /// Codebook of 2.56 bits; not read here.
    Iq2S = 22, "IQ2_S", 256 in 82;
    /// 16 uneven levels, 6-bit scales for 32.
    Iq4Xs = 23, "IQ4_XS", 256 in 136;
    /// 8-bit integers; not read here.
    I8 = 24, "I8", 1 in 1;
    /// 16-bit integers; not read here.
    I16 = 25, "I16", 1 in 2;
    /// 32-bit integers; not read here.
    I32 = 26, "I32", 1 in 4;
    /// 64-bit integers; not read here.
    I64 = 27, "I64", 1 in 8;
    /// 64-bit floats; not read here.
    F64 = 28, "F64", 1 in 8;
    /// Codebook of 1.75 bits; not read here.
    Iq1M = 29, "IQ1_M", 256 in 56;
    /// Floats of 8 exponent and 7 mantissa bits.
    Bf16 = 30, "BF16", 1 in 2;
    /// Ternary, five to a byte, an f16 scale for 256.
    Tq1_0 = 34, "TQ1_0", 256 in 54;
    /// Ternary, four to a byte, an f16 scale for 256.
    Tq2_0 = 35, "TQ2_0", 256 in 66;
    /// Floats of 4 bits, a power of two for 32.
    Mxfp4 = 39, "MXFP4", 32 in 17;
    /// Floats of 4 bits, an unsigned 8-bit float for 16.
    Nvfp4 = 40, "NVFP4", 64 in 36;
    /// Signs, an f16 scale for 128.
    Q1_0 = 41, "Q1_0", 128 in 18;
    /// Levels −1, 0, 1 and 2, an f16 scale for 64.
    Q2_0 = 42, "Q2_0", 64 in 18;
}

impl TensorType {
    /// The type that a number stands for.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.id() == id)
    }

    /// Bytes that a tensor of the given shape takes; rows, along the last axis, are whole blocks.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the last axis is not a multiple of [`block_len`](Self::block_len);
    /// [`Error::TooLarge`] if the elements or bytes cannot be counted.
    pub fn byte_len(self, shape: &[usize]) -> Result<usize> {
        let elements = crate::groups::element_count("tensor", shape)?;
        let row = shape.last().copied().unwrap_or(1);
        if !row.is_multiple_of(self.block_len()) {
            let mut expected = shape.to_vec();
            if let Some(last) = expected.last_mut() {
                *last = row.next_multiple_of(self.block_len());
            }
            return Err(Error::ShapeMismatch {
                what: "tensor of blocks",
                expected,
                got: shape.to_vec(),
            });
        }
        (elements / self.block_len())
            .checked_mul(self.block_bytes())
            .ok_or_else(|| Error::TooLarge {
                what: "tensor",
                got: format!("{shape:?} of {self}"),
            })
    }
}

impl std::fmt::Display for TensorType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for TensorType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .copied()
            .find(|kind| kind.name() == name)
            .ok_or_else(|| Error::option("tensor type", "a name that ggml knows", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back_to_the_type() {
        for &kind in TensorType::ALL {
            assert_eq!(kind.name().parse::<TensorType>().unwrap(), kind);
            assert_eq!(TensorType::from_id(kind.id()), Some(kind));
        }
        assert!("Q4_2".parse::<TensorType>().is_err());
        assert_eq!(TensorType::from_id(4), None);
        assert_eq!(TensorType::from_id(u32::MAX), None);
    }

    #[test]
    fn bytes_are_counted_or_refused() {
        assert_eq!(TensorType::Q4_0.byte_len(&[3, 64]).unwrap(), 3 * 36);
        assert_eq!(TensorType::F32.byte_len(&[]).unwrap(), 4);
        assert_eq!(TensorType::Q4_0.byte_len(&[0, 64]).unwrap(), 0);
        assert_eq!(TensorType::Q4_0.byte_len(&[64, 0]).unwrap(), 0);
        assert!(TensorType::Q4_0.byte_len(&[3, 65]).is_err());
        assert!(TensorType::Q4_0.byte_len(&[]).is_err());
        assert!(TensorType::F32.byte_len(&[1 << 32, 1 << 32]).is_err());
        assert!(TensorType::F32.byte_len(&[0, 1 << 32, 1 << 32]).is_err());
        assert!(TensorType::F64.byte_len(&[1 << 61]).is_err());
    }
}
