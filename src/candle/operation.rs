//! Fake quantization as operations of candle's graph.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Tensor};

use super::tensors::{row_major, view, with_view};
use crate::qat::{FakeQuant, FakeQuantExt, Gradients};

/// One fake-quant, that of a layer and of the graphs that go through it.
pub(super) type Shared = Arc<Mutex<Box<dyn FakeQuant>>>;

/// A panic elsewhere leaves a fake-quant whole: its parameters are set all at once, and set anew
/// before each pass.
pub(super) fn lock(fake: &Shared) -> MutexGuard<'_, Box<dyn FakeQuant>> {
    fake.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets parameters, unless they are set already.
pub(super) fn set_parameters(fake: &mut dyn FakeQuant, parameters: &[f32]) -> Result<()> {
    if !same_bits(&fake.parameters(), parameters) {
        fake.set_parameters(parameters)?;
    }
    Ok(())
}

pub(super) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.iter()
        .map(|v| v.to_bits())
        .eq(b.iter().map(|v| v.to_bits()))
}

/// Fake quantization that learns nothing.
pub(super) struct Fixed(pub(super) Shared);

/// Fake quantization of the first tensor, with the second as what is learned.
pub(super) struct Learned(pub(super) Shared);

impl CustomOp1 for Fixed {
    fn name(&self) -> &'static str {
        "fake-quantize"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        forward(&**lock(&self.0), storage, layout)
    }

    fn bwd(&self, input: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let (gradients, _) = backward(&self.0, &[], input, gradient)?;
        Ok(Some(like(input, gradients)?))
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
        let mut fake = lock(&self.0);
        let parameters = view(parameters, parameters_layout)?;
        set_parameters(&mut **fake, &row_major(parameters.to_owned()))?;
        forward(&**fake, storage, layout)
    }

    fn bwd(
        &self,
        input: &Tensor,
        parameters: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let learned = parameters.to_vec1::<f32>()?;
        let (gradients, slopes) = backward(&self.0, &learned, input, gradient)?;
        let slopes = Tensor::from_vec(slopes, parameters.shape(), parameters.device())?;
        Ok((Some(like(input, gradients)?), Some(slopes)))
    }
}

fn forward(
    fake: &dyn FakeQuant,
    storage: &CpuStorage,
    layout: &Layout,
) -> Result<(CpuStorage, Shape)> {
    let output = fake.forward(&view(storage, layout)?)?;
    let output = CpuStorage::F32(row_major(output));
    Ok((output, layout.shape().clone()))
}

/// The gradients, and those of what is learned. The tensors are locked before the fake-quant, as in
/// the forward pass: the other order could wait for ever where threads share a layer.
fn backward(
    fake: &Shared,
    parameters: &[f32],
    input: &Tensor,
    gradient: &Tensor,
) -> Result<(Gradients, Vec<f32>)> {
    with_view(input, |input| {
        with_view(gradient, |gradient| {
            let mut fake = lock(fake);
            if parameters.is_empty() {
                return Ok((fake.backward(&input, &gradient)?, vec![]));
            }
            set_parameters(&mut **fake, parameters)?;
            let gradients = fake.backward(&input, &gradient)?;
            let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?;
            Ok((gradients, slopes))
        })
    })
}

/// The gradient of the input as a tensor.
fn like(input: &Tensor, gradients: Gradients) -> Result<Tensor> {
    Tensor::from_vec(row_major(gradients.input), input.shape(), input.device())
}
