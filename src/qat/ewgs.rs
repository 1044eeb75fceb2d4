//! Element-wise gradient scaling.

use super::{Partials, Point, StraightThroughEstimator};
use crate::error::{Error, Result};

/// Element-wise gradient scaling: Lee et al. 2021, arXiv:2104.00903, eq. 5.
///
/// The gradient of the rounded value, times `1 + δ · sign(gradient) · (xn − xq)`, goes to the
/// value before rounding; `xn` and `xq` are the input and the output as parts of the whole range, so
/// that the factor is within `δ / (2 · (levels − 1))` of 1. A step towards the level that the value was
/// rounded to is made larger, since it has a longer way to the next one, and a step away from it
/// smaller. Where gradients are noisy, values are so drawn to the middle of their step, which keeps
/// them from oscillating between two codes: more so the larger `δ` is. Out of range the gradient is 0.
///
/// Scales follow by the chain rule from the same stand-in for rounding. `δ = 0` is
/// [`Lsq`](super::Lsq) without its factor.
///
/// `δ` is [`fixed`](Self::new), the paper's 1e-3 for instance, or follows the curvature of the loss:
/// [`from_curvature`](Self::from_curvature), with a trace from
/// [`hutchinson_trace`](super::hutchinson_trace).
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, Ewgs};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(2).build()?, 1.0, 0.0)?; // −2 to 1, 3 steps wide
/// let fake = AffineFakeQuant::new(affine, Ewgs::new(0.6)?);
/// let gradients = fake.backward(&array![0.25_f32, 0.25, 9.0], &array![1.0, -1.0, 1.0])?;
/// assert!((gradients.input[0] - (1.0 + 0.6 * 0.25 / 3.0)).abs() < 1e-6);
/// assert!((gradients.input[1] + (1.0 - 0.6 * 0.25 / 3.0)).abs() < 1e-6);
/// assert_eq!(gradients.input[2], 0.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ewgs {
    delta: f32,
}

impl Ewgs {
    /// With a fixed `δ`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless `δ` is finite and at least 0.
    pub fn new(delta: f32) -> Result<Self> {
        if delta.is_finite() && delta >= 0.0 {
            Ok(Self { delta })
        } else {
            let expected = "a finite number of at least 0";
            Err(Error::option("delta of EWGS", expected, delta))
        }
    }

    /// `δ = (Tr(H) / N) / (3 · σ)`, as in the paper: `trace` is that of the Hessian of the loss with
    /// respect to `elements` rounded values, `deviation` the standard deviation of their gradients.
    /// A negative trace gives 0, as a factor that widens errors is not wanted.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a trace that is not finite, no elements, or a deviation that is
    /// not finite and positive.
    ///
    /// ```
    /// use lowbit::qat::Ewgs;
    /// assert_eq!(Ewgs::from_curvature(6.0, 10, 0.1)?.delta(), 2.0);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "an estimate"
    )]
    pub fn from_curvature(trace: f64, elements: usize, deviation: f64) -> Result<Self> {
        if !trace.is_finite() {
            return Err(Error::option("trace", "a finite number", trace));
        }
        if elements == 0 {
            return Err(Error::option("elements", "at least 1", elements));
        }
        if !(deviation.is_finite() && deviation > 0.0) {
            let expected = "a finite number above 0";
            return Err(Error::option("deviation of gradients", expected, deviation));
        }
        let delta = trace.max(0.0) / elements as f64 / (3.0 * deviation);
        Self::new(delta as f32)
    }

    /// `δ`.
    #[must_use]
    pub fn delta(&self) -> f32 {
        self.delta
    }
}

impl StraightThroughEstimator for Ewgs {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        let inside = (at.least <= at.position) & (at.position <= at.greatest);
        // `signum` of 0 is 1, but the gradient beside it is 0 then.
        let sign = 1.0_f32.copysign(gradient);
        let error = (at.position - at.level) / (at.greatest - at.least);
        let slope = if inside {
            1.0 + self.delta * sign * error
        } else {
            0.0
        };
        // A selection: an infinite position times 0 would be NaN.
        let moved = if inside { slope * at.position } else { 0.0 };
        Partials {
            input: if inside { slope * gradient } else { 0.0 },
            scale: (at.level - moved) * gradient,
            zero_point: if inside { 0.0 } else { -at.scale } * gradient,
        }
    }
}
