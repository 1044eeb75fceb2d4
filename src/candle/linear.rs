//! Fully connected layers.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Linear, VarBuilder};
use ndarray::{ArrayView2, Ix2};

use super::{FakeQuantLayer, tensors::with_view};
use crate::{error::Error, kernel::PackedLinear, qat::FakeQuant, tensor::QTensor};

/// [`Linear`] with fake-quantized weights `[out, in]` and, if wanted, a fake-quantized input
/// `[…, in]`: `[…, in] -> […, out]`.
///
/// The [module](super) has an example.
#[derive(Debug, Clone)]
pub struct QatLinear {
    weight: Tensor,
    bias: Option<Tensor>,
    weight_fake: FakeQuantLayer,
    input_fake: Option<FakeQuantLayer>,
}

impl QatLinear {
    /// From weights `[out, in]`, a bias `[out]` and what quantizes the weights.
    #[must_use]
    pub fn new(weight: Tensor, bias: Option<Tensor>, weight_fake: FakeQuantLayer) -> Self {
        Self {
            weight,
            bias,
            weight_fake,
            input_fake: None,
        }
    }

    /// The layer with its input fake-quantized too.
    #[must_use]
    pub fn with_input(self, input_fake: FakeQuantLayer) -> Self {
        Self {
            input_fake: Some(input_fake),
            ..self
        }
    }

    /// The weights as they are learned.
    #[must_use]
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }

    /// The bias.
    #[must_use]
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// What quantizes the weights.
    #[must_use]
    pub fn weight_fake(&self) -> &FakeQuantLayer {
        &self.weight_fake
    }

    /// What quantizes the input.
    #[must_use]
    pub fn input_fake(&self) -> Option<&FakeQuantLayer> {
        self.input_fake.as_ref()
    }

    /// The quantized weights `[out, in]` that training computed with.
    ///
    /// # Errors
    /// Those of [`FakeQuantLayer::convert`].
    pub fn convert(&self) -> Result<QTensor> {
        self.weight_fake.convert(&self.weight)
    }

    /// The layer as packed integers, bias included. Its input stays in floats until
    /// [`PackedLinear::with_activations`] says otherwise.
    ///
    /// # Errors
    /// Those of [`convert`](Self::convert) and [`PackedLinear::pack`].
    pub fn pack(&self) -> Result<PackedLinear> {
        pack(&self.convert()?, self.bias())
    }
}

impl Module for QatLinear {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let weight = self.weight_fake.forward(&self.weight)?;
        let linear = Linear::new(weight, self.bias.clone());
        match &self.input_fake {
            None => linear.forward(input),
            Some(fake) => linear.forward(&fake.forward(input)?),
        }
    }
}

/// Makes or loads a layer: `weight`, `bias` and what the fake-quant learns, `weight.quantizer`.
///
/// `fake` gets the weights `[out, in]` to start from, as [`candle_nn::linear()`] makes them or as the
/// builder has them.
///
/// # Errors
/// Those of the builder and of `fake`.
pub fn qat_linear<F: FakeQuant + 'static>(
    in_dim: usize,
    out_dim: usize,
    builder: VarBuilder<'_>,
    fake: impl FnOnce(ArrayView2<'_, f32>) -> crate::Result<F>,
) -> Result<QatLinear> {
    let linear = candle_nn::linear(in_dim, out_dim, builder.clone())?;
    let fake = fake_of(linear.weight(), fake)?;
    let fake = FakeQuantLayer::from_builder(fake, &builder.pp("weight"))?;
    let (weight, bias) = (linear.weight().clone(), linear.bias().cloned());
    Ok(QatLinear::new(weight, bias, fake))
}

/// The fake-quant for a matrix.
pub(super) fn fake_of<F>(
    matrix: &Tensor,
    fake: impl FnOnce(ArrayView2<'_, f32>) -> crate::Result<F>,
) -> Result<F> {
    with_view(matrix, |weights| {
        let weights = weights.into_dimensionality::<Ix2>();
        Ok(fake(weights.map_err(Error::other)?)?)
    })
}

pub(super) fn pack(weights: &QTensor, bias: Option<&Tensor>) -> Result<PackedLinear> {
    let bias = bias.map(Tensor::to_vec1::<f32>).transpose()?;
    Ok(PackedLinear::pack(weights, bias.as_deref())?)
}
