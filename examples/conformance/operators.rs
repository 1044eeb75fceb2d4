//! Each operator as public calls of `lowbit`.

mod broadcast;
mod fake_quantize;
#[cfg(feature = "gguf")]
mod gguf;
mod linear;
mod matmul;
mod observer;
mod packed;

use lowbit::{FloatFormat, Granularity, Mapping, Scheme, SchemeBuilder};

use crate::{
    case::{Case, Data},
    compare::{Tolerance, difference},
};

/// What came of a case.
pub enum Outcome {
    Equal,
    Different(String),
    Unknown(String),
}

/// The outputs of an operator by name.
type Outputs = Vec<(&'static str, Data)>;

pub fn run(case: &Case) -> Result<Outcome, String> {
    let (outputs, tolerance) = match case.operator.as_str() {
        "QuantizeLinear" => (linear::quantize(case)?, Tolerance::Relative),
        "DequantizeLinear" => (linear::dequantize(case)?, Tolerance::Exact),
        "DynamicQuantizeLinear" => (linear::dynamic(case)?, Tolerance::Relative),
        "MatMulInteger" => (matmul::integer(case)?, Tolerance::Relative),
        "QLinearMatMul" => (matmul::quantized(case)?, Tolerance::Relative),
        "FakeQuantize" => (fake_quantize::clipped(case)?, Tolerance::Relative),
        "LearnableFakeQuantize" => (fake_quantize::learnable(case)?, Tolerance::Relative),
        "Observer" => (observer::observe(case)?, Tolerance::Relative),
        "ReadPacked" => (packed::read(case)?, Tolerance::Exact),
        #[cfg(feature = "gguf")]
        "GgufDequantize" => (gguf::dequantize(case)?, Tolerance::Exact),
        #[cfg(feature = "gguf")]
        "GgufQuantize" => (gguf::quantize(case)?, Tolerance::Exact),
        unknown => return Ok(Outcome::Unknown(unknown.to_owned())),
    };
    for (name, expected) in case.expected() {
        let Some((_, got)) = outputs.iter().find(|(output, _)| *output == name) else {
            return Ok(Outcome::Different(format!("no output {name:?}")));
        };
        if let Some(what) = difference(name, expected, got, tolerance) {
            return Ok(Outcome::Different(what));
        }
    }
    Ok(Outcome::Equal)
}

/// An error of the crate, in words.
fn words(error: lowbit::Error) -> String {
    error.to_string()
}

/// The scheme of an ONNX element type, with an integer zero point.
fn scheme_of(logical: &str) -> Result<SchemeBuilder, String> {
    let float = |format| Ok(Scheme::float(format));
    let builder = match logical {
        "float8_e4m3fn" => return float(FloatFormat::E4M3),
        "float8_e5m2" => return float(FloatFormat::E5M2),
        "float4_e2m1" => return float(FloatFormat::E2M1),
        "int8" => Scheme::int(8),
        "uint8" => Scheme::int(8).unsigned(),
        "int16" => Scheme::int(16),
        "uint16" => Scheme::int(16).unsigned(),
        "int4" => Scheme::int(4),
        "uint4" => Scheme::int(4).unsigned(),
        "int2" => Scheme::int(2),
        "uint2" => Scheme::int(2).unsigned(),
        // 32-bit codes (a bias) are dequantized by the same formula.
        "int32" => Scheme::int(16),
        other => return Err(format!("element type {other} is not known")),
    };
    Ok(builder.mapping(Mapping::Asymmetric))
}

/// The scheme of torch's `quant_min` and `quant_max`.
fn scheme_of_codes(case: &Case) -> Result<SchemeBuilder, String> {
    let min = case.integer("quant_min")?.ok_or("no quant_min")?;
    let max = case.integer("quant_max")?.ok_or("no quant_max")?;
    for bits in (1..=8).chain([16]) {
        let signed = Scheme::int(bits);
        for builder in [
            signed,
            signed.narrow_range(),
            signed.unsigned(),
            signed.unsigned().narrow_range(),
        ] {
            let builder = builder.asymmetric();
            let fits = |scheme: Scheme| {
                i64::from(scheme.quant_min()) == min && i64::from(scheme.quant_max()) == max
            };
            if builder.build().is_ok_and(fits) {
                return Ok(builder);
            }
        }
    }
    Err(format!("no integer format has the codes {min} to {max}"))
}

/// The `axis` attribute, counted from the front.
fn axis_of(case: &Case, axes: usize, default: i64) -> Result<usize, String> {
    let axis = case.integer("axis")?.unwrap_or(default);
    let from_front = if axis < 0 { axis + axes as i64 } else { axis };
    usize::try_from(from_front).map_err(|_| format!("axis {axis} of {axes}"))
}

/// Per tensor for a single parameter, else per the `axis` attribute, in blocks where there is a
/// `block_size`.
fn granularity_of(case: &Case, axes: usize, parameters: usize) -> Result<Granularity, String> {
    let size = case.integer("block_size")?.unwrap_or(0);
    match usize::try_from(size).map_err(|_| format!("block_size {size}"))? {
        0 if parameters == 1 => Ok(Granularity::PerTensor),
        0 => Ok(Granularity::PerAxis(axis_of(case, axes, 1)?)),
        size => Ok(Granularity::PerGroupAlong {
            axis: axis_of(case, axes, 1)?,
            size,
        }),
    }
}
