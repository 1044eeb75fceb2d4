//! Two convolutions and a fully connected layer, in candle.

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Conv2dConfig, VarBuilder, VarMap};
use lowbit::{
    Affine, RoundToNearest, Scheme,
    calibrate::MeanSquaredError,
    candle::{FakeQuantLayer, QatConv2d, QatLinear, qat_conv2d, qat_linear},
    prelude::*,
    qat::{LearnedFakeQuant, Lsq, StepSize},
};
use ndarray::{ArrayD, ArrayView, Dimension, IxDyn};

use crate::{
    digits::Random,
    packed::{Convolution, PackedNetwork, with_input},
};

/// Bits of the weights; activations have 8.
#[derive(Clone, Copy)]
pub struct Bits(pub u32);

/// The network and its variables: weights, biases and what quantizers learn.
pub struct Network {
    pub variables: VarMap,
    pub convolutions: [QatConv2d; 2],
    pub last: QatLinear,
}

impl Network {
    /// A float network: its quantizers are there, and off. The numbers come from a seed, which
    /// candle's own on the CPU do not.
    pub fn random(random: &mut Random) -> Result<Self> {
        let variables = VarMap::new();
        let shapes: [(&str, &[usize]); 3] = [
            ("first", &[8, 1, 3, 3]),
            ("second", &[16, 8, 3, 3]),
            ("last", &[10, 256]),
        ];
        for (name, shape) in shapes {
            let inputs: usize = shape[1..].iter().product();
            let bound = (6.0 / inputs as f32).sqrt(); // He et al. 2015
            let weights: Vec<f32> = (0..shape[0] * inputs)
                .map(|_| bound * random.uniform())
                .collect();
            set(
                &variables,
                &format!("{name}.weight"),
                &Tensor::from_vec(weights, shape, &Device::Cpu)?,
            )?;
            let bias = Tensor::zeros(shape[0], DType::F32, &Device::Cpu)?;
            set(&variables, &format!("{name}.bias"), &bias)?;
        }
        let network = Self::with(variables, Bits(8))?;
        for fake in network.fakes() {
            fake.update(|fake| fake.switch(false))?;
        }
        Ok(network)
    }

    /// The layers of the variables there are; step sizes that are not there yet start from the
    /// weights.
    fn with(variables: VarMap, Bits(bits): Bits) -> Result<Self> {
        let scheme = Scheme::int(bits).symmetric().per_axis(0).build()?;
        let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let [one, two] = [1, 2].map(|stride| Conv2dConfig {
            padding: 1,
            stride,
            ..Default::default()
        });
        let first = qat_conv2d(1, 8, 3, one, builder.pp("first"), |w| learned(scheme, w))?;
        let second = qat_conv2d(8, 16, 3, two, builder.pp("second"), |w| learned(scheme, w))?;
        let last = qat_linear(256, 10, builder.pp("last"), |w| learned(scheme, w))?;
        Ok(Self {
            variables,
            convolutions: [first, second],
            last,
        })
    }

    /// The same weights in variables of their own, with quantizers of the weights and of each
    /// layer's input, whose ranges come from what the layers do on calibration images.
    pub fn quantized(&self, bits: Bits, calibration: &Tensor) -> Result<Self> {
        let variables = VarMap::new();
        for (name, variable) in self
            .variables
            .data()
            .lock()
            .expect("no thread panics")
            .iter()
        {
            if !name.ends_with("quantizer") {
                set(&variables, name, variable)?;
            }
        }
        let network = Self::with(variables, bits)?;
        let builder = VarBuilder::from_varmap(&network.variables, DType::F32, &Device::Cpu);
        let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
        let input = |name: &str, seen: &Tensor| {
            let seen = seen.flatten_all()?.to_vec1::<f32>()?;
            let fake = learned(scheme, ArrayView::from(&seen))?;
            FakeQuantLayer::from_builder(fake, &builder.pp(name).pp("input"))
        };
        let inputs = self.inputs(calibration)?;
        let [first, second] = network.convolutions;
        Ok(Self {
            convolutions: [
                first.with_input(input("first", &inputs[0])?),
                second.with_input(input("second", &inputs[1])?),
            ],
            last: network.last.with_input(input("last", &inputs[2])?),
            variables: network.variables,
        })
    }

    fn fakes(&self) -> [&FakeQuantLayer; 3] {
        let [first, second] = &self.convolutions;
        [
            first.weight_fake(),
            second.weight_fake(),
            self.last.weight_fake(),
        ]
    }

    /// The input of each layer.
    fn inputs(&self, images: &Tensor) -> Result<[Tensor; 3]> {
        let [first, second] = &self.convolutions;
        let one = first.forward(images)?.relu()?;
        let two = second.forward(&one)?.relu()?.flatten_from(1)?;
        Ok([images.clone(), one, two])
    }

    /// What training computed with, as integers; nothing is calibrated or rounded anew.
    pub fn pack(&self) -> Result<PackedNetwork> {
        let mut bytes = self.last.convert()?.memory_bytes();
        let mut convolutions = vec![];
        for layer in &self.convolutions {
            bytes += layer.convert()?.memory_bytes();
            convolutions.push(Convolution {
                packed: with_input(layer.pack()?, affine(layer.input_fake())?)?,
                stride: layer.config().stride,
            });
        }
        Ok(PackedNetwork {
            convolutions,
            last: with_input(self.last.pack()?, affine(self.last.input_fake())?)?,
            bytes,
        })
    }

    /// The label that each image gets.
    pub fn predict(&self, images: &Tensor) -> Result<Vec<usize>> {
        let labels = self.forward(images)?.argmax(1)?.to_vec1::<u32>()?;
        Ok(labels.into_iter().map(|label| label as usize).collect())
    }
}

impl Module for Network {
    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let [_, _, input] = self.inputs(images)?;
        self.last.forward(&input)
    }
}

/// A learned step size that starts where the squared error is least.
fn learned<D: Dimension>(
    scheme: Scheme,
    values: ArrayView<'_, f32, D>,
) -> lowbit::Result<LearnedFakeQuant<Lsq>> {
    let start = RoundToNearest::new(scheme)
        .with_calibrator(MeanSquaredError::default())
        .quantize(&values)?;
    LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
}

/// The one range of an input, whatever its shape.
fn affine(fake: Option<&FakeQuantLayer>) -> Result<Option<Affine>> {
    let any = ArrayD::zeros(IxDyn(&[0, 1]));
    let affine = fake.map(|fake| fake.update(|fake| fake.affine_view(any.view())));
    affine.transpose()
}

/// A variable of its own with these numbers.
fn set(variables: &VarMap, name: &str, numbers: &Tensor) -> Result<()> {
    let variable = Var::from_tensor(&numbers.copy()?.detach())?;
    let mut data = variables.data().lock().expect("no thread panics");
    data.insert(name.to_owned(), variable);
    Ok(())
}
