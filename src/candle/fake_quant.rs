//! A fake-quant as a module.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Init, VarBuilder};
use ndarray::ArrayViewD;

use super::{
    operation::{Fixed, Learned},
    tensors::with_view,
};
use crate::{
    qat::{FakeQuant, SharedFakeQuant, same_bits},
    tensor::QTensor,
};

/// A [`FakeQuant`] as a module of candle.
///
/// [`forward`](Module::forward) returns the fake-quantized input; gradients are those of the
/// fake-quant, for the input and for what is learned. What is learned is a [`Var`] of one axis,
/// [`parameters`](Self::parameters), which the user's optimizer steps. Before each forward pass it is
/// brought back to where scales are positive, as [`FakeQuant::set_parameters`] does; one that is not
/// finite is an error. Weight decay is not for it: scales would shrink without end.
///
/// Clones share everything, as clones of tensors do. The backward pass goes by the state at its
/// time: step, observe and switch between a backward pass and the next forward pass.
///
/// ```
/// use candle_core::{Device, Module, Var};
/// use lowbit::{Affine, Scheme, candle::FakeQuantLayer};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
/// let fake = LearnedFakeQuant::new(affine, StepSize, Lsq)?;
/// let layer = FakeQuantLayer::new(fake, &Device::Cpu)?;
///
/// let x = Var::new(&[0.6_f32, 0.2, 50.0], &Device::Cpu)?;
/// let y = layer.forward(&x)?;
/// assert_eq!(y.to_vec1::<f32>()?, [0.5, 0.0, 3.5]);
/// let gradients = y.sum_all()?.backward()?;
/// assert_eq!(gradients.get(&x).unwrap().to_vec1::<f32>()?, [1.0, 1.0, 0.0]);
/// let step_size = layer.parameters().unwrap();
/// assert!(gradients.get(step_size).is_some());
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct FakeQuantLayer {
    fake: SharedFakeQuant,
    parameters: Option<Var>,
}

impl FakeQuantLayer {
    /// With a new [`Var`] for what the fake-quant learns, if it learns anything.
    ///
    /// # Errors
    /// Those of the device.
    pub fn new(fake: impl FakeQuant + 'static, device: &Device) -> Result<Self> {
        let start = fake.parameters();
        let parameters = if start.is_empty() {
            None
        } else {
            Some(Var::from_slice(&start, start.len(), device)?)
        };
        Ok(Self::with(fake, parameters))
    }

    /// With what the fake-quant learns as the variable `quantizer` of a builder.
    ///
    /// It starts from the fake-quant's own parameters where the builder makes a new variable, and
    /// from the builder's numbers where it has them already, from a checkpoint for example.
    ///
    /// # Errors
    /// Those of the builder, for a variable of another shape too.
    ///
    /// ```
    /// # use candle_core::{DType, Device};
    /// # use candle_nn::{VarBuilder, VarMap};
    /// # use lowbit::{Affine, Scheme, candle::FakeQuantLayer, qat::{LearnedFakeQuant, Lsq, StepSize}};
    /// let variables = VarMap::new();
    /// let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
    /// let fake = LearnedFakeQuant::new(affine, StepSize, Lsq)?;
    /// let layer = FakeQuantLayer::from_builder(fake, &builder.pp("input"))?;
    /// let variables = variables.data().lock().unwrap();
    /// assert_eq!(variables["input.quantizer"].to_vec1::<f32>()?, [0.0]); // ln 1
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn from_builder(fake: impl FakeQuant + 'static, builder: &VarBuilder<'_>) -> Result<Self> {
        let start = fake.parameters();
        if start.is_empty() {
            return Ok(Self::with(fake, None));
        }
        // A builder initializes with one number for all. NaN is never learned, so that it tells a
        // new variable from one that was there.
        let unset = Init::Const(f64::NAN);
        let tensor = builder.get_with_hints_dtype(start.len(), "quantizer", unset, DType::F32)?;
        let parameters = Var::from_tensor(&tensor)?;
        if parameters.to_vec1::<f32>()?.iter().all(|v| v.is_nan()) {
            parameters.set(&Tensor::from_slice(&start, start.len(), tensor.device())?)?;
        }
        Ok(Self::with(fake, Some(parameters)))
    }

