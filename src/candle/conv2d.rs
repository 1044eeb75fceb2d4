//! Convolutions.

use candle_core::{Module, Result, Tensor};
use candle_nn::{Conv2d, Conv2dConfig, VarBuilder};
use ndarray::ArrayView2;

use super::{
    FakeQuantLayer,
    linear::{fake_of, pack},
};
use crate::{error::Error, kernel::PackedLinear, qat::FakeQuant, tensor::QTensor};

/// [`Conv2d`] with fake-quantized weights `[out, in / groups, height, width]` and, if wanted, a
/// fake-quantized input: `[batch, in, height, width] -> [batch, out, height, width]`.
///
/// The weights are quantized as the matrix `[out, in / groups · height · width]`, by which patches of
/// the input are multiplied: axis 0 of its scheme is that of output channels, and groups run along
/// all that is summed.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_nn::{Conv2dConfig, VarBuilder, VarMap};
/// use lowbit::{RoundToNearest, Scheme, prelude::*, candle::qat_conv2d};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
///
/// let variables = VarMap::new();
/// let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
/// let scheme = Scheme::int(4).per_axis(0).build()?;
/// let layer = qat_conv2d(2, 5, 3, Conv2dConfig::default(), builder, |weights| {
///     let start = RoundToNearest::new(scheme).quantize(&weights)?;
///     LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
/// })?;
/// let images = Tensor::ones((1, 2, 8, 8), DType::F32, &Device::Cpu)?;
/// assert_eq!(layer.forward(&images)?.dims(), [1, 5, 6, 6]);
/// assert_eq!(layer.convert()?.shape(), [5, 2 * 3 * 3]);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct QatConv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    config: Conv2dConfig,
    weight_fake: FakeQuantLayer,
    input_fake: Option<FakeQuantLayer>,
}

impl QatConv2d {
    /// From weights `[out, in / groups, height, width]`, a bias `[out]` and what quantizes the
    /// weights as a matrix.
    #[must_use]
    pub fn new(
        weight: Tensor,
        bias: Option<Tensor>,
        config: Conv2dConfig,
        weight_fake: FakeQuantLayer,
    ) -> Self {
        Self {
            weight,
            bias,
            config,
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

    /// Padding, stride, dilation and groups.
    #[must_use]
    pub fn config(&self) -> &Conv2dConfig {
        &self.config
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

    /// The quantized weights that training computed with, as a matrix
    /// `[out, in / groups · height · width]`.
    ///
    /// # Errors
    /// Those of [`FakeQuantLayer::convert`].
    pub fn convert(&self) -> Result<QTensor> {
        self.weight_fake.convert(&matrix(&self.weight)?)
    }

    /// The product of the layer as packed integers, bias included, for patches
    /// `[…, in · height · width]` with the channel as the slowest axis.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for several groups, whose patches have no common product; those of
    /// [`convert`](Self::convert) and [`PackedLinear::pack`].
    pub fn pack(&self) -> Result<PackedLinear> {
        if self.config.groups != 1 {
            let error = Error::Unsupported {
                operation: "packing a convolution",
                expected: "one group of channels",
                got: format!("{} groups", self.config.groups),
            };
            return Err(error.into());
        }
        pack(&self.convert()?, self.bias())
    }
}

impl Module for QatConv2d {
    fn forward(&self, input: &Tensor) -> Result<Tensor> {
        let weight = self.weight_fake.forward(&matrix(&self.weight)?)?;
        let weight = weight.reshape(self.weight.shape())?;
        let conv = Conv2d::new(weight, self.bias.clone(), self.config);
        match &self.input_fake {
            None => conv.forward(input),
            Some(fake) => conv.forward(&fake.forward(input)?),
        }
    }
}

/// Makes or loads a layer with a square kernel: `weight`, `bias` and what the fake-quant learns,
/// `weight.quantizer`.
///
/// `fake` gets the weights to start from as the matrix `[out, in / groups · kernel · kernel]`.
///
/// # Errors
/// Those of the builder and of `fake`.
pub fn qat_conv2d<F: FakeQuant + 'static>(
    in_channels: usize,
    out_channels: usize,
    kernel_size: usize,
    config: Conv2dConfig,
    builder: VarBuilder<'_>,
    fake: impl FnOnce(ArrayView2<'_, f32>) -> crate::Result<F>,
) -> Result<QatConv2d> {
    let conv = candle_nn::conv2d(
        in_channels,
        out_channels,
        kernel_size,
        config,
        builder.clone(),
    )?;
    let fake = fake_of(&matrix(conv.weight())?, fake)?;
    let fake = FakeQuantLayer::from_builder(fake, &builder.pp("weight"))?;
    let (weight, bias) = (conv.weight().clone(), conv.bias().cloned());
    Ok(QatConv2d::new(weight, bias, config, fake))
}

/// Weights as a row for each output channel.
fn matrix(weight: &Tensor) -> Result<Tensor> {
    weight.flatten_from(1)
}
