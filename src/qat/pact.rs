//! Parameterized clipping activation.

use super::{LearnedFakeQuant, Partials, Point, StraightThroughEstimator, Threshold};
use crate::{
    affine::Affine,
    error::{Error, Result},
    scheme::{Format, Granularity, Scheme},
};

/// Parameterized clipping activation: Choi et al. 2018, arXiv:1805.06085.
///
/// `y = clip(x, 0, α)` is what is rounded (eq. 1), and rounding counts as the identity (eq. 3):
/// - the input gets the gradient where `0 <= x < α`;
/// - the clipping value gets the gradient where `x >= α`, and nothing inside: unlike
///   [`Lsq`](super::Lsq), the rounding error says nothing about `α`.
///
/// In other words `α` sees what is clipped and pulls open; what pulls it shut is the paper's
/// penalty `λα²`, a weight decay on `α`: add `2λα` to its gradient, with
/// [`LearnedFakeQuant::latents`] for `α`. Schemes whose codes go below zero clip at both ends.
///
/// ```
/// use lowbit::{FakeQuantExt, Scheme};
/// use lowbit::qat::Pact;
/// use ndarray::array;
///
/// let scheme = Scheme::int(2).unsigned().asymmetric().build()?;
/// let fake = Pact::fake_quant(&scheme, 6.0)?; // 0, 2, 4, 6
/// let x = array![-1.0_f32, 2.5, 5.5, 9.0];
/// assert_eq!(fake.forward(&x)?, array![0.0, 2.0, 6.0, 6.0]);
/// let gradients = fake.backward(&x, &array![1.0, 1.0, 1.0, 0.5])?;
/// assert_eq!(gradients.input, array![0.0, 1.0, 1.0, 0.0]);
/// assert_eq!(gradients.scale, [3.0 * 0.5]); // α is three steps
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Pact;

impl Pact {
    /// Activations clipped to a learned `α`, one for the whole tensor: `scale = α / qmax`, zero
    /// point 0. The paper starts at 10. For one `α` a channel give [`LearnedFakeQuant::new`] the
    /// parameters, a [`Threshold`] and this estimator.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless the scheme is of integers, per tensor, and has the code 0 at
    /// the real 0 and codes above it (`unsigned().asymmetric()`, or signed and symmetric);
    /// [`Error::InvalidScale`] for an `α` that is not finite and positive.
    pub fn fake_quant(scheme: &Scheme, alpha: f32) -> Result<LearnedFakeQuant<Self>> {
        let steps = clipping_steps(scheme)?;
        if scheme.granularity() != Granularity::PerTensor {
            return Err(Error::Unsupported {
                operation: "one clipping value",
                expected: "a scheme per tensor",
                got: scheme.to_string(),
            });
        }
        let affine = Affine::per_tensor(*scheme, alpha / steps, 0.0)?;
        LearnedFakeQuant::new(affine, Threshold::new(steps)?, Self)
    }
}

/// Steps from the real 0 at code 0 to the greatest code.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
fn clipping_steps(scheme: &Scheme) -> Result<f32> {
    if matches!(scheme.format(), Format::Int(_)) && scheme.quant_max() > 0 {
        Ok(scheme.quant_max() as f32)
    } else {
        Err(Error::Unsupported {
            operation: "a clipping value",
            expected: "integers with codes above 0",
            got: scheme.to_string(),
        })
    }
}

impl StraightThroughEstimator for Pact {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        let inside = (at.least <= at.position) & (at.position < at.greatest);
        Partials {
            input: if inside { gradient } else { 0.0 },
            scale: if inside { 0.0 } else { at.level } * gradient,
            zero_point: if inside { 0.0 } else { -at.scale } * gradient,
        }
    }
}
