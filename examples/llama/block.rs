//! One block of a Llama, in floats or with packed layers.

use std::{collections::BTreeMap, sync::Arc};

use lowbit::{
    Error, Result,
    flow::{PackedLayer, QuantizableBlock, QuantizedLayer, SharedInput, Taps},
    io::{Checkpoint, LlamaConfig},
};
use ndarray::{Array1, Array2, ArrayView2};

use super::{
    attention::{self, Attended, Heads},
    matrix, numbers,
    parts::{gated, rms_norm, rotate},
    product::outputs,
};

/// One block: attention and feed-forward part, each behind a norm and beside a residual stream.
#[derive(Debug, Clone)]
pub struct Block {
    prefix: String,
    pub(super) config: Arc<LlamaConfig>,
    /// The rotary embedding's frequencies, `[head_dim / 2]`.
    pub(super) frequencies: Arc<[f32]>,
    pub(super) norms: [Array1<f32>; 2],
    pub(super) layers: BTreeMap<String, Linear>,
    /// The layers that were packed, as they are stored, if they are kept.
    pub(super) stored: Option<BTreeMap<String, QuantizedLayer>>,
}

#[derive(Debug, Clone)]
pub(super) enum Linear {
    Float {
        weights: Arc<Array2<f32>>,
        bias: Option<Array1<f32>>,
    },
    Packed(PackedLayer),
}

/// The linear layers, in the order of everything that has one of each.
pub const LAYERS: [&str; 7] = [
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
];

/// The shapes of [`LAYERS`], `[out, in]`.
pub(super) fn shapes(config: &LlamaConfig) -> [[usize; 2]; LAYERS.len()] {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    [
        [queries, hidden],
        [keys, hidden],
        [keys, hidden],
        [hidden, queries],
        [inner, hidden],
        [inner, hidden],
        [hidden, inner],
    ]
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
        if let Some(stored) = &mut self.stored {
            stored.insert(layer.to_owned(), quantized.clone());
        }
        Ok(())
    }

    fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
        let epsilon = self.config.rms_norm_eps;
        let normed = rms_norm(x, &self.norms[0], epsilon);
        taps.input("attention", &normed);
        let q = self.linear(LAYERS[0], &normed)?;
        let k = self.linear(LAYERS[1], &normed)?;
        let v = self.linear(LAYERS[2], &normed)?;
        let attended = self.attention(q, k, v).1.output;
        taps.input("output", &attended);
        taps.residual("output", x);
        let x = x + &self.linear(LAYERS[3], &attended)?;

        let normed = rms_norm(&x, &self.norms[1], epsilon);
        taps.input("feed-forward", &normed);
        let gate = self.linear(LAYERS[4], &normed)?;
        let up = self.linear(LAYERS[5], &normed)?;
        let gated = gated(&gate, &up);
        taps.input("down", &gated);
        taps.residual("down", &x);
        Ok(x + self.linear(LAYERS[6], &gated)?)
    }
}

impl Block {
    pub(super) fn read(
        file: &dyn Checkpoint,
        index: usize,
        config: &Arc<LlamaConfig>,
        frequencies: &Arc<[f32]>,
    ) -> Result<Self> {
        let prefix = format!("model.layers.{index}");
        let norm = |name: &str| {
            let name = format!("{prefix}.{name}.weight");
            numbers(file, &name, config.hidden_size)
        };
        let mut layers = BTreeMap::new();
        for (layer, shape) in LAYERS.into_iter().zip(shapes(config)) {
            let name = format!("{prefix}.{layer}");
            let bias = format!("{name}.bias");
            let weights = Arc::new(matrix(file, &format!("{name}.weight"), shape)?);
            let bias = match file.contains(&bias) {
                true => Some(numbers(file, &bias, shape[0])?),
                false => None,
            };
            layers.insert(name, Linear::Float { weights, bias });
        }
        Ok(Self {
            norms: [norm("input_layernorm")?, norm("post_attention_layernorm")?],
            config: Arc::clone(config),
            frequencies: Arc::clone(frequencies),
            layers,
            stored: None,
            prefix,
        })
    }

    /// The name of one of [`LAYERS`] in the model.
    pub fn full_name(&self, layer: &str) -> String {
        format!("{}.{layer}", self.prefix)
    }

    /// Puts other weights in the place of a float layer's.
    pub fn put_float(&mut self, layer: &str, with: Array2<f32>) -> Result<()> {
        match self.layers.get_mut(layer) {
            Some(Linear::Float { weights, .. }) => *weights = Arc::new(with),
            _ => return Err(Error::other(format!("no float layer {layer}"))),
        }
        Ok(())
    }

    pub(super) fn linear(&self, layer: &str, x: &Array2<f32>) -> Result<Array2<f32>> {
        match &self.layers[&self.full_name(layer)] {
            Linear::Packed(packed) => packed.forward(x),
            Linear::Float { weights, bias } => {
                let y = outputs(x, weights);
                Ok(match bias {
                    Some(bias) => y + bias,
                    None => y,
                })
            }
        }
    }

    pub(super) fn heads(&self) -> Heads {
        Heads {
            queries: self.config.num_attention_heads,
            keys: self.config.num_key_value_heads,
            size: self.config.head_dim,
        }
    }

    /// Queries and keys rotated, queries scaled, and the attention of them and the values.
    pub(super) fn attention(
        &self,
        mut q: Array2<f32>,
        mut k: Array2<f32>,
        v: Array2<f32>,
    ) -> ([Array2<f32>; 3], Attended) {
        let heads = self.heads();
        rotate(&mut q, heads.size, &self.frequencies);
        rotate(&mut k, heads.size, &self.frequencies);
        q /= (heads.size as f32).sqrt();
        let attended = attention::forward([&q, &k, &v], heads);
        ([q, k, v], attended)
    }
}
