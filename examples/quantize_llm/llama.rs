//! A Llama: embedding, blocks, norm and head, in floats or with packed layers.

use std::{collections::BTreeMap, sync::Arc};

use lowbit::{
    Error, Result,
    flow::{BlockModel, PackedLayer, QuantizableBlock, QuantizedLayer, SharedInput, Taps},
    io::{Checkpoint, LlamaConfig, RopeScaling},
};
use ndarray::{Array1, Array2, ArrayView2, Axis, Ix1, Ix2, s};

pub struct Llama {
    embedding: Array2<f32>,
    blocks: Vec<Block>,
    norm: Array1<f32>,
    /// None if the head is the embedding.
    head: Option<Array2<f32>>,
    epsilon: f32,
}

/// One block: attention and feed-forward part, each behind a norm and beside a residual stream.
#[derive(Debug, Clone)]
pub struct Block {
    prefix: String,
    config: Arc<LlamaConfig>,
    /// The rotary embedding's frequencies, `[head_dim / 2]`.
    frequencies: Arc<[f32]>,
    norms: [Array1<f32>; 2],
    layers: BTreeMap<String, Linear>,
}

#[derive(Debug, Clone)]
enum Linear {
    Float {
        weights: Arc<Array2<f32>>,
        bias: Option<Array1<f32>>,
    },
    Packed(PackedLayer),
}

const LAYERS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

