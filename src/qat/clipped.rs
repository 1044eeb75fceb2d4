//! The straight-through estimator with a mask.

use super::{Partials, Point, StraightThroughEstimator};

/// Rounding counts as the identity, clamping as what it is: no gradient where the input is out of
/// range, `qmin <= round(x / scale) + zero_point <= qmax`.
///
/// Source: Bengio, Léonard & Courville 2013 (arXiv:1308.3432), in the form that
/// `torch.fake_quantize_per_tensor_affine` has. Scales and zero points get the derivatives of
/// [`Point::clamped_partials`], unscaled.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, Clipped};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(2).build()?, 1.0, 0.0)?; // −2 to 1
/// let fake = AffineFakeQuant::new(affine, Clipped);
/// let x = array![-3.0_f32, 0.4, 1.4, 3.0];
/// let gradients = fake.backward(&x, &array![1.0, 1.0, 1.0, 1.0])?;
/// assert_eq!(gradients.input, array![0.0, 1.0, 1.0, 0.0]);
/// // −2 and 1 where clamped, the rounding errors −0.4 and −0.4 elsewhere
/// assert!((gradients.scale[0] - -1.8).abs() < 1e-6);
/// assert_eq!(gradients.zero_point, [-2.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Clipped;

impl StraightThroughEstimator for Clipped {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        at.clamped_partials(at.inside, gradient)
    }
}
