//! ONNX QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear.

use half::{bf16, f16};
use lowbit::{Affine, Code, Element, Granularity, Scheme, codes::minifloat};
use ndarray::{ArrayD, arr1};

use super::{Outputs, granularity_of, scheme_of, words};
use crate::case::{Case, Data};

/// The parameters of a case, for a tensor of `axes` axes and codes of a logical type.
fn parameters(case: &Case, axes: usize, logical: &str) -> Result<Affine, String> {
    let scale = case.tensor("scale")?;
    let granularity = granularity_of(case, axes, scale.to_f32().len())?;
    let builder = scheme_of(logical)?.granularity(granularity);
    let scheme = builder.build().map_err(words)?;
    let zero_point = match case.optional("zero_point") {
        None => vec![0.0; scale.to_f32().len()],
        Some(zero_point) => match (zero_point, scheme.format()) {
            // Small floats are stored as their codes.
            (Data::U8(codes), lowbit::Format::Float(float)) => codes
                .iter()
                .map(|&code| minifloat::decode(code, float))
                .collect(),
            _ => zero_point.to_vec_f32(),
        },
    };
    let shape = match granularity {
        Granularity::PerTensor => &[],
        _ => scale.shape(),
    };
    Affine::new(scheme, shape, scale.to_vec_f32(), zero_point).map_err(words)
}

fn codes_of<A: Element>(x: &ArrayD<A>, affine: &Affine, expected: &Data) -> Result<Data, String> {
    Ok(match expected {
        Data::I8(_) => Data::I8(lowbit::quantize(x, affine).map_err(words)?),
        Data::U8(_) => Data::U8(lowbit::quantize(x, affine).map_err(words)?),
        Data::I16(_) => Data::I16(lowbit::quantize(x, affine).map_err(words)?),
        Data::U16(_) => Data::U16(lowbit::quantize(x, affine).map_err(words)?),
        other => return Err(format!("codes in {other:?} are not known")),
    })
}

pub(super) fn quantize(case: &Case) -> Result<Outputs, String> {
    let x = case.tensor("x")?;
    let logical = case.logical_type("expected.y").ok_or("no type of y")?;
    let affine = parameters(case, x.shape().len(), logical)?;
    let expected = case.tensor("expected.y")?;
    let y = match x {
        Data::F32(x) => codes_of(x, &affine, expected)?,
        Data::F64(x) => codes_of(x, &affine, expected)?,
        Data::F16(x) => codes_of(x, &affine, expected)?,
        Data::BF16(x) => codes_of(x, &affine, expected)?,
        other => return Err(format!("x in {other:?} is not known")),
    };
    Ok(vec![("y", y)])
}

pub(super) fn dequantize(case: &Case) -> Result<Outputs, String> {
    fn floats<C: Code>(x: &ArrayD<C>, affine: &Affine, expected: &Data) -> lowbit::Result<Data> {
        Ok(match expected {
            Data::F16(_) => Data::F16(lowbit::dequantize::<f16, _, _>(x, affine)?),
            Data::BF16(_) => Data::BF16(lowbit::dequantize::<bf16, _, _>(x, affine)?),
            Data::F64(_) => Data::F64(lowbit::dequantize::<f64, _, _>(x, affine)?),
            _ => Data::F32(lowbit::dequantize::<f32, _, _>(x, affine)?),
        })
    }
    let x = case.tensor("x")?;
    let logical = case.logical_type("x").ok_or("no type of x")?;
    let affine = parameters(case, x.shape().len(), logical)?;
    let expected = case.tensor("expected.y")?;
    let y = match x {
        Data::I8(x) => floats(x, &affine, expected),
        Data::U8(x) => floats(x, &affine, expected),
        Data::I16(x) => floats(x, &affine, expected),
        Data::U16(x) => floats(x, &affine, expected),
        Data::I32(x) => floats(x, &affine, expected),
        other => return Err(format!("x in {other:?} is not known")),
    };
    Ok(vec![("y", y.map_err(words)?)])
}

pub(super) fn dynamic(case: &Case) -> Result<Outputs, String> {
    let Data::F32(x) = case.tensor("x")? else {
        return Err("x must be f32".into());
    };
    let scheme = Scheme::int(8)
        .unsigned()
        .asymmetric()
        .build()
        .map_err(words)?;
    let affine = Affine::of(&scheme, x).map_err(words)?;
    let y = lowbit::quantize::<_, u8, _>(x, &affine).map_err(words)?;
    let zero_point = lowbit::quantize::<_, u8, _>(&arr1(&[0.0_f32]), &affine).map_err(words)?;
    Ok(vec![
        ("y", Data::U8(y)),
        ("scale", Data::F32(arr1(affine.scale()).into_dyn())),
        ("zero_point", Data::U8(zero_point.into_dyn())),
    ])
}
