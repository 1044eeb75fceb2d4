//! ONNX QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear.

use half::{bf16, f16};
use lowbit::{Affine, Code, Element, FloatFormat, Format, Granularity, Scheme, codes::minifloat};
use ndarray::{ArrayD, arr1};

use super::{Outputs, granularity_of, scheme_of, words};
use crate::case::{Case, Data};

/// The parameters of a case, for a tensor of `axes` axes and codes of a logical type.
fn parameters(case: &Case, axes: usize, logical: &str) -> Result<Affine, String> {
    let scale = case.tensor("scale")?;
    let granularity = granularity_of(case, axes, scale.to_f32().len())?;
    let builder = scheme_of(logical)?.granularity(granularity);
    let scheme = builder.build().map_err(words)?;
    let nothing = |zero: f32| vec![zero; scale.to_f32().len()];
    let zero_point = match (case.optional("zero_point"), scheme.format()) {
        // Only the zero point of 4-bit floats is added; adding −0 leaves the sign of −0.
        (None, Format::Float(_))
        | (Some(_), Format::Float(FloatFormat::E4M3 | FloatFormat::E5M2)) => nothing(-0.0),
        // Small floats are stored as their codes.
        (Some(Data::U8(codes)), Format::Float(float)) => codes
            .iter()
            .map(|&code| minifloat::decode(code, float))
            .collect(),
        (Some(zero_point), _) => zero_point.to_vec_f32(),
        (None, _) => nothing(0.0),
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

/// The codes of small floats where what does not fit overflows (`saturate` is 0).
fn unsaturated(x: &Data, affine: &Affine, format: FloatFormat) -> Result<ArrayD<u8>, String> {
    let groups = affine.groups(x.shape()).map_err(words)?;
    let x = x.to_f32();
    let codes = x.iter().enumerate().map(|(element, x)| {
        let parameter = groups.parameter_of(element);
        let position = x / affine.scale()[parameter] + affine.zero_point()[parameter];
        minifloat::encode_unsaturated(position, format)
    });
    ArrayD::from_shape_vec(x.raw_dim(), codes.collect()).map_err(|error| error.to_string())
}

pub(super) fn quantize(case: &Case) -> Result<Outputs, String> {
    let x = case.tensor("x")?;
    let logical = case.logical_type("expected.y").ok_or("no type of y")?;
    let affine = parameters(case, x.shape().len(), logical)?;
    let expected = case.tensor("expected.y")?;
    if let (Some(0), Format::Float(format)) = (case.integer("saturate")?, affine.scheme().format())
    {
        return Ok(vec![("y", Data::U8(unsaturated(x, &affine, format)?))]);
    }
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
