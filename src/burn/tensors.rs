//! Between tensors and arrays.

use burn_core::tensor::{DType, Tensor, TensorData};
use ndarray::{ArrayView, ArrayViewD, IxDyn};

use crate::error::{Error, Result};

/// The numbers of a tensor, in row-major order.
pub(super) fn data<const D: usize>(tensor: &Tensor<D>) -> Result<TensorData> {
    checked(tensor.try_to_data().map_err(Error::other)?)
}

/// Those of a tensor of one axis.
pub(super) fn numbers(tensor: &Tensor<1>) -> Result<Vec<f32>> {
    data(tensor)?.try_into_vec().map_err(Error::other)
}

/// Data of `f32`, or an error.
pub(super) fn checked(data: TensorData) -> Result<TensorData> {
    match data.dtype() {
        DType::F32 => Ok(data),
        other => Err(Error::Unsupported {
            operation: "fake quantization in burn",
            expected: "a tensor of f32",
            got: format!("one of {other:?}"),
        }),
    }
}

pub(super) fn view(data: &TensorData) -> Result<ArrayViewD<'_, f32>> {
    let shape: Vec<usize> = data.shape().iter().copied().collect();
    let numbers = data.as_slice::<f32>().map_err(Error::other)?;
    ArrayView::from_shape(IxDyn(&shape), numbers).map_err(Error::other)
}
