//! A small convolutional network with its training loop. What quantizes a layer while it trains is
//! a [`Fake`]; everything else here is an ordinary float network.

use std::f32::consts::PI;

use lowbit::{
    Result,
    prelude::*,
    qat::{Gradients, LearnedFakeQuant, Lsq},
};
use ndarray::{Array1, Array2, Axis, Ix2};

use crate::digits::{Adam, Digits, Random};

/// Image size, channels in, channels out, kernel, stride, padding of each layer. The last one is
/// fully connected: its kernel covers the image.
const LAYERS: [[usize; 6]; 4] = [
    [8, 1, 8, 3, 1, 1],
    [8, 8, 16, 3, 2, 1],
    [4, 16, 16, 3, 2, 1],
    [2, 16, 10, 2, 1, 0],
];

/// How long and how fast to train.
pub struct Training {
    pub epochs: usize,
    pub rate: f32,
    /// The rate of what quantizers learn: logarithms of scales, mostly.
    pub scale_rate: f32,
    /// The last rates, as a part of the first ones.
    pub last: f32,
}

impl Training {
    /// Of a network in floats.
    pub const FLOAT: Self = Self {
        epochs: 30,
        rate: 1e-2,
        scale_rate: 0.0,
        last: 0.0,
    };

    /// Of one with quantizers, after that.
    pub const QAT: Self = Self {
        epochs: 10,
        rate: 4e-3,
        scale_rate: 1e-2,
        last: 0.0,
    };
}

/// What else happens in a step of a training: nothing, unless it says otherwise.
pub trait Steps<F> {
    /// Before the forward pass.
    fn begin(&mut self, _network: &mut Network<F>) -> Result<()> {
        Ok(())
    }

    /// Between the backward pass and the optimizer, for the weights of one layer.
    fn gradient(&mut self, _: usize, _: &Layer<F>, _: &mut Array2<f32>) -> Result<()> {
        Ok(())
    }

    /// After the optimizer.
    fn end(&mut self, _network: &mut Network<F>) -> Result<()> {
        Ok(())
    }
}

impl<F> Steps<F> for () {}

/// The quantizers of one layer in training, one for its weights and one for its input.
#[derive(Clone)]
pub struct Fake<F> {
    pub weights: F,
    pub input: F,
}

/// A convolution, channels last, as a product of patches and weights `[out, in]`.
#[derive(Clone)]
pub struct Layer<F> {
    shape: [usize; 6],
    relu: bool,
    pub weights: Array2<f32>,
    pub bias: Array1<f32>,
    pub fake: Option<Fake<F>>,
}

/// What the forward pass keeps for the backward pass.
pub struct Tape {
    /// The layer's input, a row for each image.
    pub input: Array2<f32>,
    patches: Array2<f32>,
    weights: Array2<f32>,
    pub output: Array2<f32>,
}

impl<F: FakeQuant> Layer<F> {
    fn new(shape: [usize; 6], relu: bool, random: &mut Random) -> Self {
        let [_, channels, out, kernel, ..] = shape;
        let inputs = kernel * kernel * channels;
        let bound = (6.0 / inputs as f32).sqrt(); // He et al. 2015
        Self {
            shape,
            relu,
            weights: Array2::from_shape_simple_fn((out, inputs), || bound * random.uniform()),
            bias: Array1::zeros(out),
            fake: None,
        }
    }

    /// The same layer with quantizers.
    pub fn with<G>(&self, fake: Fake<G>) -> Layer<G> {
        Layer {
            shape: self.shape,
            relu: self.relu,
            weights: self.weights.clone(),
            bias: self.bias.clone(),
            fake: Some(fake),
        }
    }

    /// Patches in one image.
    fn positions(&self) -> usize {
        let [size, _, _, kernel, stride, padding] = self.shape;
        ((size + 2 * padding - kernel) / stride + 1).pow(2)
    }

