//! Quantization-aware training: fake quantization in the forward pass, an estimator of its
//! derivative in the backward pass.

mod estimator;

pub use estimator::{Partials, Point, StraightThroughEstimator};

use std::fmt::Debug;

use ndarray::{Array, ArrayRef, ArrayViewD, Dimension, IxDyn};

use crate::{error::Result, tensor::QTensor};

/// The gradients of a loss with respect to what went into a fake quantization.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients<D: Dimension = IxDyn> {
    /// With respect to the input, in its shape.
    pub input: Array<f32, D>,
    /// With respect to each scale, in row-major order of the parameters.
    pub scale: Vec<f32>,
    /// With respect to each zero point, in row-major order of the parameters.
    pub zero_point: Vec<f32>,
}

/// Quantizes and dequantizes in the forward pass of training, and estimates the gradient in the
/// backward pass.
///
/// The law: what [`forward_view`](Self::forward_view) returns is, bit for bit, what
/// [`convert_view`](Self::convert_view) of the same input dequantizes to.
///
/// The trait is object-safe: implementors write the `_view` methods, callers use
/// [`forward`](Self::forward) and the others, on a type or on `dyn FakeQuant` alike.
pub trait FakeQuant: Debug + Send + Sync {
    /// Shows the input to what chooses the range, if anything does; called before the forward pass
    /// of a training step.
    ///
    /// # Errors
    /// Those of the observer and the calibrator inside.
    fn observe_view(&mut self, _input: ArrayViewD<'_, f32>) -> Result<()> {
        Ok(())
    }

    /// The input moved onto the grid, in the same shape. NaN stays NaN, so that divergence is seen.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the input has other parameters.
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<Array<f32, IxDyn>>;

    /// The gradients, from the input of the forward pass and the gradient of its output.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the two differ in shape or have
    /// other parameters.
    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients>;

    /// The quantized tensor that training computed with.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN;
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the input has other parameters.
    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor>;
}
