//! How a packed layer takes its activations.

use ndarray::{Array2, ArrayView2};

use super::layer::CodeView;
use crate::{
    affine::{Affine, quantize},
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

    /// The codes of float activations.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a NaN; for an infinity too where it would choose the range.
    pub(super) fn quantize(&self, x: ArrayView2<'_, f32>) -> Result<Codes> {
        let dynamic;
        let affine = match self {
            Self::Static(affine) => affine,
            Self::Dynamic(scheme) => {
                dynamic = Affine::of(scheme, &x)?;
                &dynamic
            }
        };
        Ok(Codes {
            bytes: if affine.scheme().quant_min() < 0 {
                Bytes::Signed(quantize(&x, affine)?)
            } else {
                Bytes::Unsigned(quantize(&x, affine)?)
            },
            zero: integer_zeros(affine),
            scale: affine.scale().to_vec(),
        })
    }
}

/// The zero points of integer mappings.
#[expect(clippy::cast_possible_truncation, reason = "codes of at most 16 bits")]
pub(super) fn integer_zeros(affine: &Affine) -> Vec<i32> {
    affine
        .zero_point()
        .iter()
        .map(|&zero| zero as i32)
        .collect()
}

/// Quantized activations.
#[derive(Debug)]
pub(super) struct Codes {
    bytes: Bytes,
    pub(super) zero: Vec<i32>,
    pub(super) scale: Vec<f32>,
}

#[derive(Debug)]
enum Bytes {
    Signed(Array2<i8>),
    Unsigned(Array2<u8>),
}

impl Codes {
    pub(super) fn view(&self) -> CodeView<'_> {
        match &self.bytes {
            Bytes::Signed(codes) => CodeView::Signed(codes.view()),
            Bytes::Unsigned(codes) => CodeView::Unsigned(codes.view()),
        }
    }
}
