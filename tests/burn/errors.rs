//! What is wrong is an error.

use burn_core::{
    module::Module,
    tensor::{DType, Tensor},
};
use lowbit::{Error, QTensor, Result, burn::FakeQuantLayer, prelude::*, qat::Gradients};
use ndarray::{ArrayD, ArrayViewD};

use crate::support::{Set, learned, linear, numbers, tensor, training, values, variable};

#[test]
fn what_is_wrong_is_an_error() -> Result<()> {
    let w = numbers(4, 8, 23);
    let mut layer = FakeQuantLayer::new(learned(4, &w), &training());
    let fails = |result: Result<Tensor<2>>, message: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    // wrong shapes and types
    fails(
        layer.forward(variable(&numbers(5, 8, 24))),
        "shape of parameters",
    );
    let double = tensor(&w, &training()).cast(DType::F64);
    fails(
        layer.forward(double.clone()),
        "expected a tensor of f32, got one of F64",
    );
    assert!(layer.convert(&double).is_err() && layer.observe(&double).is_err());
    let narrow = linear(&w, &[0.0; 4])?.forward(tensor(&numbers(2, 7, 25), &training()));
    let error = narrow.unwrap_err();
    assert!(
        matches!(&error, Error::ShapeMismatch { expected, got, .. } if *expected == [2, 8] && *got == [2, 7]),
        "{error}"
    );

    // NaN in the input is seen in the output, and does not become a code
    let mut broken = w.clone();
    broken[[1, 2]] = f32::NAN;
    let y = values(&layer.forward(variable(&broken))?);
    assert!(y[8 + 2].is_nan());
    let error = layer.convert(&variable(&broken)).unwrap_err().to_string();
    assert!(error.contains("NaN at position [1, 2]"), "{error}");

    // NaN in what is learned
    let mut layer = layer.map(&mut Set([0.0, f32::NAN, 0.0, 0.0]));
    fails(
        layer.forward(variable(&w)),
        "learned parameters: expected finite numbers, got NaN",
    );
    assert!(layer.update(|_| Ok(())).is_err());
    let layer = layer.map(&mut Set([0.0; 4]));
    assert!(layer.forward(variable(&w)).is_ok());
    Ok(())
}

/// Has a forward pass and no backward pass.
#[derive(Debug)]
struct OneWay;

impl FakeQuant for OneWay {
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        Ok(input.to_owned())
    }

    fn backward_view(&self, _: ArrayViewD<'_, f32>, _: ArrayViewD<'_, f32>) -> Result<Gradients> {
        Err(Error::other("no way back"))
    }

    fn convert_view(&self, _: ArrayViewD<'_, f32>) -> Result<QTensor> {
        Err(Error::other("no codes"))
    }
}

#[test]
fn a_backward_pass_that_fails_is_seen_in_gradients_and_returned_by_the_next_pass() -> Result<()> {
    let layer = FakeQuantLayer::new(OneWay, &training());
    let input = variable(&numbers(2, 3, 26));
    let back = layer.forward(input.clone())?.sum().backward();
    assert!(
        values(&input.grad(&back).unwrap())
            .iter()
            .all(|v| v.is_nan())
    );
    let error = layer.forward(input.clone()).unwrap_err();
    assert_eq!(error.to_string(), "no way back");
    assert!(layer.forward(input).is_ok());
    Ok(())
}