    /// Calls `pair(pixel, place)` for the first channel of each pixel of each patch, with its
    /// offset in the images and in the patches; padding is left out.
    fn pairs(&self, images: usize, mut pair: impl FnMut(usize, usize)) {
        let [size, channels, _, kernel, stride, padding] = self.shape;
        let width = (size + 2 * padding - kernel) / stride + 1;
        let inside = padding..size + padding;
        for row in 0..images * width * width {
            let (image, y0, x0) = (row / (width * width), row / width % width, row % width);
            for tap in 0..kernel * kernel {
                let (y, x) = (y0 * stride + tap / kernel, x0 * stride + tap % kernel);
                if inside.contains(&y) && inside.contains(&x) {
                    let pixel = ((image * size + y - padding) * size + x - padding) * channels;
                    pair(pixel, (row * kernel * kernel + tap) * channels);
                }
            }
        }
    }

    /// The patches that the kernel sees, a row each: `[images · positions, in]`.
    pub fn patches(&self, images: &Array2<f32>) -> Array2<f32> {
        let channels = self.shape[1];
        let mut patches = Array2::zeros((images.nrows() * self.positions(), self.weights.ncols()));
        let from = images.as_slice().expect("row-major");
        let to = patches.as_slice_mut().expect("row-major");
        self.pairs(images.nrows(), |pixel, place| {
            to[place..place + channels].copy_from_slice(&from[pixel..pixel + channels]);
        });
        patches
    }

    /// What the layer passes on: its product, `[images · positions, out]`, through ReLU.
    pub fn finish(&self, mut product: Array2<f32>) -> Array2<f32> {
        if self.relu {
            product.mapv_inplace(|v| v.max(0.0));
        }
        let (rows, out) = product.dim();
        let positions = self.positions();
        let shape = (rows / positions, positions * out);
        product.into_shape_with_order(shape).expect("as many")
    }

    fn forward(&self, input: Array2<f32>) -> Result<Tape> {
        let (patches, weights) = match &self.fake {
            None => (self.patches(&input), self.weights.clone()),
            Some(fake) => (
                self.patches(&fake.input.forward(&input)?),
                fake.weights.forward(&self.weights)?,
            ),
        };
        let output = self.finish(patches.dot(&weights.t()) + &self.bias);
        Ok(Tape {
            input,
            patches,
            weights,
            output,
        })
    }

    /// The gradients of weights and bias (and of their scales), and those of the input.
    fn backward(
        &self,
        tape: &Tape,
        mut gradient: Array2<f32>,
    ) -> Result<(Gradients<Ix2>, Array1<f32>, Gradients<Ix2>)> {
        if self.relu {
            gradient.zip_mut_with(&tape.output, |g, &y| *g *= f32::from(y > 0.0));
        }
        let shape = (tape.patches.nrows(), self.weights.nrows());
        let gradient = gradient.into_shape_with_order(shape).expect("as many");
        let weights = gradient.t().dot(&tape.patches);
        let patches = gradient.dot(&tape.weights);
        let mut input = Array2::zeros(tape.input.raw_dim());
        let (channels, from) = (self.shape[1], patches.as_slice().expect("row-major"));
        let to: &mut [f32] = input.as_slice_mut().expect("row-major");
        self.pairs(tape.input.nrows(), |pixel, place| {
            let sum = to[pixel..pixel + channels].iter_mut();
            sum.zip(&from[place..]).for_each(|(sum, g)| *sum += g);
        });
        let (weights, input) = match &self.fake {
            None => (plain(weights), plain(input)),
            Some(fake) => (
                fake.weights.backward(&self.weights, &weights)?,
                fake.input.backward(&tape.input, &input)?,
            ),
        };
        Ok((weights, gradient.sum_axis(Axis(0)), input))
    }
}

/// The gradients of a float layer, which has no scales.
fn plain(input: Array2<f32>) -> Gradients<Ix2> {
    Gradients {
        input,
        scale: vec![],
        zero_point: vec![],
    }
}

/// The optimizer of one layer.
#[derive(Clone, Default)]
struct LayerAdam {
    weights: Adam,
    bias: Adam,
    weight_scale: Adam,
    input_scale: Adam,
}

/// One step of what a quantizer learns, in the form it is stepped: a scale as its logarithm, so that
/// it stays positive and the rate is relative.
fn step_quantizer<D: ndarray::Dimension>(
    fake: &mut impl FakeQuant,
    adam: &mut Adam,
    gradients: &Gradients<D>,
    rate: f32,
) -> Result<()> {
    let mut parameters = fake.parameters();
    if parameters.is_empty() {
        return Ok(());
    }
    let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?;
    adam.step(&mut parameters, &slopes, rate);
    fake.set_parameters(&parameters)
}

