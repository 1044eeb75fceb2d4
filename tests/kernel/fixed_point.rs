//! Requantization in fixed point at the ends of 32 bits, and one layer after the other.

use lowbit::{
    Activations, Affine, Error, PackedLinear, QTensor, Requantization, Scheme, Workspace,
};
use ndarray::Array2;

use super::support::{Random, affine, layers, quantized, tensor};

fn signed(scale: f32, zero: f32) -> Affine {
    Affine::per_tensor(Scheme::int(8).asymmetric().build().unwrap(), scale, zero).unwrap()
}

/// Layers of one weight of 127 in steps of 1, for codes in steps of 1.
fn one_weight(bias: f32) -> Vec<PackedLinear> {
    let weight = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1.0, 0.0).unwrap();
    let weight = QTensor::from_codes(&Array2::from_elem((1, 1), 127_i8), &weight).unwrap();
    let fixed = |layer| quantized(layer, &signed(1.0, 0.0));
    layers(&weight, Some(&[bias])).iter().map(fixed).collect()
}

fn code(layer: &PackedLinear, x: i8, output: Affine) -> lowbit::Result<i8> {
    let to = Requantization::fixed_point(output).unwrap();
    let codes: Array2<i8> = layer.forward_requantized(&Array2::from_elem((1, 1), x), &to)?;
    Ok(codes[[0, 0]])
}

#[test]
fn a_sum_that_its_bias_carries_beyond_32_bits_saturates() {
    // 2^31 − 128 steps: the sum of 127 · 127 does not fit beside it.
    let bias = 2_147_483_520.0;
    for (bias, x, expected) in [(bias, 127, 127), (-bias, -127, -128)] {
        for layer in one_weight(bias) {
            let step = 2.0_f32.powi(24);
            assert_eq!(code(&layer, x, signed(step, 0.0)).unwrap(), expected);
        }
    }
}

#[test]
fn steps_that_the_zero_point_carries_beyond_32_bits_saturate() {
    // A multiplier of 2^29, under which every sum from 4 on saturates.
    let step = 2.0_f32.powi(-29);
    for (x, zero, expected) in [(1, 100.0, 127), (-1, -100.0, -128)] {
        for layer in one_weight(0.0) {
            assert_eq!(code(&layer, x, signed(step, zero)).unwrap(), expected);
        }
    }
}

#[test]
fn a_bias_that_32_bits_do_not_hold_is_refused_by_its_output() {
    for bias in [2_147_483_648.0, -3e9, 1e30] {
        for layer in one_weight(bias) {
            let error = code(&layer, 1, signed(1.0, 0.0)).unwrap_err();
            let Error::NonFinite { position, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(position, [0]);
        }
    }
}

#[test]
fn one_workspace_serves_layers_of_other_scales_and_biases() {
    let mut random = Random(61);
    let mut workspace = Workspace::new();
    for (outputs, depth) in [(9, 40), (21, 70), (5, 33)] {
        let scheme = Scheme::int(8).per_axis(0).build().unwrap();
        let weights = tensor(scheme, (outputs, depth), &mut random);
        let bias: Vec<f32> = (0..outputs).map(|_| 4.0 * random.float()).collect();
        let input = affine(*signed(1.0, 0.0).scheme(), &[], &mut random);
        let x = Array2::from_shape_simple_fn((3, depth), || random.float());
        for layer in layers(&weights, Some(&bias)) {
            let activations = Activations::Static(input.clone());
            let layer = layer.with_activations(activations).unwrap();
            let to = Requantization::fixed_point(signed(0.1, -7.0)).unwrap();
            let mut codes = Array2::<i8>::zeros((3, outputs));
            layer
                .forward_requantized_into(&x, &to, &mut codes, &mut workspace)
                .unwrap();
            let alone: Array2<i8> = layer.forward_requantized(&x, &to).unwrap();
            assert_eq!(codes, alone);
        }
    }
}
