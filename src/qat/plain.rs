//! The straight-through estimator without a mask.

use super::{Partials, Point, StraightThroughEstimator};

/// Rounding and clamping both count as the identity: the gradient passes everywhere, so that values
/// out of range can come back.
///
/// Source: Bengio, Léonard & Courville 2013 (arXiv:1308.3432). The output is then
/// `x + (level − position) · scale`, whose derivative with respect to the scale is
/// `level − position`, large far out of range (infinite at an infinity), and with respect to the
/// zero point 0.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, Plain};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(2).build()?, 1.0, 0.0)?; // −2 to 1
/// let fake = AffineFakeQuant::new(affine, Plain);
/// let gradients = fake.backward(&array![-3.0_f32, 0.5, 3.0], &array![1.0, 2.0, 3.0])?;
/// assert_eq!(gradients.input, array![1.0, 2.0, 3.0]);
/// assert_eq!(gradients.scale, [1.0 - 0.5 * 2.0 - 2.0 * 3.0]);
/// assert_eq!(gradients.zero_point, [0.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Plain;

impl StraightThroughEstimator for Plain {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        Partials {
            input: gradient,
            scale: (at.level - at.position) * gradient,
            zero_point: 0.0,
        }
    }
}
