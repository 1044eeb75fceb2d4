//! What a quantized tensor is made of: number format, mapping, granularity and scale storage.
//!
//! All plain data, validated when built; nothing here touches a tensor.

mod builder;
mod format;
mod granularity;

pub use builder::SchemeBuilder;
pub use format::{FloatFormat, Format, IntFormat};
pub use granularity::Granularity;

use crate::error::Result;

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
        SchemeBuilder::int(bits)
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
        SchemeBuilder::float(format)
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
    use crate::error::Error;

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
