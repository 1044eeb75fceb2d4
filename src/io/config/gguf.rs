//! From the metadata of a GGUF file.

use super::{LlamaConfig, RopeScaling, nearest, size, size_in_words};
use crate::{
    error::{Error, Result},
    io::gguf::{Gguf, Value},
};

impl LlamaConfig {
    /// Reads the metadata of a GGUF file of architecture `llama`.
    ///
    /// Whether the output layer is tied, and which layers have a bias, is seen from the tensors that
    /// are there.
    ///
    /// # Errors
    /// [`Error::Format`] if a value is missing or not what it may be; [`Error::Unsupported`] for
    /// another architecture or type of rotary scaling.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        let architecture = gguf.value("general.architecture");
        if architecture != Some(Value::String("llama")) {
            return Err(Error::Unsupported {
                operation: "reading a model of an architecture",
                expected: "llama",
                got: architecture.map_or("none".into(), Value::shown),
            });
        }
        let optional = |key: &'static str| match gguf.value(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(size) {
                None => Err(refused(key, size_in_words(), Some(value))),
                some => Ok(some),
            },
        };
        let required = |key| optional(key)?.ok_or_else(|| refused(key, size_in_words(), None));
        let number = |key: &'static str| match gguf.value(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                None => Err(refused(key, "a number".into(), Some(value))),
                Some(number) => Ok(Some(nearest(number))),
            },
        };
        let hidden_size = required("llama.embedding_length")?;
        let heads = required("llama.attention.head_count")?;
        let head_dim = match optional("llama.attention.key_length")? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let expected = format!("a size, as {heads} heads do not divide {hidden_size}");
                return Err(refused("llama.attention.key_length", expected, None));
            }
        };
        const EPS: &str = "llama.attention.layer_norm_rms_epsilon";
        let scaling = match gguf.value("llama.rope.scaling.type") {
            _ if gguf.contains("rope_freqs.weight") => Some(RopeScaling::Tensor),
            None | Some(Value::String("none")) => None,
            Some(Value::String("linear")) => {
                const FACTOR: &str = "llama.rope.scaling.factor";
                let factor = number(FACTOR)?;
                let factor = factor.ok_or_else(|| refused(FACTOR, "a number".into(), None))?;
                Some(RopeScaling::Linear { factor })
            }
            Some(other) => {
                return Err(Error::Unsupported {
                    operation: "reading a type of rotary scaling",
                    expected: "none or linear",
                    got: other.shown(),
                });
            }
        };
        let vocab_size = match optional("llama.vocab_size")? {
            Some(size) => size,
            None => gguf
                .shape("token_embd.weight")?
                .first()
                .copied()
                .unwrap_or(1),
        };
        Self {
            hidden_size,
            intermediate_size: required("llama.feed_forward_length")?,
            num_hidden_layers: required("llama.block_count")?,
            num_attention_heads: heads,
            num_key_value_heads: optional("llama.attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            vocab_size,
            max_position_embeddings: required("llama.context_length")?,
            rms_norm_eps: number(EPS)?.ok_or_else(|| refused(EPS, "a number".into(), None))?,
            rope_theta: number("llama.rope.freq_base")?.unwrap_or(10_000.0),
            rope_scaling: scaling,
            tie_word_embeddings: !gguf.contains("output.weight"),
            attention_bias: gguf.contains("blk.0.attn_q.bias"),
            mlp_bias: gguf.contains("blk.0.ffn_down.bias"),
        }
        .checked("the metadata")
    }
}

fn refused(key: &str, expected: String, got: Option<Value<'_>>) -> Error {
    Error::Format {
        what: format!("{key} in the metadata"),
        expected,
        got: got.map_or("nothing".into(), Value::shown),
        offset: None,
    }
}
