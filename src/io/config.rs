//! What a Llama-style model is made of.

#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "safetensors")]
mod json;

use crate::error::{Error, Result};

/// Greatest size that is believed.
const MOST: u64 = (1 << 31) - 1;

/// The sizes and constants of a Llama-style model, named as in its `config.json`.
///
/// Where it comes from a file it has been checked: sizes are at least 1 and below 2³¹, key-value
/// heads divide the heads, heads are of even size, and both constants are finite and positive.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// Elements of a token's vector between the blocks.
    pub hidden_size: usize,
    /// Elements of a token's vector within the feed-forward part.
    pub intermediate_size: usize,
    /// Blocks.
    pub num_hidden_layers: usize,
    /// Heads of the queries.
    pub num_attention_heads: usize,
    /// Heads of the keys and values.
    pub num_key_value_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Tokens in the vocabulary.
    pub vocab_size: usize,
    /// Positions the model was made for.
    pub max_position_embeddings: usize,
    /// What is added to the mean square in RMS norms.
    pub rms_norm_eps: f32,
    /// The base of the rotary embedding's frequencies, `θ^(−2j / head_dim)`.
    pub rope_theta: f32,
    /// How those frequencies are changed for long texts.
    pub rope_scaling: Option<RopeScaling>,
    /// Whether the output layer has the embedding's weight.
    pub tie_word_embeddings: bool,
    /// Whether the attention's linear layers have a bias.
    pub attention_bias: bool,
    /// Whether the feed-forward part's linear layers have a bias.
    pub mlp_bias: bool,
}

/// How the frequencies of rotary embedding are changed for long texts.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// All divided by a factor.
    Linear {
        /// The factor.
        factor: f32,
    },
    /// Those of long waves divided by a factor, and a smooth passage to those that are kept, as
    /// Llama 3.1 has it.
    Llama3 {
        /// The factor.
        factor: f32,
        /// Waves longer than `original_max_position_embeddings / low_freq_factor` are changed.
        low_freq_factor: f32,
        /// Waves shorter than `original_max_position_embeddings / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Positions of the model before it was extended.
        original_max_position_embeddings: usize,
    },
    /// Each divided by its element of the tensor `rope_freqs.weight`, `[head_dim / 2]`, in which
    /// GGUF files keep what `Llama3` comes to.
    Tensor,
}

impl LlamaConfig {
    /// The same, if it is one of a model; `what` is what error messages call its source.
    fn checked(self, what: &str) -> Result<Self> {
        let refuse = |name: &str, expected: String, got: String| {
            Err(Error::Format {
                what: format!("{name} in {what}"),
                expected,
                got,
                offset: None,
            })
        };
        if !self
            .num_attention_heads
            .is_multiple_of(self.num_key_value_heads)
        {
            let expected = format!("a divisor of the {} heads", self.num_attention_heads);
            let got = self.num_key_value_heads.to_string();
            return refuse("number of key-value heads", expected, got);
        }
        if !self.head_dim.is_multiple_of(2) {
            return refuse(
                "size of heads",
                "an even number".into(),
                self.head_dim.to_string(),
            );
        }
        let mut constants = vec![
            ("rms_norm_eps", self.rms_norm_eps),
            ("rope_theta", self.rope_theta),
        ];
        match self.rope_scaling {
            None | Some(RopeScaling::Tensor) => {}
            Some(RopeScaling::Linear { factor }) => constants.push(("factor", factor)),
            Some(RopeScaling::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                ..
            }) => {
                constants.push(("factor", factor));
                constants.push(("low_freq_factor", low_freq_factor));
                constants.push(("high_freq_factor", high_freq_factor));
            }
        }
        for (name, value) in constants {
            if !(value.is_finite() && value > 0.0) {
                let expected = "a finite, positive number";
                return refuse(name, expected.into(), value.to_string());
            }
        }
        Ok(self)
    }
}

/// A size that can be believed.
fn size(value: u64) -> Option<usize> {
    usize::try_from(value)
        .ok()
        .filter(|_| (1..=MOST).contains(&value))
}

/// What a size may be, in words.
fn size_in_words() -> String {
    format!("a whole number from 1 to {MOST}")
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is what is asked for"
)]
fn nearest(value: f64) -> f32 {
    value as f32
}
