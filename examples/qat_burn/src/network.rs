//! Two convolutions and a fully connected layer, in burn: in floats, and quantized.

use burn::{
    module::Module,
    nn::{
        Linear, LinearConfig, PaddingConfig2d,
        conv::{Conv2d, Conv2dConfig},
    },
    tensor::{Device, Tensor, activation::relu},
};
use lowbit::{
    Affine, Result, RoundToNearest, Scheme,
    burn::{FakeQuantLayer, QatConv2d, QatLinear},
    calibrate::MeanSquaredError,
    prelude::*,
    qat::{LearnedFakeQuant, Lsq, StepSize},
};
use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};

use crate::packed::{Convolution, PackedNetwork, with_input};

/// What tells images `[images, 1, 8, 8]` apart.
pub trait Classifier: Module {
    /// `[images, 10]`.
    fn forward(&self, images: Tensor<4>) -> Result<Tensor<2>>;

    /// The label that each image gets.
    fn predict(&self, images: Tensor<4>) -> Result<Vec<usize>> {
        let labels = self.forward(images)?.argmax(1).into_data();
        Ok(labels.iter::<i64>().map(|label| label as usize).collect())
    }
}

/// The network in floats.
#[derive(Module, Debug)]
pub struct Float {
    first: Conv2d,
    second: Conv2d,
    last: Linear,
}

impl Float {
    /// With random numbers, by the seed of the device.
    pub fn new(device: &Device) -> Self {
        let conv = |channels, stride| {
            Conv2dConfig::new(channels, [3, 3])
                .with_stride([stride; 2])
                .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
                .init(device)
        };
        Self {
            first: conv([1, 8], 1),
            second: conv([8, 16], 2),
            last: LinearConfig::new(256, 10).init(device),
        }
    }

    /// The input of each layer but the first.
    fn inputs(&self, images: Tensor<4>) -> (Tensor<4>, Tensor<2>) {
        let one = relu(self.first.forward(images));
        let two = relu(self.second.forward(one.clone())).flatten(1, 3);
        (one, two)
    }
}

impl Classifier for Float {
    fn forward(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        let (_, input) = self.inputs(images);
        Ok(self.last.forward(input))
    }
}

/// The network with quantized weights, and inputs of 8 bits.
#[derive(Module, Debug)]
pub struct Quantized {
    first: QatConv2d,
    second: QatConv2d,
    last: QatLinear,
}

impl Quantized {
    /// From the weights of the float network and from what its layers do on calibration images.
    pub fn new(float: &Float, bits: u32, calibration: Tensor<4>) -> Result<Self> {
        let device = calibration.device();
        let weights = Scheme::int(bits).symmetric().per_axis(0).build()?;
        let inputs = Scheme::int(8).unsigned().asymmetric().build()?;
        let input = |seen: Vec<f32>| {
            let fake = learned(inputs, ArrayView::from(&seen))?;
            Ok::<_, lowbit::Error>(FakeQuantLayer::new(fake, &device))
        };
        let (one, two) = float.inputs(calibration.clone());
        let conv = |conv: &Conv2d, seen: Tensor<4>| {
            let layer = QatConv2d::from_conv2d(conv.clone(), |w| learned(weights, w))?;
            Ok::<_, lowbit::Error>(layer.with_input(input(numbers(seen))?))
        };
        let last = QatLinear::from_linear(float.last.clone(), |w| learned(weights, w))?;
        Ok(Self {
            first: conv(&float.first, calibration)?,
            second: conv(&float.second, one)?,
            last: last.with_input(input(numbers(two))?),
        })
    }

    /// What training computed with, as integers; nothing is calibrated or rounded anew.
    pub fn pack(&self) -> Result<PackedNetwork> {
        let convolutions = [&self.first, &self.second];
        let mut bytes = self.last.convert()?.memory_bytes();
        for layer in convolutions {
            bytes += layer.convert()?.memory_bytes();
        }
        let convolution = |layer: &QatConv2d| {
            Ok::<_, lowbit::Error>(Convolution {
                packed: with_input(layer.pack()?, affine(layer.input_fake())?)?,
                stride: layer.conv().stride[0],
            })
        };
        Ok(PackedNetwork {
            convolutions: convolutions
                .map(convolution)
                .into_iter()
                .collect::<Result<_>>()?,
            last: with_input(self.last.pack()?, affine(self.last.input_fake())?)?,
            bytes,
        })
    }
}

impl Classifier for Quantized {
    fn forward(&self, images: Tensor<4>) -> Result<Tensor<2>> {
        let one = relu(self.first.forward(images)?);
        let two = relu(self.second.forward(one)?);
        self.last.forward(two.flatten::<2>(1, 3))
    }
}

/// A learned step size that starts where the squared error is least.
fn learned<D: Dimension>(
    scheme: Scheme,
    values: ArrayView<'_, f32, D>,
) -> Result<LearnedFakeQuant<Lsq>> {
    let start = RoundToNearest::new(scheme)
        .with_calibrator(MeanSquaredError::default())
        .quantize(&values)?;
    LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
}

/// The one range of an input, whatever its shape.
fn affine(fake: Option<&FakeQuantLayer>) -> Result<Option<Affine>> {
    let any = ArrayD::zeros(IxDyn(&[0, 1]));
    let affine = fake.map(|fake| fake.clone().update(|fake| fake.affine_view(any.view())));
    affine.transpose()
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_into_vec().expect("numbers of f32")
}
