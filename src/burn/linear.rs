//! Fully connected layers.

use burn_core as burn;
use burn_core::{
    module::{Module, Param},
    tensor::Tensor,
};
use burn_nn::Linear;
use ndarray::{ArrayView2, Ix2};

use super::{
    FakeQuantLayer,
    tensors::{data, numbers, view},
};
use crate::{
    error::{Error, Result},
    kernel::PackedLinear,
    qat::FakeQuant,
    tensor::QTensor,
};

/// [`Linear`] with fake-quantized weights and, if wanted, a fake-quantized input `[…, in]`:
/// `[…, in] -> […, out]`.
///
/// Burn has the weights as `[in, out]`. They are quantized as `[out, in]`, the shape that everything
/// else in this crate has them in: axis 0 of a scheme is that of outputs, and groups run along inputs.
///
/// The [module](super) has an example. Records of the layer have `linear.weight`, `linear.bias` and
/// `weight_fake.parameters`; `input_fake.parameters` too, with an input.
#[derive(Module, Debug)]
pub struct QatLinear {
    linear: Linear,
    weight_fake: FakeQuantLayer,
    input_fake: Option<FakeQuantLayer>,
}

impl QatLinear {
    /// From a layer, new or trained, and what quantizes its weights as `[out, in]`.
    #[must_use]
    pub fn new(linear: Linear, weight_fake: FakeQuantLayer) -> Self {
        Self {
            linear,
            weight_fake,
            input_fake: None,
        }
    }

    /// From a layer, new or trained, with what `fake` makes of its weights `[out, in]`, on its device.
    ///
    /// # Errors
    /// Those of `fake`; [`Error::Unsupported`] for weights that are not of `f32`.
    pub fn from_linear<F: FakeQuant + 'static>(
        linear: Linear,
        fake: impl FnOnce(ArrayView2<'_, f32>) -> Result<F>,
    ) -> Result<Self> {
        let weight_fake = fake_of(&linear.weight.val().transpose(), fake)?;
        Ok(Self::new(linear, weight_fake))
    }

    /// The layer with its input fake-quantized too.
    #[must_use]
    pub fn with_input(self, input_fake: FakeQuantLayer) -> Self {
        Self {
            input_fake: Some(input_fake),
            ..self
        }
    }

    /// The layer as it is learned.
    #[must_use]
    pub fn linear(&self) -> &Linear {
        &self.linear
    }

    /// What quantizes the weights.
    #[must_use]
    pub fn weight_fake(&self) -> &FakeQuantLayer {
        &self.weight_fake
    }

    /// What quantizes the weights, to be changed.
    pub fn weight_fake_mut(&mut self) -> &mut FakeQuantLayer {
        &mut self.weight_fake
    }

    /// What quantizes the input.
    #[must_use]
    pub fn input_fake(&self) -> Option<&FakeQuantLayer> {
        self.input_fake.as_ref()
    }

    /// What quantizes the input, to be changed.
    pub fn input_fake_mut(&mut self) -> Option<&mut FakeQuantLayer> {
        self.input_fake.as_mut()
    }

    /// `[…, in] -> […, out]`, with the weights and the input fake-quantized.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for an input of another width; those of [`FakeQuantLayer::forward`].
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Result<Tensor<D>> {
        let weight = self.weight();
        let dims = input.dims();
        let [_, inputs] = weight.dims();
        if dims.last() != Some(&inputs) {
            let mut expected = dims.to_vec();
            expected.pop();
            expected.push(inputs);
            return Err(Error::ShapeMismatch {
                what: "input of a layer",
                expected,
                got: dims.to_vec(),
            });
        }
        let weight = self.weight_fake.forward(weight)?.transpose();
        let linear = Linear {
            weight: Param::initialized(self.linear.weight.id, weight),
            bias: self.linear.bias.clone(),
        };
        let input = match &self.input_fake {
            None => input,
            Some(fake) => fake.forward(input)?,
        };
        Ok(linear.forward(input))
    }

    /// The quantized weights `[out, in]` that training computed with.
    ///
    /// # Errors
    /// Those of [`FakeQuantLayer::convert`].
    pub fn convert(&self) -> Result<QTensor> {
        self.weight_fake.convert(&self.weight())
    }

    /// The layer as packed integers, bias included. Its input stays in floats until
    /// [`PackedLinear::with_activations`] says otherwise.
    ///
    /// # Errors
    /// Those of [`convert`](Self::convert) and [`PackedLinear::pack`].
    pub fn pack(&self) -> Result<PackedLinear> {
        pack(&self.convert()?, self.linear.bias.as_ref())
    }

    /// `[out, in]`.
    fn weight(&self) -> Tensor<2> {
        self.linear.weight.val().transpose()
    }
}

/// The fake-quant for a matrix, on its device.
pub(super) fn fake_of<F: FakeQuant + 'static>(
    matrix: &Tensor<2>,
    fake: impl FnOnce(ArrayView2<'_, f32>) -> Result<F>,
) -> Result<FakeQuantLayer> {
    let weights = data(matrix)?;
    let weights = view(&weights)?.into_dimensionality::<Ix2>();
    let fake = fake(weights.map_err(Error::other)?)?;
    Ok(FakeQuantLayer::new(fake, &matrix.device()))
}

pub(super) fn pack(weights: &QTensor, bias: Option<&Param<Tensor<1>>>) -> Result<PackedLinear> {
    let bias = bias.map(|bias| numbers(&bias.val())).transpose()?;
    PackedLinear::pack(weights, bias.as_deref())
}