/// The network; `F` is the kind of its quantizers.
#[derive(Clone)]
pub struct Network<F = LearnedFakeQuant<Lsq>>(pub Vec<Layer<F>>);

impl<F: FakeQuant> Network<F> {
    pub fn new(random: &mut Random) -> Self {
        let last = LAYERS.len() - 1;
        let layer = |(index, &shape)| Layer::new(shape, index < last, random);
        Self(LAYERS.iter().enumerate().map(layer).collect())
    }

    /// What each layer saw and made.
    pub fn forward(&self, images: &Array2<f32>) -> Result<Vec<Tape>> {
        let mut tapes: Vec<Tape> = Vec::with_capacity(self.0.len());
        for layer in &self.0 {
            let input = tapes.last().map_or(images, |tape| &tape.output).clone();
            tapes.push(layer.forward(input)?);
        }
        Ok(tapes)
    }

    /// The label that each image gets.
    pub fn predict(&self, images: &Array2<f32>) -> Result<Vec<usize>> {
        let tapes = self.forward(images)?;
        Ok(labels(&tapes[tapes.len() - 1].output))
    }

    /// Minimizes cross-entropy with Adam, the rate falling as a cosine. Where layers are fake
    /// quantized, weights adapt to their rounding and scales are learned.
    pub fn train(self, data: &Digits, training: &Training, random: &mut Random) -> Result<Self> {
        self.train_with(data, training, random, &mut ())
    }

    /// [`train`](Self::train) with something more in each step.
    pub fn train_with(
        mut self,
        data: &Digits,
        training: &Training,
        random: &mut Random,
        extra: &mut impl Steps<F>,
    ) -> Result<Self> {
        const BATCH: usize = 32;
        let mut optimizers = vec![LayerAdam::default(); self.0.len()];
        let steps = (training.epochs * data.len().div_ceil(BATCH)) as f32;
        let mut step = 0.0;
        for _ in 0..training.epochs {
            for rows in random.shuffled(data.len()).chunks(BATCH) {
                let fall = 0.5 * (1.0 + (PI * step / steps).cos());
                let decay = training.last + (1.0 - training.last) * fall;
                step += 1.0;
                let batch = data.select(rows);
                extra.begin(&mut self)?;
                let mut tapes = self.forward(&batch.images)?;
                let mut gradient = tapes[tapes.len() - 1].output.clone();
                for (mut row, &label) in gradient.rows_mut().into_iter().zip(&batch.labels) {
                    // Softmax less the target, the gradient of cross-entropy.
                    let max = row.fold(f32::MIN, |max, &v| max.max(v));
                    row.mapv_inplace(|v| (v - max).exp());
                    row /= row.sum() * rows.len() as f32;
                    row[label] -= 1.0 / rows.len() as f32;
                }
                let layers = self.0.iter_mut().zip(&mut optimizers).enumerate();
                for (index, (layer, adam)) in layers.rev() {
                    let tape = tapes.pop().expect("a tape for each layer");
                    let (mut weights, bias, input) = layer.backward(&tape, gradient)?;
                    extra.gradient(index, layer, &mut weights.input)?;
                    let rate = training.rate * decay;
                    let flat = weights.input.as_standard_layout();
                    let flat = flat.as_slice().expect("row-major");
                    adam.weights.step(&mut layer.weights, flat, rate);
                    adam.bias
                        .step(&mut layer.bias, bias.as_slice().expect("a vector"), rate);
                    if let Some(fake) = &mut layer.fake {
                        let rate = training.scale_rate * decay;
                        step_quantizer(&mut fake.weights, &mut adam.weight_scale, &weights, rate)?;
                        step_quantizer(&mut fake.input, &mut adam.input_scale, &input, rate)?;
                    }
                    gradient = input.input;
                }
                extra.end(&mut self)?;
            }
        }
        Ok(self)
    }
}

/// The index of the largest logit of each row.
pub fn labels(logits: &Array2<f32>) -> Vec<usize> {
    let best = |row: ndarray::ArrayView1<f32>| {
        (0..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
    };
    logits.rows().into_iter().map(best).collect()
}
