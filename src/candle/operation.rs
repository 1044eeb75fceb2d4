//! Fake quantization as operations of candle's graph.

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::tensors::{view, with_view};
use crate::qat::{FlatGradients, SharedFakeQuant};

/// Fake quantization that learns nothing.
pub(super) struct Fixed(pub(super) SharedFakeQuant);

/// Fake quantization of the first tensor, with the second as what is learned.
pub(super) struct Learned(pub(super) SharedFakeQuant);

impl CustomOp1 for Fixed {
    fn name(&self) -> &'static str {
        "fake-quantize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let output = self.0.forward(&[], &view(storage, layout)?)?;
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let gradients = backward(&self.0, &[], input, gradient)?;
        Ok(Some(like(input, gradients.input)?))
    }
}

impl CustomOp2 for Learned {
    fn name(&self) -> &'static str {
        "fake-quantize-learned"
    }

    fn cpu_fwd(
        &self,
        storage: &CpuStorage,
        layout: &Layout,
        parameters: &CpuStorage,
        parameters_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let learned: Vec<f32> = view(parameters, parameters_layout)?
            .iter()
            .copied()
            .collect();
        let output = self.0.forward(&learned, &view(storage, layout)?)?;
        Ok((CpuStorage::F32(output), layout.shape().clone()))
    }

    fn bwd(
        &self,
        input: &Tensor,
        parameters: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let learned = parameters.to_vec1::<f32>()?;
        let gradients = backward(&self.0, &learned, input, gradient)?;
        let slopes = like(parameters, gradients.learned)?;
        Ok((Some(like(input, gradients.input)?), Some(slopes)))
    }
}

/// The tensors are locked before the fake-quant, as in the forward pass: the other order could wait
/// for ever where threads share a layer.
fn backward(
    fake: &SharedFakeQuant,
    learned: &[f32],
    input: &Tensor,
    gradient: &Tensor,
) -> Result<FlatGradients> {
    with_view(input, |input| {
        with_view(gradient, |gradient| {
            Ok(fake.backward(learned, &input, &gradient)?)
        })
    })
}

/// Numbers as a tensor like another.
fn like(tensor: &Tensor, numbers: Vec<f32>) -> Result<Tensor> {
    Tensor::from_vec(numbers, tensor.shape(), tensor.device())
}
