//! Post-training quantization: float weights to quantized tensors, one method a file.

use std::fmt::Debug;

use ndarray::{ArrayRef, ArrayViewD, Dimension};

use crate::{error::Result, tensor::QTensor};

/// A method that turns a float tensor into a quantized one.
///
/// The trait is object-safe: implementors write [`quantize_view`](Self::quantize_view), callers use
/// [`quantize`](Self::quantize), on a type or on `dyn Quantizer` alike.
pub trait Quantizer: Debug + Send + Sync {
    /// The quantized tensor, of the same shape.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or an infinity in the weights, and
    /// those of the method.
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor>;

    /// The quantized tensor, of the same shape, for weights of any dimension and layout.
    ///
    /// # Errors
    /// Those of [`quantize_view`](Self::quantize_view).
    fn quantize<D: Dimension>(&self, weights: &ArrayRef<f32, D>) -> Result<QTensor>
    where
        Self: Sized,
    {
        self.quantize_view(weights.view().into_dyn())
    }
}

impl dyn Quantizer {
    /// The quantized tensor, of the same shape, for weights of any dimension and layout.
    ///
    /// # Errors
    /// Those of [`quantize_view`](Quantizer::quantize_view).
    pub fn quantize<D: Dimension>(&self, weights: &ArrayRef<f32, D>) -> Result<QTensor> {
        self.quantize_view(weights.view().into_dyn())
    }
}
