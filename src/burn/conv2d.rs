//! Convolutions.

use burn_core as burn;
use burn_core::{
    module::{Module, Param},
    tensor::Tensor,
};
use burn_nn::conv::Conv2d;
use ndarray::ArrayView2;

use super::{
    FakeQuantLayer,
    linear::{fake_of, pack},
};
use crate::{
    error::{Error, Result},
    kernel::PackedLinear,
    qat::FakeQuant,
    tensor::QTensor,
};

/// [`Conv2d`] with fake-quantized weights `[out, in / groups, height, width]` and, if wanted, a
/// fake-quantized input: `[batch, in, height, width] -> [batch, out, height, width]`.
///
/// The weights are quantized as the matrix `[out, in / groups · height · width]`, by which patches of
/// the input are multiplied: axis 0 of its scheme is that of output channels, and groups run along
/// all that is summed. Records of the layer have `conv.weight`, `conv.bias` and
/// `weight_fake.parameters`; `input_fake.parameters` too, with an input.
///
/// ```
/// # mod burn { pub use burn_core::*; pub use burn_nn as nn; }
/// use burn::{nn::conv::Conv2dConfig, tensor::{Device, Tensor}};
/// use lowbit::{RoundToNearest, Scheme, prelude::*, burn::QatConv2d};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
///
/// let device = Device::flex().autodiff();
/// let conv = Conv2dConfig::new([2, 5], [3, 3]).init(&device);
/// let scheme = Scheme::int(4).per_axis(0).build()?;
/// let layer = QatConv2d::from_conv2d(conv, |weights| {
///     let start = RoundToNearest::new(scheme).quantize(&weights)?;
///     LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
/// })?;
/// let images = Tensor::ones([1, 2, 8, 8], &device);
/// assert_eq!(layer.forward(images)?.dims(), [1, 5, 6, 6]);
/// assert_eq!(layer.convert()?.shape(), [5, 2 * 3 * 3]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Module, Debug)]
pub struct QatConv2d {
    conv: Conv2d,
    weight_fake: FakeQuantLayer,
    input_fake: Option<FakeQuantLayer>,
}

impl QatConv2d {
    /// From a layer, new or trained, and what quantizes its weights as a matrix.
    #[must_use]
    pub fn new(conv: Conv2d, weight_fake: FakeQuantLayer) -> Self {
        Self {
            conv,
            weight_fake,
            input_fake: None,
        }
    }

    /// From a layer, new or trained, with what `fake` makes of its weights as the matrix
    /// `[out, in / groups · height · width]`, on its device.
    ///
    /// # Errors
    /// Those of `fake`; [`Error::Unsupported`] for weights that are not of `f32`.
    pub fn from_conv2d<F: FakeQuant + 'static>(
        conv: Conv2d,
        fake: impl FnOnce(ArrayView2<'_, f32>) -> Result<F>,
    ) -> Result<Self> {
        let weight_fake = fake_of(&matrix(&conv), fake)?;
        Ok(Self::new(conv, weight_fake))
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
    pub fn conv(&self) -> &Conv2d {
        &self.conv
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

    /// `[batch, in, height, width] -> [batch, out, height, width]`, with the weights and the input
    /// fake-quantized.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for an input of another number of channels; those of
    /// [`FakeQuantLayer::forward`].
    ///
    /// # Panics
    /// Where [`Conv2d::forward`] does: for an input smaller than the kernel.
    pub fn forward(&self, input: Tensor<4>) -> Result<Tensor<4>> {
        let shape = self.conv.weight.shape();
        let [batch, channels, height, width] = input.dims();
        let expected = shape[1] * self.conv.groups;
        if channels != expected {
            return Err(Error::ShapeMismatch {
                what: "input of a convolution",
                expected: vec![batch, expected, height, width],
                got: vec![batch, channels, height, width],
            });
        }
        let weight = self.weight_fake.forward(matrix(&self.conv))?.reshape(shape);
        let conv = Conv2d {
            weight: Param::initialized(self.conv.weight.id, weight),
            ..self.conv.clone()
        };
        Ok(match &self.input_fake {
            None => conv.forward(input),
            Some(fake) => conv.forward(fake.forward(input)?),
        })
    }

    /// The quantized weights that training computed with, as a matrix
    /// `[out, in / groups · height · width]`.
    ///
    /// # Errors
    /// Those of [`FakeQuantLayer::convert`].
    pub fn convert(&self) -> Result<QTensor> {
        self.weight_fake.convert(&matrix(&self.conv))
    }

    /// The product of the layer as packed integers, bias included, for patches
    /// `[…, in · height · width]` with the channel as the slowest axis.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for several groups, whose patches have no common product; those of
    /// [`convert`](Self::convert) and [`PackedLinear::pack`].
    pub fn pack(&self) -> Result<PackedLinear> {
        if self.conv.groups != 1 {
            return Err(Error::Unsupported {
                operation: "packing a convolution",
                expected: "one group of channels",
                got: format!("{} groups", self.conv.groups),
            });
        }
        pack(&self.convert()?, self.conv.bias.as_ref())
    }
}

/// Weights as a row for each output channel.
fn matrix(conv: &Conv2d) -> Tensor<2> {
    conv.weight.val().flatten(1, 3)
}
