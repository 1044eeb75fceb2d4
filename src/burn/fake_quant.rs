//! A fake-quant as a module.

use burn_core as burn;
use burn_core::{
    backend::{Dispatch, DispatchDevice},
    module::{Module, Param},
    tensor::{DType, Device, Tensor, TensorData},
};

use super::{
    operation::{Failure, FakeQuantize, Pass},
    tensors::{data, numbers, view},
};
use crate::{
    error::{Error, Result},
    qat::{FakeQuant, SharedFakeQuant, same_bits},
    tensor::QTensor,
};

/// A [`FakeQuant`] as a module of burn.
///
/// [`forward`](Self::forward) returns the fake-quantized input; gradients are those of the fake-quant,
/// for the input and for what is learned. What is learned is a [`Param`] of one axis,
/// [`parameters`](Self::parameters), which the user's optimizer steps and records save. Each pass
/// computes with it brought back to where scales are positive, as [`FakeQuant::set_parameters`] does;
/// one that is not finite is an error. Weight decay is not for it: scales would shrink without end.
///
/// Clones, [`valid`](Module::valid) among them, have a `Param` of their own and share the rest, which
/// [`observe`](Self::observe) and [`update`](Self::update) change. The backward pass goes by its state
/// at that time: observe and switch between a backward pass and the next forward pass. A backward
/// pass returns no error in burn: where a fake-quant fails, its gradients are NaN, and the next call
/// of the layer returns the error.
///
/// Threads may share a layer for forward passes. Where several train at once, give each a
/// [`fork`](Module::fork), as burn's own training on several devices does: the graphs of two threads
/// that go through one parameter are one graph in burn, and building it while the other thread goes
/// back through it can block both for ever (burn-autodiff 0.22).
///
/// ```
/// # use burn_core as burn;
/// use burn::tensor::{Device, Tensor};
/// use lowbit::{Affine, Scheme, burn::FakeQuantLayer};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
///
/// let device = Device::flex().autodiff();
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
/// let fake = LearnedFakeQuant::new(affine, StepSize, Lsq)?;
/// let layer = FakeQuantLayer::new(fake, &device);
///
/// let x = Tensor::<1>::from_data([0.6_f32, 0.2, 50.0], &device).require_grad();
/// let y = layer.forward(x.clone())?;
/// assert_eq!(y.to_data().as_slice::<f32>().unwrap(), [0.5, 0.0, 3.5]);
/// let gradients = y.sum().backward();
/// let to_x = x.grad(&gradients).unwrap().to_data();
/// assert_eq!(to_x.as_slice::<f32>().unwrap(), [1.0, 1.0, 0.0]);
/// let step_size = layer.parameters().unwrap().val();
/// assert!(step_size.grad(&gradients).is_some());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct FakeQuantLayer {
    parameters: Option<Param<Tensor<1>>>,
    #[module(skip)]
    fake: SharedFakeQuant,
    #[module(skip)]
    failure: Failure,
}

impl FakeQuantLayer {
    /// With a [`Param`] for what the fake-quant learns, if it learns anything.
    #[must_use]
    pub fn new(fake: impl FakeQuant + 'static, device: &Device) -> Self {
        let start = fake.parameters();
        let parameters = (!start.is_empty()).then(|| {
            let shape = [start.len()];
            let start = Tensor::from_data(TensorData::new(start, shape), (device, DType::F32));
            Param::from_tensor(start)
        });
        Self {
            parameters,
            fake: SharedFakeQuant::new(fake),
            failure: Failure::default(),
        }
    }

    /// What an optimizer learns, in the form of [`FakeQuant::parameters`]; none where nothing is
    /// learned.
    #[must_use]
    pub fn parameters(&self) -> Option<&Param<Tensor<1>>> {
        self.parameters.as_ref()
    }

