//! How a packed layer takes its activations.

use crate::{
    affine::Affine,
    error::{Error, Result},
    scheme::{Format, Granularity, Mapping, Scheme},
};

/// How a [`PackedLinear`](super::PackedLinear) quantizes its activations.
///
/// Codes are integers of at most 8 bits, with an integer zero point or none.
///
/// ```
/// use lowbit::{Activations, Affine, Scheme};
/// // "per token": a range for each row, chosen at run time
/// let dynamic = Activations::Dynamic(Scheme::int(8).per_row().build()?);
/// // a range chosen ahead, by calibration
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let fixed = Activations::Static(Affine::per_tensor(scheme, 0.02, 128.0)?);
/// # let _ = (dynamic, fixed);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Activations {
    /// With parameters that are known ahead, one for the whole tensor.
    Static(Affine),
    /// With parameters that cover what comes, per row or per tensor, chosen at run time.
    Dynamic(Scheme),
}

impl Activations {
    pub(super) fn scheme(&self) -> &Scheme {
        match self {
            Self::Static(affine) => affine.scheme(),
            Self::Dynamic(scheme) => scheme,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let scheme = self.scheme();
        let granularity = matches!(
            (self, scheme.granularity()),
            (_, Granularity::PerTensor) | (Self::Dynamic(_), Granularity::PerRow)
        );
        let integer = matches!(scheme.format(), Format::Int(_)) && scheme.bits() <= 8;
        if granularity && integer && scheme.mapping() != Mapping::AsymmetricFloat {
            return Ok(());
        }
        Err(Error::Unsupported {
            operation: "activations of a packed layer",
            expected: "integers of at most 8 bits with integer zero points, per tensor, or per row at run time",
            got: scheme.to_string(),
        })
    }

    /// The greatest distance of a code from a zero point.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "codes have at most 8 bits"
    )]
    pub(super) fn reach(&self) -> u32 {
        let scheme = self.scheme();
        let (least, greatest) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
        let reach = |zero: f32| (zero - least).max(greatest - zero) as u32;
        match self {
            Self::Static(affine) => affine
                .zero_point()
                .iter()
                .map(|&z| reach(z))
                .max()
                .unwrap_or(0),
            Self::Dynamic(_) if scheme.mapping().is_symmetric() => reach(scheme.middle() as f32),
            Self::Dynamic(_) => (greatest - least) as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::SchemeBuilder;

    #[test]
    fn the_reach_is_the_greatest_distance_that_a_code_may_have() {
        let fixed = |builder: SchemeBuilder, zero: f32| {
            let affine = Affine::per_tensor(builder.build().unwrap(), 1.0, zero).unwrap();
            Activations::Static(affine).reach()
        };
        let dynamic =
            |builder: SchemeBuilder| Activations::Dynamic(builder.build().unwrap()).reach();
        let (signed, unsigned) = (|| Scheme::int(8), || Scheme::int(8).unsigned());
        assert_eq!(fixed(signed(), 0.0), 128);
        assert_eq!(fixed(signed().narrow_range(), 0.0), 127);
        assert_eq!(fixed(signed().asymmetric(), -128.0), 255);
        assert_eq!(fixed(signed().asymmetric(), 127.0), 255);
        assert_eq!(fixed(signed().asymmetric(), 20.0), 148);
        assert_eq!(fixed(unsigned().asymmetric(), 0.0), 255);
        assert_eq!(fixed(unsigned().asymmetric(), 200.0), 200);
        // At run time any zero point may be chosen, where there is a choice.
        assert_eq!(dynamic(signed()), 128);
        assert_eq!(dynamic(unsigned()), 128);
        assert_eq!(dynamic(signed().asymmetric()), 255);
        assert_eq!(dynamic(Scheme::int(4).unsigned().asymmetric()), 15);
        assert_eq!(dynamic(Scheme::int(4)), 8);
    }
}
