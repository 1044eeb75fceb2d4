//! Block types against the cases of ggml and of gguf in Python.

use lowbit::io::gguf::{TensorType, dequantize};

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
