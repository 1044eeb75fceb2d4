//! The step size and an offset are learned.

use ndarray::{ArrayRef, Dimension};

use super::Parametrization;
use crate::{
    affine::{Affine, Parameter},
    calibrate::map_groups,
    error::{Error, Result},
    groups::Groups,
    scheme::{Mapping, Scheme},
};

/// The scale and a real offset `β` are learned, `x̂ = scale · q + β` with
/// `q = clamp(round((x − β) / scale))`: LSQ+, Bhalgat et al. 2020, arXiv:2004.09576.
///
/// It goes with schemes of real zero points, `zero_point = −β / scale`. With
/// [`Lsq`](super::super::Lsq) as the estimator the gradients are the paper's:
///
/// | | scale | β |
/// |---|---|---|
/// | inside | `q − (x − β) / scale` | 0 |
/// | clamped | `q` | 1 |
///
/// both times `1 / √(N · Qp)`. Start from [`initial`](Self::initial) for weights, and for
/// activations, which the paper starts where the squared error is least, from the ranges of
/// [`MeanSquaredError`](crate::calibrate::MeanSquaredError).
///
/// ```
/// use lowbit::{FakeQuant, FakeQuantExt, Scheme};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepAndOffset};
/// use ndarray::array;
///
/// let x = array![-0.3_f32, 0.1, 0.9, 2.0];
/// let scheme = Scheme::int(4).unsigned().asymmetric_float().build()?;
/// let fake = LearnedFakeQuant::new(StepAndOffset::initial(&x, &scheme)?, StepAndOffset, Lsq)?;
/// let [scale, offset] = fake.latents(0);
/// assert_eq!(offset, 0.0);
/// assert!(scale > 0.0);
/// assert_eq!(fake.parameters().len(), 2);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StepAndOffset;

impl StepAndOffset {
    /// The parameters to start weights from: `scale = max(|μ − 3σ|, |μ + 3σ|) / 2^(b−1)` for each
    /// group, offset 0. A group without spread, or of no elements, gets scale 1.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for weights that are not finite; [`Error::Unsupported`] unless zero
    /// points are real; those of [`Groups::new`].
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a mean is rounded anyway, and codes have at most 16 bits"
    )]
    pub fn initial<D: Dimension>(weights: &ArrayRef<f32, D>, scheme: &Scheme) -> Result<Affine> {
        Self.check(scheme)?;
        let groups = Groups::new(weights.shape(), scheme.granularity())?;
        let levels = f64::from(1_u32 << (scheme.bits() - 1));
        let scale = map_groups(weights, &groups, None, |values, _| {
            let count = values.len().max(1) as f64;
            let mean = values.iter().map(|&w| f64::from(w)).sum::<f64>() / count;
            let squares = values.iter().map(|&w| (f64::from(w) - mean).powi(2));
            let reach = 3.0 * (squares.sum::<f64>() / count).sqrt();
            let scale = (mean - reach).abs().max((mean + reach).abs()) / levels;
            Ok(crate::affine::store(scheme.scale_kind(), scale as f32))
        })?;
        let zero_point = vec![0.0; scale.len()];
        Affine::new(*scheme, &groups.parameter_shape(), scale, zero_point)
    }
}

impl Parametrization for StepAndOffset {
    fn count(&self, _scheme: &Scheme) -> usize {
        2
    }

    fn check(&self, scheme: &Scheme) -> Result<()> {
        if scheme.mapping() == Mapping::AsymmetricFloat {
            return Ok(());
        }
        Err(Error::Unsupported {
            operation: "a learned offset",
            expected: "a scheme with real zero points",
            got: scheme.to_string(),
        })
    }

    fn latents(&self, _scheme: &Scheme, from: Parameter) -> [f32; 2] {
        [from.scale, -from.zero_point * from.scale]
    }

    fn is_size(&self, latent: usize) -> bool {
        latent == 0
    }

    fn parameter(&self, _scheme: &Scheme, latents: [f32; 2], _start: Parameter) -> Parameter {
        let [scale, offset] = latents;
        Parameter {
            scale,
            // Not −0, which would print and compare as another number.
            zero_point: 0.0 - offset / scale,
        }
    }

    fn gradients(&self, _scheme: &Scheme, latents: [f32; 2], parameter: [f32; 2]) -> [f32; 2] {
        let ([scale, offset], [to_scale, to_zero]) = (latents, parameter);
        [
            to_scale + to_zero * (offset / scale) / scale,
            -to_zero / scale,
        ]
    }
}
