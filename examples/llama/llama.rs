//! A Llama: embedding, blocks, norm and head, in floats or with packed layers; and its backward pass,
//! for programs that train it.

mod attention;
mod block;
pub mod decoding;
mod gradients;
pub mod loss;
mod parts;
mod product;
mod rest;
pub mod training;
mod vector;

use std::{collections::BTreeMap, sync::Arc};

use lowbit::{
    Error, Result,
    flow::{BlockModel, QuantizableBlock, QuantizedLayer, Taps},
    io::{Checkpoint, LlamaConfig, RopeScaling},
};
use ndarray::{Array1, Array2, Axis, Ix1, Ix2};

use block::Linear;
#[allow(unused_imports, reason = "programs use parts of it")]
pub use block::{Block, LAYERS};
use parts::{add_rms_norm_gradient, rms_norm};
#[allow(unused_imports, reason = "programs use parts of it")]
pub use rest::Rest;

#[derive(Debug, Clone)]
pub struct Llama {
    embedding: Array2<f32>,
    blocks: Vec<Block>,
    norm: Array1<f32>,
    /// None if the head is the embedding.
    head: Option<Array2<f32>>,
    epsilon: f32,
}

impl Llama {
    pub fn read(file: &dyn Checkpoint) -> Result<Self> {
        let config = Arc::new(file.config()?);
        let words = [config.vocab_size, config.hidden_size];
        // Sizes are only claimed until a tensor has them.
        let embedding = matrix(file, "model.embed_tokens.weight", words)?;
        let first = "model.layers.0.self_attn.q_proj.weight";
        check_shape(file, first, &block::shapes(&config)[0])?;
        let frequencies: Arc<[f32]> = frequencies(&config, file)?.into();
        let block = |index: usize| Block::read(file, index, &config, &frequencies);
        Ok(Self {
            embedding,
            blocks: (0..config.num_hidden_layers)
                .map(block)
                .collect::<Result<_>>()?,
            norm: numbers(file, "model.norm.weight", config.hidden_size)?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(matrix(file, "lm_head.weight", words)?),
            },
            epsilon: config.rms_norm_eps,
        })
    }

    /// The hidden states before the first block, `[tokens, hidden]`.
    pub fn embed(&self, tokens: &[u16]) -> Result<Array2<f32>> {
        let known = self.embedding.nrows();
        let rows: Vec<usize> = tokens.iter().map(|&token| token.into()).collect();
        match rows.iter().find(|&&row| row >= known) {
            Some(row) => Err(Error::other(format!(
                "token {row} is not one of the model's {known}: the file is for another model"
            ))),
            None => Ok(self.embedding.select(Axis(0), &rows)),
        }
    }

    /// The logits of the next token after each, `[tokens, vocabulary]`.
    pub fn forward(&self, tokens: &[u16]) -> Result<Array2<f32>> {
        Ok(self.logits(&self.hidden(tokens)?))
    }

    /// The hidden states after the last block.
    pub fn hidden(&self, tokens: &[u16]) -> Result<Array2<f32>> {
        let mut x = self.embed(tokens)?;
        for block in &self.blocks {
            x = block.forward(&x, &mut Taps::none())?;
        }
        Ok(x)
    }

    /// The logits, from the hidden states after the last block.
    pub fn logits(&self, hidden: &Array2<f32>) -> Array2<f32> {
        self.head_of(&self.normed(hidden))
    }

    /// The last norm.
    pub fn normed(&self, hidden: &Array2<f32>) -> Array2<f32> {
        rms_norm(hidden, &self.norm, self.epsilon)
    }

    /// The logits, from hidden states that the last norm has seen.
    pub fn head_of(&self, normed: &Array2<f32>) -> Array2<f32> {
        product::outputs(normed, self.head())
    }

    /// The gradient of the hidden states after the last block, given that of [`logits`](Self::logits);
    /// adds those of head and norm to `rest` where they are asked for.
    pub fn logits_backward(
        &self,
        hidden: &Array2<f32>,
        gradient: &Array2<f32>,
        rest: Option<&mut Rest>,
    ) -> Array2<f32> {
        let mut to_normed = Array2::zeros(hidden.dim());
        product::add_to_inputs(gradient, self.head(), &mut to_normed);
        let to_norm = rest.map(|rest| {
            let head = rest.head.as_mut().unwrap_or(&mut rest.embedding);
            product::add_to_weights(gradient, &self.normed(hidden), head);
            &mut rest.norm
        });
        let mut to_hidden = Array2::zeros(hidden.dim());
        add_rms_norm_gradient(
            hidden,
            &self.norm,
            self.epsilon,
            &to_normed,
            &mut to_hidden,
            to_norm,
        );
        to_hidden
    }

    /// Adds the gradient of the embedding, given that of [`embed`](Self::embed).
    pub fn embed_backward(&self, tokens: &[u16], gradient: &Array2<f32>, rest: &mut Rest) {
        for (&token, gradient) in tokens.iter().zip(gradient.rows()) {
            let mut row = rest.embedding.row_mut(token.into());
            row += &gradient;
        }
    }

    fn head(&self) -> &Array2<f32> {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// The blocks.
    pub fn layers(&self) -> &[Block] {
        &self.blocks
    }

    /// Keeps layers that are packed from now on as they are stored too.
    pub fn keep_stored(&mut self) {
        for block in &mut self.blocks {
            block.stored.get_or_insert_default();
        }
    }

    /// The layers that were kept, by name.
    pub fn stored(&self) -> BTreeMap<String, QuantizedLayer> {
        let stored = self.blocks.iter().flat_map(|block| &block.stored);
        stored
            .flatten()
            .map(|(name, layer)| (name.clone(), layer.clone()))
            .collect()
    }

    /// Elements of the layers that can be quantized.
    pub fn linear_elements(&self) -> usize {
        let layers = self.blocks.iter().flat_map(|block| block.layers.values());
        let elements = layers.map(|layer| match layer {
            Linear::Float { weights, .. } => weights.len(),
            Linear::Packed(packed) => {
                let (outputs, inputs) = packed.linear().dim();
                outputs * inputs
            }
        });
        elements.sum()
    }
}

