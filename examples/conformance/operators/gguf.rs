//! The block types of ggml.

use lowbit::io::gguf::{self, TensorType};
use ndarray::{Array1, ArrayD, arr1};

use super::{Outputs, words};
use crate::case::{Case, Data};

fn kind(case: &Case) -> Result<TensorType, String> {
    case.text("type")?.parse().map_err(words)
}

fn bytes<'a>(case: &'a Case, name: &str) -> Result<&'a [u8], String> {
    match case.tensor(name)? {
        Data::U8(bytes) => bytes
            .as_slice()
            .ok_or_else(|| format!("{name} has another layout")),
        _ => Err(format!("{name} must be of bytes")),
    }
}

fn floats(case: &Case, name: &str, bytes: &[u8]) -> Result<ArrayD<f32>, String> {
    let shape = case.tensor(name)?.shape();
    gguf::dequantize(kind(case)?, bytes, shape).map_err(words)
}

pub(super) fn dequantize(case: &Case) -> Result<Outputs, String> {
    let y = floats(case, "expected.y", bytes(case, "bytes")?)?;
    Ok(vec![("y", Data::F32(y))])
}

pub(super) fn quantize(case: &Case) -> Result<Outputs, String> {
    let Data::F32(x) = case.tensor("x")? else {
        return Err("x must be f32".into());
    };
    let importance = case
        .optional("importance")
        .map(|i| Array1::from(i.to_vec_f32()));
    let quantized = gguf::quantize(kind(case)?, x, importance.as_deref()).map_err(words)?;
    let shape = case.tensor("expected.bytes")?.shape();
    let mut outputs = vec![];
    if case.optional("expected.y").is_some() {
        outputs.push(("y", Data::F32(floats(case, "expected.y", &quantized)?)));
    }
    let quantized = arr1(&quantized).into_dyn();
    let quantized = quantized
        .into_shape_with_order(shape)
        .map_err(|e| e.to_string())?;
    outputs.push(("bytes", Data::U8(quantized)));
    Ok(outputs)
}
