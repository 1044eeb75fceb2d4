//! From `config.json`.

use super::{LlamaConfig, RopeScaling, nearest, size, size_in_words};
use crate::{
    error::{Error, Result},
    io::json::{Scalar, Selection},
};

const PATHS: &[&str] = &[
    "model_type",
    "hidden_act",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
    "tie_word_embeddings",
    "attention_bias",
    "mlp_bias",
    "rope_scaling",
    "rope_scaling.rope_type",
    "rope_scaling.type",
    "rope_scaling.factor",
    "rope_scaling.low_freq_factor",
    "rope_scaling.high_freq_factor",
    "rope_scaling.original_max_position_embeddings",
    "rope_parameters",
    "rope_parameters.rope_theta",
    "rope_parameters.rope_type",
    "rope_parameters.factor",
    "rope_parameters.low_freq_factor",
    "rope_parameters.high_freq_factor",
    "rope_parameters.original_max_position_embeddings",
];

impl LlamaConfig {
    /// Reads a `config.json` as Hugging Face's Transformers writes it for `LlamaForCausalLM`.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not JSON, or if a value is missing or not what it may be;
    /// [`Error::Unsupported`] for another `model_type`, `hidden_act` or type of rotary scaling.
    ///
    /// ```
    /// use lowbit::io::LlamaConfig;
    /// let config = LlamaConfig::from_json(br#"{
    ///     "model_type": "llama", "hidden_size": 64, "intermediate_size": 172,
    ///     "num_hidden_layers": 5, "num_attention_heads": 8, "num_key_value_heads": 4,
    ///     "vocab_size": 512, "max_position_embeddings": 512, "rms_norm_eps": 1e-5
    /// }"#)?;
    /// assert_eq!((config.head_dim, config.rope_theta), (8, 10_000.0));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let selection = Selection::read(json, "config.json", PATHS)?;
        let only = |path, allowed: &'static str, operation| match selection.text(path)? {
            Some(other) if other != allowed => Err(Error::Unsupported {
                operation,
                expected: allowed,
                got: other.into(),
            }),
            _ => Ok(()),
        };
        only("model_type", "llama", "reading a model type")?;
        only("hidden_act", "silu", "reading an activation function")?;
        let optional = |path| match selection.integer(path)? {
            None => Ok(None),
            Some(value) => match size(value) {
                None => Err(selection.refused(path, size_in_words())),
                some => Ok(some),
            },
        };
        let required =
            |path| optional(path)?.ok_or_else(|| selection.refused(path, size_in_words()));
        let hidden_size = required("hidden_size")?;
        let heads = required("num_attention_heads")?;
        let head_dim = match optional("head_dim")? {
            Some(head_dim) => head_dim,
            None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
            None => {
                let expected = format!("a size, as {heads} heads do not divide {hidden_size}");
                return Err(selection.refused("head_dim", expected));
            }
        };
        let eps = selection.number("rms_norm_eps")?;
        let eps = eps.ok_or_else(|| selection.refused("rms_norm_eps", "a number"))?;
        let theta = match selection.number("rope_parameters.rope_theta")? {
            None => selection.number("rope_theta")?,
            theta => theta,
        };
        let flag = |path| Ok::<_, Error>(selection.flag(path)?.unwrap_or(false));
        Self {
            hidden_size,
            intermediate_size: required("intermediate_size")?,
            num_hidden_layers: required("num_hidden_layers")?,
            num_attention_heads: heads,
            num_key_value_heads: optional("num_key_value_heads")?.unwrap_or(heads),
            head_dim,
            vocab_size: required("vocab_size")?,
            max_position_embeddings: required("max_position_embeddings")?,
            rms_norm_eps: nearest(eps),
            rope_theta: nearest(theta.unwrap_or(10_000.0)),
            rope_scaling: rope_scaling(&selection)?,
            tie_word_embeddings: flag("tie_word_embeddings")?,
            attention_bias: flag("attention_bias")?,
            mlp_bias: flag("mlp_bias")?,
        }
        .checked("config.json")
    }
}

/// The scaling under its old or its new name.
fn rope_scaling(selection: &Selection) -> Result<Option<RopeScaling>> {
    let within = match ["rope_scaling", "rope_parameters"]
        .into_iter()
        .find(|path| selection.value(path).is_some())
    {
        None => return Ok(None),
        Some(path) if selection.value(path) == Some(&Scalar::Object) => path,
        Some(path) => return Err(selection.refused(path, "an object")),
    };
    let path = |name: &str| format!("{within}.{name}");
    let number = |name| {
        let path = path(name);
        match selection.number(&path)? {
            Some(value) => Ok(nearest(value)),
            None => Err(selection.refused(&path, "a number")),
        }
    };
    let kind = match selection.text(&path("rope_type"))? {
        None => selection.text(&path("type"))?,
        kind => kind,
    };
    match kind {
        None | Some("default") => Ok(None),
        Some("linear") => Ok(Some(RopeScaling::Linear {
            factor: number("factor")?,
        })),
        Some("llama3") => {
            let path = path("original_max_position_embeddings");
            let original = selection.integer(&path)?.and_then(size);
            Ok(Some(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_freq_factor: number("low_freq_factor")?,
                high_freq_factor: number("high_freq_factor")?,
                original_max_position_embeddings: original
                    .ok_or_else(|| selection.refused(&path, size_in_words()))?,
            }))
        }
        Some(other) => Err(Error::Unsupported {
            operation: "reading a type of rotary scaling",
            expected: "default, linear or llama3",
            got: other.into(),
        }),
    }
}
