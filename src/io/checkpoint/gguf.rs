//! A model in a GGUF file, under the names and in the layout of Hugging Face's libraries.

use std::path::Path;

use ndarray::{ArrayD, Axis};

use super::Checkpoint;
use crate::{
    error::{Error, Result},
    io::{
        config::LlamaConfig,
        gguf::{Gguf, Value},
    },
};

/// Tensors outside the blocks: GGUF's name, Hugging Face's name.
const OUTER: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Tensors of a block: GGUF's name, Hugging Face's name.
const INNER: [(&str, &str); 9] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The name that Hugging Face's libraries give a tensor of a GGUF file, where there is one.
///
/// ```
/// use lowbit::io::hugging_face_name;
/// let name = hugging_face_name("blk.7.attn_q.weight");
/// assert_eq!(name.as_deref(), Some("model.layers.7.self_attn.q_proj.weight"));
/// assert_eq!(hugging_face_name("rope_freqs.weight"), None);
/// ```
#[must_use]
pub fn hugging_face_name(gguf: &str) -> Option<String> {
    let (stem, kind) = stem_and_kind(gguf)?;
    let find = |table: &[(&str, &'static str)], name| {
        table
            .iter()
            .find(|(gguf, _)| *gguf == name)
            .map(|(_, name)| *name)
    };
    match stem.strip_prefix("blk.") {
        None => find(&OUTER, stem).map(|name| format!("{name}.{kind}")),
        Some(rest) => {
            let (block, name) = rest.split_once('.').filter(|(block, _)| is_number(block))?;
            find(&INNER, name).map(|name| format!("model.layers.{block}.{name}.{kind}"))
        }
    }
}

/// The name that a GGUF file gives a tensor of Hugging Face's libraries, where there is one: the
/// inverse of [`hugging_face_name`].
///
/// ```
/// use lowbit::io::gguf_name;
/// assert_eq!(gguf_name("lm_head.weight").as_deref(), Some("output.weight"));
/// ```
#[must_use]
pub fn gguf_name(hugging_face: &str) -> Option<String> {
    let (stem, kind) = stem_and_kind(hugging_face)?;
    let find = |table: &[(&'static str, &str)], name| {
        table
            .iter()
            .find(|(_, known)| *known == name)
            .map(|(gguf, _)| *gguf)
    };
    match stem.strip_prefix("model.layers.") {
        None => find(&OUTER, stem).map(|name| format!("{name}.{kind}")),
        Some(rest) => {
            let (block, name) = rest.split_once('.').filter(|(block, _)| is_number(block))?;
            find(&INNER, name).map(|name| format!("blk.{block}.{name}.{kind}"))
        }
    }
}

/// What is before `.weight` or `.bias`, and which of them it is.
fn stem_and_kind(name: &str) -> Option<(&str, &str)> {
    name.rsplit_once('.')
        .filter(|(_, kind)| matches!(*kind, "weight" | "bias"))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A model in a GGUF file.
///
/// Names are Hugging Face's; tensors whose name has no counterpart keep theirs. For architecture
/// `llama` the rows of the query and key layers are put back in Hugging Face's order: there, the
/// rotary embedding turns element `j` of a head with element `j + head_dim / 2`, in GGUF files
/// element `2j` with element `2j + 1`, and the converter permuted the rows accordingly.
///
/// ```no_run
/// use lowbit::io::{Checkpoint, GgufCheckpoint};
/// let model = GgufCheckpoint::open("SmolLM2-135M-Instruct.Q4_1.gguf")?;
/// let config = model.config()?;
/// let weight = model.tensor("model.layers.0.self_attn.q_proj.weight")?;
/// assert_eq!(weight.shape(), [config.num_attention_heads * config.head_dim, config.hidden_size]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct GgufCheckpoint {
    gguf: Gguf,
}

impl GgufCheckpoint {
    /// Opens a file.
    ///
    /// # Errors
    /// As [`Gguf::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Gguf::open(path).map(Self::new)
    }

    /// The model in a file that is open already.
    #[must_use]
    pub fn new(gguf: Gguf) -> Self {
        Self { gguf }
    }

    /// The file.
    #[must_use]
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// What the file calls a tensor.
    fn name(&self, name: &str) -> String {
        gguf_name(name).unwrap_or_else(|| name.into())
    }

    /// The heads whose rows the converter permuted, if it did.
    fn permuted_heads(&self, name: &str) -> Result<Option<usize>> {
        let architecture = self.gguf.value("general.architecture");
        if architecture != Some(Value::String("llama")) || !name.starts_with("blk.") {
            return Ok(None);
        }
        let layer = stem_and_kind(name).and_then(|(stem, _)| stem.rsplit_once('.'));
        Ok(match layer {
            Some((_, "attn_q")) => Some(LlamaConfig::from_gguf(&self.gguf)?.num_attention_heads),
            Some((_, "attn_k")) => Some(LlamaConfig::from_gguf(&self.gguf)?.num_key_value_heads),
            _ => None,
        })
    }
}

impl Checkpoint for GgufCheckpoint {
    fn config(&self) -> Result<LlamaConfig> {
        LlamaConfig::from_gguf(&self.gguf)
    }

    fn names(&self) -> Vec<String> {
        let named = |name: &str| hugging_face_name(name).unwrap_or_else(|| name.into());
        self.gguf.names().map(named).collect()
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.gguf.shape(&self.name(name))
    }

    fn tensor(&self, name: &str) -> Result<ArrayD<f32>> {
        let name = self.name(name);
        let tensor = self.gguf.tensor(&name)?;
        match self.permuted_heads(&name)? {
            None => Ok(tensor),
            Some(heads) => unpermute(&tensor, heads),
        }
    }
}

/// Undoes the converter's permutation: within each head, rows `2j` and `2j + 1` become rows `j` and
/// `j + head_dim / 2`.
fn unpermute(tensor: &ArrayD<f32>, heads: usize) -> Result<ArrayD<f32>> {
    // No axes have no rows; and no rows are left as they are, however many heads are claimed.
    let rows = tensor.shape().first().copied();
    let Some(rows) = rows.filter(|rows| rows.is_multiple_of(2 * heads)) else {
        return Err(Error::Mismatch {
            what: "query or key rows",
            expected: format!("a multiple of twice the {heads} heads"),
            got: format!("shape {:?}", tensor.shape()),
        });
    };
    let half = rows / heads / 2;
    let order: Vec<usize> = (0..rows)
        .map(|row| {
            let (head, part, j) = (row / half / 2, row / half % 2, row % half);
            2 * (head * half + j) + part
        })
        .collect();
    Ok(tensor.select(Axis(0), &order))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_there_and_back() {
        for name in [
            "model.embed_tokens.weight",
            "model.norm.weight",
            "lm_head.weight",
            "model.layers.0.input_layernorm.weight",
            "model.layers.12.post_attention_layernorm.weight",
            "model.layers.3.self_attn.q_proj.bias",
            "model.layers.29.mlp.down_proj.weight",
        ] {
            let gguf = gguf_name(name).unwrap();
            assert_eq!(hugging_face_name(&gguf).as_deref(), Some(name), "{gguf}");
        }
        for unknown in [
            "",
            ".",
            "weight",
            "blk..attn_q.weight",
            "blk.x.attn_q.weight",
            "blk.1.a.weight",
        ] {
            assert_eq!(hugging_face_name(unknown), None, "{unknown}");
            assert_eq!(gguf_name(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn rows_return_to_where_the_converter_took_them_from() {
        // The converter: reshape(heads, 2, half, in), swap the middle axes, reshape back.
        let (heads, half, columns) = (3, 4, 2);
        let rows = heads * 2 * half;
        let original =
            ArrayD::from_shape_fn(vec![rows, columns], |at| (at[0] * columns + at[1]) as f32);
        let reshaped = original.to_shape((heads, 2, half, columns)).unwrap();
        let swapped = reshaped.permuted_axes([0, 2, 1, 3]);
        let permuted = swapped.to_shape(vec![rows, columns]).unwrap().into_owned();
        assert_ne!(permuted, original);
        assert_eq!(unpermute(&permuted, heads).unwrap(), original);
        assert!(unpermute(&permuted, 5).is_err());
    }

    #[test]
    fn tensors_without_rows_are_done_at_once() {
        let none = ArrayD::zeros(vec![0, 4]);
        assert_eq!(unpermute(&none, (1 << 31) - 1).unwrap(), none);
        assert!(unpermute(&ArrayD::zeros(vec![]), 4).is_err());
    }
}
