//! torch's fake-quantize, with fixed and with learnable parameters.

use lowbit::{
    Affine, FakeQuantExt, Granularity,
    qat::{AffineFakeQuant, Clipped, TorchLearnable},
};
use ndarray::{ArrayD, arr1};

use super::{Outputs, granularity_of, scheme_of_codes, words};
use crate::case::{Case, Data};

fn float<'a>(case: &'a Case, name: &str) -> Result<&'a ArrayD<f32>, String> {
    match case.tensor(name)? {
        Data::F32(array) => Ok(array),
        _ => Err(format!("{name} must be f32")),
    }
}

fn parameters(case: &Case, zero_point: Vec<f32>) -> Result<Affine, String> {
    let scale = case.tensor("scale")?;
    let axes = case.tensor("x")?.shape().len();
    let granularity = granularity_of(case, axes, scale.to_f32().len())?;
    let scheme = scheme_of_codes(case)?.granularity(granularity);
    let shape = match granularity {
        Granularity::PerTensor => &[],
        _ => scale.shape(),
    };
    Affine::new(
        scheme.build().map_err(words)?,
        shape,
        scale.to_vec_f32(),
        zero_point,
    )
    .map_err(words)
}

pub(super) fn clipped(case: &Case) -> Result<Outputs, String> {
    let affine = parameters(case, case.tensor("zero_point")?.to_vec_f32())?;
    let fake = AffineFakeQuant::new(affine, Clipped);
    let x = float(case, "x")?;
    let y = fake.forward(x).map_err(words)?;
    let gradients = fake.backward(x, float(case, "grad_y")?).map_err(words)?;
    Ok(vec![
        ("y", Data::F32(y)),
        ("grad_x", Data::F32(gradients.input)),
    ])
}

pub(super) fn learnable(case: &Case) -> Result<Outputs, String> {
    let learned = case.tensor("zero_point")?.to_vec_f32();
    let factor = case.real("grad_factor")? as f32;
    let affine = parameters(case, vec![0.0; learned.len()])?;
    let estimator = match affine.scheme().granularity() {
        Granularity::PerTensor => TorchLearnable::per_tensor(factor),
        _ => TorchLearnable::per_channel(factor),
    };
    let estimator = estimator.map_err(words)?;
    let mut fake = AffineFakeQuant::new(affine, estimator);
    fake.set_zero_point(&learned).map_err(words)?;
    let x = float(case, "x")?;
    let y = fake.forward(x).map_err(words)?;
    let gradients = fake.backward(x, float(case, "grad_y")?).map_err(words)?;
    Ok(vec![
        ("y", Data::F32(y)),
        ("grad_x", Data::F32(gradients.input)),
        ("grad_scale", Data::F32(arr1(&gradients.scale).into_dyn())),
        (
            "grad_zero_point",
            Data::F32(arr1(&gradients.zero_point).into_dyn()),
        ),
    ])
}
