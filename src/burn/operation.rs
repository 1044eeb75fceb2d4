//! Fake quantization as an operation of burn's autodiff.

use std::sync::{Arc, Mutex, PoisonError};

use burn_core as burn;
use burn_core::{
    backend::{
        Autodiff, Backend, Flex, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        tensor::FloatTensor,
    },
    tensor::{TensorData, try_read_sync},
};

use super::tensors::{checked, view};
use crate::{
    error::{Error, Result},
    qat::{FlatGradients, SharedFakeQuant},
};

/// What the backward pass needs of the forward pass.
#[derive(Debug, Clone)]
pub(super) struct Pass {
    pub(super) fake: SharedFakeQuant,
    pub(super) learned: Vec<f32>,
    pub(super) input: TensorData,
    pub(super) failure: Failure,
}

/// An error of a backward pass, which has no result in burn: its gradients are NaN, and the next pass
/// through the layer returns the error.
#[derive(Debug, Clone, Default)]
pub(super) struct Failure(Arc<Mutex<Option<Error>>>);

impl Failure {
    fn set(&self, error: Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    pub(super) fn take(&self) -> Result<()> {
        let failure = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.map_or(Ok(()), Err)
    }
}

/// Backends on which a computed output takes its place in the graph, behind the input and what is
/// learned (nothing, in a tensor of no elements, where nothing is).
#[burn::backend::backend_extension(Flex, Autodiff)]
pub(super) trait FakeQuantize: Backend {
    fn fake_quantized(
        input: FloatTensor<Self>,
        learned: FloatTensor<Self>,
        output: FloatTensor<Self>,
        pass: Pass,
    ) -> FloatTensor<Self>;
}

impl FakeQuantize for Flex {
    fn fake_quantized(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        output: FloatTensor<Self>,
        _: Pass,
    ) -> FloatTensor<Self> {
        output
    }
}

impl<B: Backend, C: CheckpointStrategy> FakeQuantize for Autodiff<B, C> {
    fn fake_quantized(
        input: FloatTensor<Self>,
        learned: FloatTensor<Self>,
        output: FloatTensor<Self>,
        pass: Pass,
    ) -> FloatTensor<Self> {
        let output = output.into_primitive();
        let operation = FakeQuantizeBackward.prepare::<C>([input.node(), learned.node()]);
        match operation.compute_bound().stateful() {
            OpsKind::Tracked(operation) => operation.finish(pass, output),
            OpsKind::UnTracked(operation) => operation.finish(output),
        }
    }
}

#[derive(Debug)]
struct FakeQuantizeBackward;

impl<B: Backend> Backward<B, 2> for FakeQuantizeBackward {
    type State = Pass;

    fn backward(self, operation: Ops<Pass, 2>, gradients: &mut Gradients, _: &mut Checkpointer) {
        let (pass, [input, learned]) = (operation.state, operation.parents);
        let gradient = gradients.consume::<B>(&operation.node);
        let device = gradient.device();
        let slopes = pass.backward::<B>(gradient).unwrap_or_else(|error| {
            pass.failure.set(error);
            pass.no_gradients()
        });
        if let Some(node) = input {
            let data = TensorData::new(slopes.input, pass.input.shape().clone());
            gradients.register::<B>(node.id, B::float_from_data(data, &device));
        }
        if let Some(node) = learned {
            let data = TensorData::new(slopes.learned, [pass.learned.len()]);
            gradients.register::<B>(node.id, B::float_from_data(data, &device));
        }
    }
}

impl Pass {
    fn backward<B: Backend>(&self, gradient: FloatTensor<B>) -> Result<FlatGradients> {
        let gradient = try_read_sync(B::float_into_data(gradient)).ok_or(Error::Unsupported {
            operation: "the backward pass of fake quantization in burn",
            expected: "a backend that reads tensors synchronously",
            got: "one that does not".to_owned(),
        })?;
        let gradient = checked(gradient.map_err(Error::other)?)?;
        self.fake
            .backward(&self.learned, &view(&self.input)?, &view(&gradient)?)
    }

    fn no_gradients(&self) -> FlatGradients {
        FlatGradients {
            input: vec![f32::NAN; self.input.num_elements()],
            learned: vec![f32::NAN; self.learned.len()],
        }
    }
}
