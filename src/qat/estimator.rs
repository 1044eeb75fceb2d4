//! Straight-through estimators: what stands in for the derivative of rounding.

use std::fmt::Debug;

use super::Segment;

/// One element in a fake quantization.
///
/// Steps are counted from the zero point: the output is `level · scale`, and
/// `level = clamp(round(position))` where zero points are integers,
/// `clamp(round(position + zero_point)) − zero_point` where they are real, and the nearest small
/// float to `position` in schemes of small floats.
///
/// ```
/// use lowbit::qat::{Partials, Point};
///
/// /// No gradient but where rounding moved the value by less than a quarter of a step.
/// fn trusted(at: &Point, gradient: f32) -> Partials {
///     let near = (at.position - at.level).abs() < 0.25;
///     at.clamped_partials(near, gradient)
/// }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// The input.
    pub x: f32,
    /// Real units per step.
    pub scale: f32,
    /// The code that stands for 0, integer or real.
    pub zero_point: f32,
    /// The input in steps, `x / scale`: what the papers call `v`.
    pub position: f32,
    /// The output in steps; NaN where the input is.
    pub level: f32,
    /// The least level: `qmin − zero_point`, or minus the greatest small float.
    pub least: f32,
    /// The greatest level: `qmax − zero_point`, or the greatest small float.
    pub greatest: f32,
    /// Whether nothing was clamped: `qmin <= round(x / scale) + zero_point <= qmax`; for small
    /// floats `least <= position <= greatest`. False for NaN.
    pub inside: bool,
    /// Whether codes are integers, with an integer zero point.
    pub integers: bool,
}

impl Point {
    /// The output, `level · scale`.
    #[must_use]
    #[inline(always)]
    pub fn output(&self) -> f32 {
        self.level * self.scale
    }

    /// The derivatives where rounding counts as the identity and clamping as what it is, times
    /// `gradient`.
    ///
    /// `inside` says where nothing is clamped; give [`inside`](Self::inside), or another idea of
    /// it. There the output moves with the input, and with the scale by the rounding error in
    /// steps; elsewhere it is `(qmax − zero_point) · scale` or its counterpart at the lower end.
    ///
    /// | | input | scale | zero point |
    /// |---|---|---|---|
    /// | inside | `1` | `level − position` | `0` |
    /// | clamped | `0` | `level` | `−scale` |
    #[must_use]
    #[inline(always)]
    pub fn clamped_partials(&self, inside: bool, gradient: f32) -> Partials {
        // Selections, not products with 0 or 1: an infinite position must not become NaN.
        let position = if inside { self.position } else { 0.0 };
        Partials {
            input: if inside { gradient } else { 0.0 },
            scale: (self.level - position) * gradient,
            zero_point: if inside { 0.0 } else { -self.scale } * gradient,
        }
    }
}

/// The derivatives of one output with respect to what it was computed from, times the gradient of
/// the output.
///
/// ```
/// use lowbit::qat::Partials;
/// // the identity, whose parameters have no effect
/// let partials = Partials { input: 1.0, ..Partials::default() };
/// assert_eq!(partials.scale, 0.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Partials {
    /// With respect to the input.
    pub input: f32,
    /// With respect to the scale.
    pub scale: f32,
    /// With respect to the zero point.
    pub zero_point: f32,
}

/// The stand-in for the derivative of rounding, element by element.
///
/// An estimator needs [`partials`](Self::partials) alone. The trait is object-safe, and implemented
/// for boxes, so that `Box<dyn StraightThroughEstimator>` goes wherever an estimator does.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme, StraightThroughEstimator};
/// use lowbit::qat::{AffineFakeQuant, Partials, Point};
/// use ndarray::array;
///
/// /// Gradients larger or smaller by the rounding error, in steps.
/// #[derive(Debug)]
/// struct ByError(f32);
///
/// impl StraightThroughEstimator for ByError {
///     fn partials(&self, at: &Point, gradient: f32) -> Partials {
///         let mut partials = at.clamped_partials(at.inside, gradient);
///         partials.input *= 1.0 + self.0 * gradient.signum() * (at.position - at.level);
///         partials
///     }
/// }
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
/// let fake = AffineFakeQuant::new(affine, ByError(0.5));
/// let gradients = fake.backward(&array![0.25_f32, -0.25, 9.0], &array![1.0, 1.0, 1.0])?;
/// assert_eq!(gradients.input, array![1.125, 0.875, 0.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait StraightThroughEstimator: Debug + Send + Sync {
    /// The derivatives at one element, times `gradient`, the gradient of the loss with respect to
    /// the output there.
    fn partials(&self, at: &Point, gradient: f32) -> Partials;

    /// What the gradient of a scale is multiplied by, where `elements` share it (at least 1) and
    /// the format has `positive_levels` above its zero: the greatest code, less the middle code in
    /// symmetric schemes; the greatest value of small floats; at least 1.
    fn scale_factor(&self, _elements: usize, _positive_levels: f32) -> f32 {
        1.0
    }

    /// What the gradient of a zero point is multiplied by; the same as for its scale, unless an
    /// estimator says otherwise.
    fn zero_point_factor(&self, elements: usize, positive_levels: f32) -> f32 {
        self.scale_factor(elements, positive_levels)
    }

    /// The derivatives at every element of a slice.
    ///
    /// It calls [`partials`](Self::partials) for each of them, in a loop that is compiled for the
    /// estimator: a trait object costs one call a slice. Write it only to prepare something once a
    /// slice.
    fn backward(&self, segment: Segment<'_>) {
        segment.apply(|at, gradient| self.partials(at, gradient));
    }
}

impl<E: StraightThroughEstimator + ?Sized> StraightThroughEstimator for Box<E> {
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        (**self).partials(at, gradient)
    }

    fn scale_factor(&self, elements: usize, positive_levels: f32) -> f32 {
        (**self).scale_factor(elements, positive_levels)
    }

    fn zero_point_factor(&self, elements: usize, positive_levels: f32) -> f32 {
        (**self).zero_point_factor(elements, positive_levels)
    }

    fn backward(&self, segment: Segment<'_>) {
        (**self).backward(segment);
    }
}
