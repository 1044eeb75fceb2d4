//! A tiny random model: blocks of two stages beside a residual stream.

use lowbit::{
    Error, Result, Scheme,
    flow::{
        BlockModel, DifferentiableBlock, DifferentiableModel, PackedLayer, Pipeline,
        QuantizableBlock, QuantizedLayer, Recipe, SharedInput, Taps, Treatment,
    },
};
use ndarray::{Array2, ArrayView2};

pub(super) const HIDDEN: usize = 12;
const INNER: usize = 20; // no power of two, and no multiple of a group of 8

#[derive(Debug, Clone)]
pub(super) struct Block {
    pub(super) index: usize,
    /// `gate` and `up`, which read the same, and `down`.
    pub(super) layers: [Linear; 3],
}

#[derive(Debug, Clone)]
pub(super) struct Linear {
    pub(super) weights: Array2<f32>,
    pub(super) quantized: Option<(QuantizedLayer, PackedLayer)>,
}

impl Linear {
    fn forward(&self, x: &Array2<f32>) -> Result<Array2<f32>> {
        match &self.quantized {
            Some((_, packed)) => packed.forward(x),
            None => Ok(x.dot(&self.weights.t())),
        }
    }
}

const NAMES: [&str; 3] = ["gate", "up", "down"];

impl Block {
    fn name(&self, layer: usize) -> String {
        format!("blocks.{}.{}", self.index, NAMES[layer])
    }

    fn position(&self, layer: &str) -> Result<usize> {
        let found = (0..3).find(|&index| self.name(index) == layer);
        found.ok_or_else(|| Error::other(format!("no layer {layer}")))
    }
}

impl QuantizableBlock for Block {
    fn stages(&self) -> Vec<Vec<SharedInput>> {
        let input = |name: &str, layers: &[usize]| {
            vec![SharedInput::new(
                name,
                layers.iter().map(|&layer| self.name(layer)),
            )]
        };
        vec![input("stream", &[0, 1]), input("gated", &[2])]
    }

    fn weights(&self, layer: &str) -> Result<ArrayView2<'_, f32>> {
        Ok(self.layers[self.position(layer)?].weights.view())
    }

    fn replace(&mut self, layer: &str, quantized: &QuantizedLayer) -> Result<()> {
        let position = self.position(layer)?;
        self.layers[position].quantized = Some((quantized.clone(), quantized.pack(None)?));
        Ok(())
    }

    fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
        taps.input("stream", x);
        let gate = self.layers[0].forward(x)?.mapv(f32::tanh);
        let gated = gate * self.layers[1].forward(x)?;
        taps.input("gated", &gated);
        taps.residual("gated", x);
        Ok(x + self.layers[2].forward(&gated)?)
    }
}

impl DifferentiableBlock for Block {
    fn add_gradients(
        &self,
        x: &Array2<f32>,
        weights: &[Array2<f32>],
        slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
        into: &mut [Array2<f32>],
    ) -> Result<Array2<f32>> {
        let [gate_weights, up_weights, down] = weights else {
            return Err(Error::other("three layers"));
        };
        let gate = x.dot(&gate_weights.t()).mapv(f32::tanh);
        let up = x.dot(&up_weights.t());
        let gated = &gate * &up;
        let to_y = slope(&(x + &gated.dot(&down.t())));
        into[2] += &to_y.t().dot(&gated);
        let to_gated = to_y.dot(down);
        let (to_up, to_gate) = (
            &to_gated * &gate,
            to_gated * up * gate.mapv(|y| 1.0 - y * y),
        );
        into[1] += &to_up.t().dot(x);
        into[0] += &to_gate.t().dot(x);
        Ok(to_y + to_up.dot(up_weights) + to_gate.dot(gate_weights))
    }
}

#[derive(Debug, Clone)]
pub(super) struct Model(pub(super) Vec<Block>);

impl BlockModel for Model {
    type Block = Block;

    fn blocks(&self) -> usize {
        self.0.len()
    }

    fn block(&self, index: usize) -> Result<Block> {
        Ok(self.0[index].clone())
    }

    fn put_block(&mut self, index: usize, block: Block) -> Result<()> {
        self.0[index] = block;
        Ok(())
    }
}

/// By half of the square of the distance; hidden states of which the first is beyond 100 have none.
impl DifferentiableModel for Model {
    fn loss(&self, hidden: &Array2<f32>, float: &Array2<f32>) -> Result<(f64, Array2<f32>)> {
        if hidden.first().is_some_and(|&x| x.abs() > 100.0) {
            return Err(Error::other("too far"));
        }
        let distance = hidden - float;
        let loss = distance.iter().map(|&x| f64::from(x).powi(2) / 2.0).sum();
        Ok((loss, distance))
    }
}

impl Model {
    pub(super) fn random(blocks: usize, seed: u64) -> Self {
        let mut random = Random(seed);
        let mut linear = |out, columns| Linear {
            weights: random.array(out, columns) * 0.4,
            quantized: None,
        };
        let block = |index| Block {
            index,
            layers: [
                linear(INNER, HIDDEN),
                linear(INNER, HIDDEN),
                linear(HIDDEN, INNER),
            ],
        };
        Self((0..blocks).map(block).collect())
    }

    /// The layers that are quantized, in order.
    pub(super) fn quantized(&self) -> Vec<&QuantizedLayer> {
        let layers = self.0.iter().flat_map(|block| &block.layers);
        layers
            .filter_map(|layer| layer.quantized.as_ref().map(|(quantized, _)| quantized))
            .collect()
    }

    pub(super) fn run(&self, x: &Array2<f32>) -> Array2<f32> {
        self.0.iter().fold(x.clone(), |x, block| {
            block.forward(&x, &mut Taps::none()).unwrap()
        })
    }
}

pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    pub(super) fn array(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || self.next())
    }
}

/// Eleven documents of several lengths: more than run at the same time.
pub(super) fn samples(seed: u64) -> Vec<Array2<f32>> {
    let mut random = Random(seed);
    (0..11)
        .map(|index| random.array(5 + index, HIDDEN))
        .collect()
}

pub(super) fn scheme(bits: u32) -> Scheme {
    Scheme::int(bits).per_group(8).build().unwrap()
}

pub(super) fn recipe(method: &str, bits: u32) -> Recipe {
    let pipeline: Pipeline = method.parse().unwrap();
    Recipe::new().quantize("*", Treatment::new(scheme(bits), pipeline))
}
