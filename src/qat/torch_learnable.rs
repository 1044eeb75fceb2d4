//! The gradients of torch's learnable fake quantization.

use super::{Partials, Point, StraightThroughEstimator};
use crate::error::{Error, Result};

/// The gradients of `torch._fake_quantize_learnable_per_tensor_affine` and its twin per channel:
/// those of [`Clipped`](super::Clipped), the ones of scales and zero points times a factor that the
/// caller chooses.
///
/// Differences from torch: the input is divided by the scale, where torch multiplies by its
/// reciprocal (other codes for some inputs halfway between two), and the zero point of the backward
/// pass is that of the forward pass, where torch rounds halves up in the one and to even in the
/// other. torch's modules take `1 / √(numel · qmax)` with all elements of the tensor also where
/// scales are per channel; [`Lsq`](super::Lsq) has the factor of the paper.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, TorchLearnable};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(8).asymmetric().build()?, 0.5, 3.0)?;
/// let fake = AffineFakeQuant::new(affine, TorchLearnable::new(0.25)?);
/// let gradients = fake.backward(&array![0.75_f32, 100.0], &array![1.0, 1.0])?;
/// assert_eq!(gradients.input, array![1.0, 0.0]);
/// assert_eq!(gradients.scale, [(0.5 + 124.0) * 0.25]);
/// assert_eq!(gradients.zero_point, [-0.5 * 0.25]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TorchLearnable {
    grad_factor: f32,
}

impl TorchLearnable {
    /// With the `grad_factor` of torch.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a factor that is not finite.
    pub fn new(grad_factor: f32) -> Result<Self> {
        if grad_factor.is_finite() {
            Ok(Self { grad_factor })
        } else {
            Err(Error::option("grad_factor", "a finite number", grad_factor))
        }
    }
}

impl StraightThroughEstimator for TorchLearnable {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        at.clamped_partials(at.inside, gradient)
    }

    fn scale_factor(&self, _elements: usize, _positive_levels: f32) -> f32 {
        self.grad_factor
    }
}