    /// The fake-quantized input, in its shape, device and graph.
    ///
    /// # Errors
    /// Those of [`FakeQuant::forward_view`] and [`FakeQuant::set_parameters`]; [`Error::Unsupported`]
    /// for a tensor that is not of `f32`, and with autodiff for one that is not on the device
    /// [`Device::flex`]; the error of a backward pass before this call.
    ///
    /// # Panics
    /// Where burn's operations do: for an input and a layer whose devices checkpoint gradients
    /// differently.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>> {
        let learned = self.learned()?;
        let numbers = data(&input)?;
        let output = self.fake.forward(&learned, &view(&numbers)?)?;
        let output = TensorData::new(output, input.shape());
        let device = input.device();
        let plain = device.clone().without_autodiff();
        let output = Tensor::from_data(output, (&plain, DType::F32));
        let parameters = match &self.parameters {
            Some(parameters) => parameters.val(),
            None => Tensor::zeros([0], &plain),
        };
        if !device.is_autodiff() && !parameters.device().is_autodiff() {
            return Ok(output);
        }
        for device in [plain, parameters.device().without_autodiff()] {
            if !matches!(device.as_dispatch(), DispatchDevice::Flex(_)) {
                return Err(Error::Unsupported {
                    operation: "gradients of fake quantization in burn",
                    expected: "tensors on the device flex",
                    got: format!("one on {device:?}"),
                });
            }
        }
        let pass = Pass {
            fake: self.fake.clone(),
            learned,
            input: numbers,
            failure: self.failure.clone(),
        };
        Ok(Tensor::from_dispatch(Dispatch::fake_quantized(
            input.into_dispatch(),
            parameters.into_dispatch(),
            output.into_dispatch(),
            pass,
        )))
    }

    /// Calls `change` on the fake-quant, whose parameters are those of [`parameters`](Self::parameters)
    /// before and after: for `begin_step`, `switch`, `freeze` and `restart`. A change of nothing,
    /// `|_| Ok(())`, brings the [`Param`] itself back to where scales are positive, as each pass does
    /// for itself. `change` must not use this layer or a clone of it, which would wait for its own end.
    ///
    /// # Errors
    /// Those of `change`, and of [`FakeQuant::set_parameters`]; the error of a backward pass before
    /// this call.
    ///
    /// ```
    /// # use burn_core::tensor::{Device, Tensor};
    /// # use lowbit::{Affine, Scheme, burn::FakeQuantLayer, qat::{AffineFakeQuant, Clipped}};
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
    /// let mut layer = FakeQuantLayer::new(AffineFakeQuant::new(affine, Clipped), &Device::flex());
    /// layer.update(|fake| fake.switch(false))?;
    /// let x = Tensor::<1>::from_data([0.7_f32], &Device::flex());
    /// assert_eq!(layer.forward(x)?.into_data().as_slice::<f32>().unwrap(), [0.7]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn update<T>(&mut self, change: impl FnOnce(&mut dyn FakeQuant) -> Result<T>) -> Result<T> {
        let before = self.learned()?;
        let (result, after) = self.fake.change(&before, change)?;
        if !same_bits(&before, &after) {
            self.parameters = self.parameters.take().map(|parameters| {
                let data = TensorData::new(after.clone(), [after.len()]);
                parameters.map(|old| {
                    let new = Tensor::from_data(data, (&old.device(), DType::F32));
                    new.set_require_grad(old.is_require_grad())
                })
            });
        }
        Ok(result)
    }

    /// Shows a tensor to what chooses the range, if anything does; before the forward pass of a
    /// training step.
    ///
    /// # Errors
    /// Those of [`FakeQuant::observe_view`] and [`update`](Self::update); [`Error::Unsupported`] for
    /// a tensor that is not of `f32`.
    pub fn observe<const D: usize>(&mut self, input: &Tensor<D>) -> Result<()> {
        let input = data(input)?;
        let input = view(&input)?;
        self.update(|fake| fake.observe_view(input))
    }

    /// The quantized tensor that training computed with, ready to be packed.
    ///
    /// # Errors
    /// Those of [`FakeQuant::convert_view`]; [`Error::Unsupported`] for a tensor that is not of `f32`;
    /// the error of a backward pass before this call.
    pub fn convert<const D: usize>(&self, input: &Tensor<D>) -> Result<QTensor> {
        let input = data(input)?;
        let input = view(&input)?;
        let (codes, _) = self
            .fake
            .change(&self.learned()?, |fake| fake.convert_view(input))?;
        Ok(codes)
    }

    /// The numbers of [`parameters`](Self::parameters).
    fn learned(&self) -> Result<Vec<f32>> {
        self.failure.take()?;
        match &self.parameters {
            Some(parameters) => numbers(&parameters.val()),
            None => Ok(vec![]),
        }
    }
}