impl Llama {
    pub fn read(file: &dyn Checkpoint) -> Result<Self> {
        let config = Arc::new(file.config()?);
        let frequencies: Arc<[f32]> = frequencies(&config, file)?.into();
        let block = |index: usize| Block::read(file, index, &config, &frequencies);
        Ok(Self {
            embedding: matrix(file, "model.embed_tokens.weight")?,
            blocks: (0..config.num_hidden_layers)
                .map(block)
                .collect::<Result<_>>()?,
            norm: vector(file, "model.norm.weight")?,
            head: match config.tie_word_embeddings {
                true => None,
                false => Some(matrix(file, "lm_head.weight")?),
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
        let mut x = self.embed(tokens)?;
        for block in &self.blocks {
            x = block.forward(&x, &mut Taps::none())?;
        }
        let x = rms_norm(&x, &self.norm, self.epsilon);
        Ok(x.dot(&self.head.as_ref().unwrap_or(&self.embedding).t()))
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

impl QuantizableBlock for Block {
    fn stages(&self) -> Vec<Vec<SharedInput>> {
        let input = |name: &str, layers: &[&str]| {
            let layers = layers.iter().map(|layer| self.full_name(layer));
            vec![SharedInput::new(name, layers)]
        };
        vec![
            input("attention", &LAYERS[..3]),
            input("output", &LAYERS[3..4]),
            input("feed-forward", &LAYERS[4..6]),
            input("down", &LAYERS[6..]),
        ]
    }

    fn weights(&self, layer: &str) -> Result<ArrayView2<'_, f32>> {
        match self.layers.get(layer) {
            Some(Linear::Float { weights, .. }) => Ok(weights.view()),
            _ => Err(Error::other(format!("no float layer {layer}"))),
        }
    }

    fn replace(&mut self, layer: &str, quantized: &QuantizedLayer) -> Result<()> {
        let Some(place @ Linear::Float { .. }) = self.layers.get_mut(layer) else {
            return Err(Error::other(format!("no float layer {layer}")));
        };
        let bias = match place {
            Linear::Float { bias, .. } => bias.as_ref().and_then(|bias| bias.as_slice()),
            Linear::Packed(_) => None,
        };
        *place = Linear::Packed(quantized.pack(bias)?);
        Ok(())
    }

    fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
        let epsilon = self.config.rms_norm_eps;
        let normed = rms_norm(x, &self.norms[0], epsilon);
        taps.input("attention", &normed);
        let q = self.linear(LAYERS[0], &normed)?;
        let k = self.linear(LAYERS[1], &normed)?;
        let v = self.linear(LAYERS[2], &normed)?;
        let attended = self.attention(q, k, &v);
        taps.input("output", &attended);
        taps.residual("output", x);
        let x = x + &self.linear(LAYERS[3], &attended)?;

        let normed = rms_norm(&x, &self.norms[1], epsilon);
        taps.input("feed-forward", &normed);
        let gate = self.linear(LAYERS[4], &normed)?;
        let up = self.linear(LAYERS[5], &normed)?;
        let gated = gate.mapv(|g| g / (1.0 + (-g).exp())) * up;
        taps.input("down", &gated);
        taps.residual("down", &x);
        Ok(x + self.linear(LAYERS[6], &gated)?)
    }
}

impl Block {
    fn read(
        file: &dyn Checkpoint,
        index: usize,
        config: &Arc<LlamaConfig>,
        frequencies: &Arc<[f32]>,
    ) -> Result<Self> {
        let prefix = format!("model.layers.{index}");
        let norm = |name: &str| vector(file, &format!("{prefix}.{name}.weight"));
        let mut layers = BTreeMap::new();
        for layer in LAYERS {
            let name = format!("{prefix}.{layer}");
            let bias = format!("{name}.bias");
            let weights = Arc::new(matrix(file, &format!("{name}.weight"))?);
            let bias = match file.contains(&bias) {
                true => Some(vector(file, &bias)?),
                false => None,
            };
            layers.insert(name, Linear::Float { weights, bias });
        }
        Ok(Self {
            norms: [norm("input_layernorm")?, norm("post_attention_layernorm")?],
            config: Arc::clone(config),
            frequencies: Arc::clone(frequencies),
            layers,
            prefix,
        })
    }

    fn full_name(&self, layer: &str) -> String {
        format!("{}.{layer}", self.prefix)
    }

    fn linear(&self, layer: &str, x: &Array2<f32>) -> Result<Array2<f32>> {
        match &self.layers[&self.full_name(layer)] {
            Linear::Packed(packed) => packed.forward(x),
            Linear::Float { weights, bias } => {
                let y = x.dot(&weights.t());
                Ok(match bias {
                    Some(bias) => y + bias,
                    None => y,
                })
            }
        }
    }

    /// Causal attention, `[tokens, heads · head_dim]`.
    fn attention(&self, mut q: Array2<f32>, mut k: Array2<f32>, v: &Array2<f32>) -> Array2<f32> {
        let size = self.config.head_dim;
        let heads = self.config.num_attention_heads;
        let sharing = heads / self.config.num_key_value_heads;
        rotate(&mut q, size, &self.frequencies);
        rotate(&mut k, size, &self.frequencies);
        q /= (size as f32).sqrt();
        let mut out = Array2::zeros(q.dim());
        for head in 0..heads {
            let own = s![.., head * size..(head + 1) * size];
            let shared = s![.., head / sharing * size..(head / sharing + 1) * size];
            let mut scores = q.slice(own).dot(&k.slice(shared).t());
            for (token, mut row) in scores.rows_mut().into_iter().enumerate() {
                row.slice_mut(s![token + 1..]).fill(0.0);
                let mut seen = row.slice_mut(s![..=token]);
                let most = seen.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
                seen.mapv_inplace(|score| (score - most).exp());
                let sum = seen.sum();
                seen /= sum;
            }
            out.slice_mut(own).assign(&scores.dot(&v.slice(shared)));
        }
        out
    }
}

/// Rotary embedding: element `j` of a head turns with element `j + size / 2`.
fn rotate(x: &mut Array2<f32>, size: usize, frequencies: &[f32]) {
    for (position, mut row) in x.rows_mut().into_iter().enumerate() {
        for mut head in row.exact_chunks_mut(size) {
            for (j, &frequency) in frequencies.iter().enumerate() {
                let (sin, cos) = (position as f32 * frequency).sin_cos();
                let (a, b) = (head[j], head[j + size / 2]);
                head[j] = a * cos - b * sin;
                head[j + size / 2] = b * cos + a * sin;
            }
        }
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
            let factors = vector(file, "rope_freqs.weight")?;
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

fn rms_norm(x: &Array2<f32>, gain: &Array1<f32>, epsilon: f32) -> Array2<f32> {
    let mut normed = x.to_owned();
    for mut row in normed.rows_mut() {
        let mean = row.dot(&row) / row.len() as f32;
        row *= 1.0 / (mean + epsilon).sqrt();
        row *= gain;
    }
    normed
}

fn matrix(file: &dyn Checkpoint, name: &str) -> Result<Array2<f32>> {
    let tensor = file.tensor(name)?;
    tensor.into_dimensionality::<Ix2>().map_err(Error::other)
}

fn vector(file: &dyn Checkpoint, name: &str) -> Result<Array1<f32>> {
    let tensor = file.tensor(name)?;
    tensor.into_dimensionality::<Ix1>().map_err(Error::other)
}
