//! Norms without parameters: the layers after them compute what they did.

use lowbit::ptq::{NormParameters, Rotation, TransformExt, without_mean};
use ndarray::{Array1, Array2, Axis, array};

use super::support::{Layer, close};

fn rms_norm(x: &Array2<f32>) -> Array2<f32> {
    let square = x.mapv(|x| x * x).mean_axis(Axis(1)).unwrap();
    x / &square.mapv(f32::sqrt).insert_axis(Axis(1))
}

fn layer_norm(x: &Array2<f32>) -> Array2<f32> {
    let mean = x.mean_axis(Axis(1)).unwrap().insert_axis(Axis(1));
    rms_norm(&(x - &mean))
}

#[test]
fn a_layer_norm_folded_and_rotated_computes_what_it_did() {
    let before = Layer::random(24, 10, 8, 1); // writes what the norm reads
    let after = Layer::random(5, 24, 1, 2);
    let gain = Array1::from_shape_fn(24, |i| if i == 3 { 0.0 } else { (i as f32).cos() });
    let shift = Array1::from_shape_fn(24, |i| (i as f32).sin());
    let bias = Array1::from_shape_fn(5, |i| i as f32 - 2.0);
    let first_bias = Array1::from_shape_fn(24, |i| 0.1 * i as f32);

    let hidden = before.inputs.dot(&before.weights.t()) + &first_bias;
    let expected = (layer_norm(&hidden) * &gain + &shift).dot(&after.weights.t()) + &bias;

    let norm = NormParameters::with_shift(gain, shift).unwrap();
    let weights = norm.weights(&after.weights).unwrap();
    let bias = norm.bias(&after.weights, Some(&bias)).unwrap();
    let first = without_mean(&before.weights).unwrap();
    let first_bias = without_mean(&first_bias.insert_axis(Axis(1))).unwrap();
    let rotation = Rotation::hadamard(24).unwrap().with_signs(5);
    let first = rotation.outputs(&first).unwrap();
    let first_bias = rotation.inputs(&first_bias.index_axis(Axis(1), 0)).unwrap();
    let weights = rotation.weights(&weights).unwrap();

    let hidden = before.inputs.dot(&first.t()) + &first_bias;
    close(
        &(rms_norm(&hidden).dot(&weights.t()) + &bias),
        &expected,
        1e-4,
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let norm = NormParameters::new(array![1.0, 2.0]).unwrap();
    assert!(norm.weights(&array![[1.0_f32, 2.0, 3.0]]).is_err());
    assert!(
        norm.bias(&array![[1.0_f32, 2.0]], Some(&array![1.0, 2.0]))
            .is_err()
    );
    assert_eq!(
        norm.bias(&array![[1.0_f32, 2.0]], None).unwrap(),
        array![0.0]
    );
    assert!(norm.weights(&array![[f32::MAX, f32::MAX]]).is_err());
    assert!(norm.weights(&array![[f32::NAN, 0.0]]).is_err());
    assert!(NormParameters::new(array![f32::NAN]).is_err());
    assert!(NormParameters::with_shift(array![1.0], array![]).is_err());
    assert!(NormParameters::with_shift(array![1.0], array![f32::INFINITY]).is_err());
    assert!(without_mean(&array![[f32::INFINITY]]).is_err());
    assert_eq!(
        without_mean(&Array2::zeros((0, 3))).unwrap().shape(),
        [0, 3]
    );
}
