//! Layers as GPTQ, AWQ and compressed-tensors store them.

use lowbit::io::packed::{Awq, CompressedTensors, Gptq, GptqVersion};
use ndarray::{Array1, Array2, ArrayD, Ix2};

use super::{Outputs, words as told};
use crate::case::{Case, Data};

fn matrix<T>(array: ArrayD<T>) -> Result<Array2<T>, String> {
    array
        .into_dimensionality::<Ix2>()
        .map_err(|error| error.to_string())
}

fn words(case: &Case, name: &str) -> Result<Array2<i32>, String> {
    match case.tensor(name)? {
        Data::I32(words) => matrix(words.clone()),
        _ => Err(format!("{name} must be i32")),
    }
}

fn optional_words(case: &Case, name: &str) -> Result<Option<Array2<i32>>, String> {
    case.optional(name).map(|_| words(case, name)).transpose()
}

/// The group of each column, where columns were quantized out of order.
fn column_groups(case: &Case, name: &str) -> Result<Option<Array1<i32>>, String> {
    match case.optional(name) {
        None => Ok(None),
        Some(Data::I32(groups)) => Ok(Some(groups.iter().copied().collect())),
        Some(_) => Err(format!("{name} must be i32")),
    }
}

pub(super) fn read(case: &Case) -> Result<Outputs, String> {
    let bits = case
        .integer("bits")?
        .and_then(|bits| u32::try_from(bits).ok());
    let bits = bits.ok_or("no bits")?;
    // −1 is one group of all.
    let group_size = case
        .integer("group_size")?
        .and_then(|size| usize::try_from(size).ok());
    let scales = |name: &str| matrix(case.tensor(name)?.to_f32());
    let weight = match case.text("format")? {
        format @ ("gptq" | "gptq_v2") => {
            let version = if format == "gptq" {
                GptqVersion::V1
            } else {
                GptqVersion::V2
            };
            Gptq::new(bits, group_size, version).map_err(told)?.read(
                &words(case, "qweight")?,
                &words(case, "qzeros")?,
                &scales("scales")?,
                column_groups(case, "g_idx")?.as_deref(),
            )
        }
        "awq" => Awq::new(group_size).map_err(told)?.read(
            &words(case, "qweight")?,
            optional_words(case, "qzeros")?.as_deref(),
            &scales("scales")?,
        ),
        "compressed-tensors" => {
            let shape: Vec<usize> = match case.tensor("weight_shape")? {
                Data::I64(shape) => shape
                    .iter()
                    .filter_map(|&s| usize::try_from(s).ok())
                    .collect(),
                Data::I32(shape) => shape
                    .iter()
                    .filter_map(|&s| usize::try_from(s).ok())
                    .collect(),
                _ => return Err("weight_shape must be of integers".into()),
            };
            let &[outputs, inputs] = shape.as_slice() else {
                return Err(format!("weight_shape: expected two sizes, got {shape:?}"));
            };
            CompressedTensors::new(bits, group_size)
                .map_err(told)?
                .read(
                    &words(case, "weight_packed")?,
                    &scales("weight_scale")?,
                    optional_words(case, "weight_zero_point")?.as_deref(),
                    [outputs, inputs],
                    column_groups(case, "weight_g_idx")?.as_deref(),
                )
        }
        other => return Err(format!("format {other} is not known")),
    };
    let weight = weight.map_err(told)?.dequantize();
    Ok(vec![("weight", Data::F32(weight.into_dyn()))])
}
