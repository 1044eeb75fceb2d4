//! Block types against the cases of ggml and of gguf in Python.

use lowbit::io::gguf::{TensorType, dequantize, quantize};
use ndarray::{Array1, ArrayD};

use super::cases::{self, assert_same_bits};

#[test]
fn blocks_are_dequantized_as_gguf_in_python_does() {
    for (name, case) in cases::of("GgufDequantize") {
        let kind: TensorType = case.text("type").parse().unwrap();
        let (_, _, bytes) = case.raw("bytes");
        let (shape, expected) = case.floats("expected.y");
        let got = dequantize(kind, &bytes, &shape).unwrap();
        assert_eq!(got.shape(), shape);
        assert_same_bits(&name, &expected, got.as_slice().unwrap());
    }
}

#[test]
fn blocks_are_dequantized_as_ggml_in_c_does() {
    for (name, case) in cases::of("GgufQuantize") {
        if !case.has("expected.y") {
            continue;
        }
        let kind: TensorType = case.text("type").parse().unwrap();
        let (_, _, bytes) = case.raw("expected.bytes");
        let (shape, expected) = case.floats("expected.y");
        let got = dequantize(kind, &bytes, &shape).unwrap();
        assert_same_bits(&name, &expected, got.as_slice().unwrap());
    }
}

#[test]
fn blocks_are_quantized_as_ggml_and_gguf_do() {
    for (name, case) in cases::of("GgufQuantize") {
        let kind: TensorType = case.text("type").parse().unwrap();
        let (shape, x) = case.floats("x");
        let x = ArrayD::from_shape_vec(shape, x).unwrap();
        let importance = case
            .has("importance")
            .then(|| Array1::from(case.floats("importance").1));
        let (_, _, expected) = case.raw("expected.bytes");
        let got = quantize(kind, &x, importance.as_deref()).unwrap();
        assert_eq!(expected, got, "{name}");
    }
}