    fn with(fake: impl FakeQuant + 'static, parameters: Option<Var>) -> Self {
        Self {
            fake: SharedFakeQuant::new(fake),
            parameters,
        }
    }

    /// What an optimizer learns, in the form of [`FakeQuant::parameters`]; none where nothing is
    /// learned.
    #[must_use]
    pub fn parameters(&self) -> Option<&Var> {
        self.parameters.as_ref()
    }

    /// Calls `change` on the fake-quant, whose parameters are those of [`parameters`](Self::parameters)
    /// before and after: for `begin_step`, `switch`, `freeze` and `restart`. `change` must not use
    /// this layer or a clone of it, which would wait for its own end.
    ///
    /// # Errors
    /// Those of `change`, and of [`FakeQuant::set_parameters`].
    ///
    /// ```
    /// # use candle_core::{Device, Module, Tensor};
    /// # use lowbit::{Affine, Scheme, candle::FakeQuantLayer, qat::{AffineFakeQuant, Clipped}};
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
    /// let layer = FakeQuantLayer::new(AffineFakeQuant::new(affine, Clipped), &Device::Cpu)?;
    /// layer.update(|fake| fake.switch(false))?;
    /// let x = Tensor::new(&[0.7_f32], &Device::Cpu)?;
    /// assert_eq!(layer.forward(&x)?.to_vec1::<f32>()?, [0.7]);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn update<T>(
        &self,
        change: impl FnOnce(&mut dyn FakeQuant) -> crate::Result<T>,
    ) -> Result<T> {
        let before = self.learned()?;
        let (result, after) = self.fake.change(&before, change)?;
        self.learn(&before, &after)?;
        Ok(result)
    }

    /// The numbers of [`parameters`](Self::parameters).
    fn learned(&self) -> Result<Vec<f32>> {
        let learned = self.parameters.as_ref().map(|v| v.to_vec1());
        Ok(learned.transpose()?.unwrap_or_default())
    }

    fn learn(&self, before: &[f32], after: &[f32]) -> Result<()> {
        match &self.parameters {
            Some(parameters) if !same_bits(before, after) => parameters.set(&Tensor::from_slice(
                after,
                after.len(),
                parameters.device(),
            )?),
            _ => Ok(()),
        }
    }

    /// Tensors are locked before fake-quants everywhere, since operations run with their tensors
    /// locked: `change` reads and sets none.
    fn update_with<T>(
        &self,
        input: &Tensor,
        change: impl FnOnce(&mut dyn FakeQuant, ArrayViewD<'_, f32>) -> crate::Result<T>,
    ) -> Result<T> {
        let before = self.learned()?;
        let (result, after) = with_view(input, |input| {
            Ok(self.fake.change(&before, |fake| change(fake, input))?)
        })?;
        self.learn(&before, &after)?;
        Ok(result)
    }

    /// Shows a tensor to what chooses the range, if anything does; before the forward pass of a
    /// training step.
    ///
    /// # Errors
    /// Those of [`FakeQuant::observe_view`].
    pub fn observe(&self, input: &Tensor) -> Result<()> {
        self.update_with(input, |fake, input| fake.observe_view(input))
    }

    /// The quantized tensor that training computed with, ready to be packed.
    ///
    /// # Errors
    /// Those of [`FakeQuant::convert_view`].
    pub fn convert(&self, input: &Tensor) -> Result<QTensor> {
        self.update_with(input, |fake, input| fake.convert_view(input))
    }
}

impl Module for FakeQuantLayer {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let fake = self.fake.clone();
        match &self.parameters {
            None => input.apply_op1(Fixed(fake)),
            Some(parameters) => {
                self.update(|_| Ok(()))?;
                input.apply_op2(parameters, Learned(fake))
            }
        }
    }
}
