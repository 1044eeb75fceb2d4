//! The backward pass of a block, for weights that its caller gives: those of training, moved onto
//! the grid or not.

use lowbit::{Error, Result};
use ndarray::Array2;

use super::{
    attention::{self, Attended},
    block::{Block, LAYERS, Linear},
    parts::{add_rms_norm_gradient, gated, gated_gradients, rms_norm, rotate_back},
    product::{add_to_inputs, add_to_weights, outputs},
    rest::Norms,
};

/// One matrix `[out, in]` for each of [`LAYERS`].
pub type Weights = [Array2<f32>; LAYERS.len()];

/// What is done to the inputs of the linear layers, such as quantizing them. `site` counts the four
/// different inputs: of queries, keys and values; of the output; of gate and up; of down.
pub trait Inputs: Sync {
    /// What the layers read instead of `x`, `[tokens, in]`.
    fn forward(&self, site: usize, x: &Array2<f32>) -> Result<Option<Array2<f32>>>;

    /// The gradient of `x`, given that of what the layers read.
    fn backward(&self, site: usize, x: &Array2<f32>, gradient: Array2<f32>) -> Result<Array2<f32>>;
}

/// The layers read what is there.
#[derive(Debug, Clone, Copy)]
pub struct AsTheyAre;

impl Inputs for AsTheyAre {
    fn forward(&self, _: usize, _: &Array2<f32>) -> Result<Option<Array2<f32>>> {
        Ok(None)
    }

    fn backward(&self, _: usize, _: &Array2<f32>, gradient: Array2<f32>) -> Result<Array2<f32>> {
        Ok(gradient)
    }
}

/// What the forward pass keeps for the backward pass.
#[derive(Debug)]
pub struct Trace {
    /// The stream before the block, and between its two parts.
    streams: [Array2<f32>; 2],
    sites: [Site; 4],
    /// Rotated; queries also divided by the root of the head's size.
    heads: [Array2<f32>; 3],
    attended: Attended,
    gate: Array2<f32>,
    up: Array2<f32>,
}

/// An input of linear layers.
#[derive(Debug)]
struct Site {
    x: Array2<f32>,
    /// What the layers read instead.
    replaced: Option<Array2<f32>>,
}

impl Site {
    fn new(index: usize, x: Array2<f32>, inputs: &dyn Inputs) -> Result<Self> {
        let replaced = inputs.forward(index, &x)?;
        Ok(Self { x, replaced })
    }

    fn read(&self) -> &Array2<f32> {
        self.replaced.as_ref().unwrap_or(&self.x)
    }
}

impl Block {
    /// The weights of the float model.
    ///
    /// # Errors
    /// If a layer is packed already.
    pub fn float_weights(&self) -> Result<Weights> {
        let mut weights = Weights::default();
        for (to, layer) in weights.iter_mut().zip(LAYERS) {
            match &self.layers[&self.full_name(layer)] {
                Linear::Float { weights, .. } => *to = weights.as_ref().clone(),
                Linear::Packed(_) => return Err(Error::other(format!("{layer} is packed"))),
            }
        }
        Ok(weights)
    }

    /// The block's output for one document, `[tokens, hidden]`, and what [`backward`](Self::backward)
    /// needs.
    ///
    /// # Errors
    /// Those of `inputs`.
    pub fn trace(
        &self,
        x: Array2<f32>,
        weights: &Weights,
        inputs: &dyn Inputs,
    ) -> Result<(Array2<f32>, Trace)> {
        let epsilon = self.config.rms_norm_eps;
        let product = |layer: usize, site: &Site| {
            let y = outputs(site.read(), &weights[layer]);
            match &self.layers[&self.full_name(LAYERS[layer])] {
                Linear::Float {
                    bias: Some(bias), ..
                } => y + bias,
                _ => y,
            }
        };
        let attention_in = Site::new(0, rms_norm(&x, &self.norms[0], epsilon), inputs)?;
        let [q, k, v] = [0, 1, 2].map(|layer| product(layer, &attention_in));
        let (heads, attended) = self.attention(q, k, v);
        let output_in = Site::new(1, attended.output.clone(), inputs)?;
        let middle = &x + &product(3, &output_in);
        let feed_in = Site::new(2, rms_norm(&middle, &self.norms[1], epsilon), inputs)?;
        let [gate, up] = [4, 5].map(|layer| product(layer, &feed_in));
        let down_in = Site::new(3, gated(&gate, &up), inputs)?;
        let y = &middle + &product(6, &down_in);
        let trace = Trace {
            streams: [x, middle],
            sites: [attention_in, output_in, feed_in, down_in],
            heads,
            attended,
            gate,
            up,
        };
        Ok((y, trace))
    }

    /// The gradient of the block's input, given that of its output; adds those of the weights to
    /// `into`, and those of the norms to `norms` where they are asked for. Weights and inputs are
    /// those of [`trace`](Self::trace).
    ///
    /// # Errors
    /// Those of `inputs`.
    pub fn backward(
        &self,
        trace: &Trace,
        weights: &Weights,
        inputs: &dyn Inputs,
        mut gradient: Array2<f32>,
        into: &mut Weights,
        norms: Option<&mut Norms>,
    ) -> Result<Array2<f32>> {
        let [to_first, to_second] = norms.map_or([None, None], |norms| norms.each_mut().map(Some));
        let epsilon = self.config.rms_norm_eps;
        let heads = self.heads();
        // Through layers that read the same input to that input.
        let mut through = |site: usize, layers: &[(usize, &Array2<f32>)]| {
            let input = &trace.sites[site];
            let mut sum = Array2::zeros(input.x.dim());
            for &(layer, gradient) in layers {
                add_to_weights(gradient, input.read(), &mut into[layer]);
                add_to_inputs(gradient, &weights[layer], &mut sum);
            }
            inputs.backward(site, &input.x, sum)
        };
        let to_gated = through(3, &[(6, &gradient)])?;
        let [to_gate, to_up] = gated_gradients(&trace.gate, &trace.up, &to_gated);
        let to_normed = through(2, &[(4, &to_gate), (5, &to_up)])?;
        let [before, middle] = &trace.streams;
        add_rms_norm_gradient(
            middle,
            &self.norms[1],
            epsilon,
            &to_normed,
            &mut gradient,
            to_second,
        );

        let to_attended = through(1, &[(3, &gradient)])?;
        let [q, k, v] = &trace.heads;
        let [mut q, mut k, v] =
            attention::backward([q, k, v], &trace.attended, &to_attended, heads);
        q /= (heads.size as f32).sqrt();
        rotate_back(&mut q, heads.size, &self.frequencies);
        rotate_back(&mut k, heads.size, &self.frequencies);
        let to_normed = through(0, &[(0, &q), (1, &k), (2, &v)])?;
        add_rms_norm_gradient(
            before,
            &self.norms[0],
            epsilon,
            &to_normed,
            &mut gradient,
            to_first,
        );
        Ok(gradient)
    }
}
