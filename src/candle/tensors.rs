//! Between tensors and arrays.

use candle_core::{CpuStorage, Layout, Result, Storage, Tensor, backend::BackendStorage};
use ndarray::{ArrayView, ArrayViewD, IxDyn, ShapeBuilder};

use crate::error::Error;

/// The elements of a tensor where they lie, in any layout.
pub(super) fn view<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<ArrayViewD<'a, f32>> {
    let CpuStorage::F32(values) = storage else {
        return Err(unsupported(format!("one of {:?}", storage.dtype())));
    };
    let values = values.get(layout.start_offset()..).unwrap_or_default();
    if layout.shape().elem_count() == 0 {
        // Strides of no elements reach beyond them, which arrays refuse.
        return Ok(ArrayView::from_shape(layout.dims(), &[]).map_err(Error::other)?);
    }
    let shape = IxDyn(layout.dims()).strides(IxDyn(layout.stride()));
    Ok(ArrayView::from_shape(shape, values).map_err(Error::other)?)
}

/// Calls `with` on the elements of a tensor.
pub(super) fn with_view<T>(
    tensor: &Tensor,
    with: impl FnOnce(ArrayViewD<'_, f32>) -> Result<T>,
) -> Result<T> {
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => with(view(storage, layout)?),
        Storage::Cuda(_) | Storage::Metal(_) => {
            Err(unsupported(format!("one on {:?}", tensor.device())))
        }
    }
}

fn unsupported(got: String) -> candle_core::Error {
    let error = Error::Unsupported {
        operation: "fake quantization in candle",
        expected: "a tensor of f32 on the CPU",
        got,
    };
    error.into()
}
