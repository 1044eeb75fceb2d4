//! Straight-through estimators: what stands in for the derivative of rounding.

use std::fmt::Debug;

/// One element in a fake quantization.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Point {
    /// The input.
    pub x: f32,
    /// Real units per step.
    pub scale: f32,
    /// The code that stands for 0, integer or real.
    pub zero_point: f32,
    /// The code before clamping, `round(x / scale) + zero_point` (or `round(x / scale +
    /// zero_point)` where zero points are real).
    pub rounded: f32,
    /// The least code.
    pub quant_min: f32,
    /// The greatest code.
    pub quant_max: f32,
}

/// The derivatives of one output with respect to what it was computed from, times the gradient of
/// the output.
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
pub trait StraightThroughEstimator: Debug + Send + Sync {
    /// The derivatives at one element, times `gradient`, the gradient of the loss with respect to
    /// the output there.
    fn partials(&self, at: &Point, gradient: f32) -> Partials;

    /// What the gradient of a scale is multiplied by, where `elements` share it and `quant_max` is
    /// the greatest code.
    fn scale_factor(&self, _elements: usize, _quant_max: i32) -> f32 {
        1.0
    }
}