/// What the crate needs to quantize it: blocks, by value.
impl BlockModel for Llama {
    type Block = Block;

    fn blocks(&self) -> usize {
        self.blocks.len()
    }

    fn block(&self, index: usize) -> Result<Block> {
        Ok(self.blocks[index].clone())
    }

    fn put_block(&mut self, index: usize, block: Block) -> Result<()> {
        self.blocks[index] = block;
        Ok(())
    }
}

fn frequencies(config: &LlamaConfig, file: &dyn Checkpoint) -> Result<Vec<f32>> {
    let half = config.head_dim / 2;
    let plain = |j: usize| config.rope_theta.powf(-(j as f32) / half as f32);
    let mut frequencies: Vec<f32> = (0..half).map(plain).collect();
    match config.rope_scaling {
        None => {}
        Some(RopeScaling::Linear { factor }) => frequencies.iter_mut().for_each(|f| *f /= factor),
        Some(RopeScaling::Tensor) => {
            let factors = numbers(file, "rope_freqs.weight", half)?;
            frequencies
                .iter_mut()
                .zip(&factors)
                .for_each(|(f, by)| *f /= by);
        }
        Some(RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: positions,
        }) => frequencies.iter_mut().for_each(|f| {
            let turns = positions as f32 * *f / std::f32::consts::TAU;
            let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
            *f *= kept + (1.0 - kept) / factor;
        }),
        Some(other) => return Err(Error::other(format!("rotary scaling {other:?}"))),
    }
    Ok(frequencies)
}

fn matrix(file: &dyn Checkpoint, name: &str, shape: [usize; 2]) -> Result<Array2<f32>> {
    check_shape(file, name, &shape)?;
    let tensor = file.tensor(name)?;
    tensor.into_dimensionality::<Ix2>().map_err(Error::other)
}

fn numbers(file: &dyn Checkpoint, name: &str, len: usize) -> Result<Array1<f32>> {
    check_shape(file, name, &[len])?;
    let tensor = file.tensor(name)?;
    tensor.into_dimensionality::<Ix1>().map_err(Error::other)
}

fn check_shape(file: &dyn Checkpoint, name: &str, expected: &[usize]) -> Result<()> {
    let got = file.shape(name)?;
    if got == expected {
        return Ok(());
    }
    Err(Error::other(format!(
        "shape of {name}: expected {expected:?} by the model's configuration, got {got:?}"
    )))
}
