//! The laws of transforms: invertible, the product kept, Hessians transformed as inputs are.

use lowbit::{
    Error,
    observe::{Hessian, InputDeviation},
    ptq::{Chain, ChannelScales, Rotation, Side, Transform, TransformExt},
};
use ndarray::{Array1, Array2, Array3, array, s};

use super::support::{Layer, close};

/// A shear, written in f64 alone: not symmetric, not orthogonal, so that no side is mistaken for
/// another.
#[derive(Debug)]
struct Shear(usize);

impl Shear {
    fn add(&self, rows: &mut [f64], to: usize, from: usize, times: f64) {
        for row in rows.chunks_exact_mut(self.0) {
            row[to] += times * row[from];
        }
    }
}

impl Transform for Shear {
    fn channels(&self) -> usize {
        self.0
    }

    fn apply(&self, side: Side, rows: &mut [f64]) {
        match side {
            Side::Inputs => self.add(rows, 1, 0, 0.5),
            Side::Weights => self.add(rows, 0, 1, -0.5),
        }
    }

    fn undo(&self, side: Side, rows: &mut [f64]) {
        match side {
            Side::Inputs => self.add(rows, 1, 0, -0.5),
            Side::Weights => self.add(rows, 0, 1, 0.5),
        }
    }
}

fn scales(channels: usize) -> ChannelScales {
    let scale = |i: usize| 0.3 + (i as f32 * 0.9).sin().abs() * 4.0;
    ChannelScales::new(Array1::from_shape_fn(channels, scale)).unwrap()
}

fn transforms(channels: usize) -> Vec<Box<dyn Transform>> {
    let rotation = Rotation::hadamard(channels).unwrap().with_signs(3);
    let chain = scales(channels).then(rotation.clone()).unwrap();
    vec![
        Box::new(scales(channels)),
        Box::new(scales(channels).to_powers_of_two()),
        Box::new(Rotation::blocks(channels, 4).unwrap()),
        Box::new(rotation),
        Box::new(Shear(channels)),
        Box::new(chain.clone().and(Shear(channels)).unwrap()),
        Box::new(Shear(channels).then(chain).unwrap()),
    ]
}

#[test]
fn the_layer_computes_what_it_did_and_undoing_gives_back_what_was() {
    for channels in [8, 12, 52, 64, 172] {
        let layer = Layer::random(5, channels, 9, 1);
        let product = layer.inputs.dot(&layer.weights.t());
        for transform in transforms(channels) {
            let inputs = transform.inputs(&layer.inputs).unwrap();
            let weights = transform.weights(&layer.weights).unwrap();
            close(&inputs.dot(&weights.t()), &product, 1e-5);
            let back = transform.restore_inputs(&inputs).unwrap();
            close(&back, &layer.inputs, 1e-5);
            let back = transform.restore_weights(&weights).unwrap();
            close(&back, &layer.weights, 1e-5);
        }
    }
}

#[test]
fn the_hessian_of_transformed_inputs_is_the_transformed_hessian() {
    let layer = Layer::random(1, 52, 40, 2);
    for transform in transforms(52) {
        let inputs = transform.inputs(&layer.inputs).unwrap();
        let weights = layer.weights.clone();
        let expected = Layer { weights, inputs }.moments();
        let hessian = transform.hessian(&layer.hessian()).unwrap();
        assert_eq!(hessian.tokens(), 40);
        let got = hessian.matrix().unwrap();
        assert_eq!(got, got.t());
        let unit = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-5 * unit, "{got} {expected}");
        }
    }
}

#[test]
fn the_deviation_of_transformed_inputs_is_the_transformed_deviation() {
    let float = Layer::random(1, 52, 40, 2).inputs;
    let quantized = &float + &(Layer::random(1, 52, 40, 3).inputs * 0.1);
    let mut before = InputDeviation::new(52).unwrap();
    before.observe(&float, &quantized).unwrap();
    for transform in transforms(52) {
        let float = transform.inputs(&float).unwrap().mapv(f64::from);
        let quantized = transform.inputs(&quantized).unwrap().mapv(f64::from);
        let expected = (float - &quantized).t().dot(&quantized);
        let got = transform.deviation(&before).unwrap().cross().unwrap();
        let unit = expected.iter().fold(0.0_f64, |most, x| most.max(x.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-5 * unit, "{got} {expected}");
        }
    }
    let hessian = before.hessian().clone();
    let bad = Array2::from_elem((52, 52), f64::NAN);
    let error = InputDeviation::from_parts(hessian.clone(), &bad).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    let error = InputDeviation::from_parts(hessian, &Array2::zeros((52, 51))).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
}

#[test]
fn directions_that_no_input_has_are_dead_after_a_rotation() {
    // Every channel is the same: all of it goes to the first one.
    let mut hessian = Hessian::new(64).unwrap();
    let same = Array2::from_shape_fn((50, 64), |(token, _)| (token as f32 * 0.7).sin());
    hessian.observe(&same).unwrap();
    let rotated = Rotation::hadamard(64).unwrap().hessian(&hessian).unwrap();
    let diagonal = rotated.diagonal();
    let trace = hessian.diagonal().sum();
    assert!((diagonal[0] / trace - 1.0).abs() < 1e-6);
    assert!(
        diagonal
            .iter()
            .skip(1)
            .all(|&d| (0.0..1e-6 * trace).contains(&d))
    );
}

#[test]
fn folding_into_the_layer_before_keeps_the_product_of_the_two() {
    let (first, second) = (Layer::random(52, 7, 3, 3), Layer::random(4, 52, 1, 4));
    let bias = Array1::from_shape_fn(52, |i| (i as f32).cos());
    let before = (first.inputs.dot(&first.weights.t()) + &bias).dot(&second.weights.t());
    for transform in transforms(52) {
        let weights = transform.outputs(&first.weights).unwrap();
        let folded_bias = transform.inputs(&bias).unwrap();
        let hidden = first.inputs.dot(&weights.t()) + &folded_bias;
        let after = hidden.dot(&transform.weights(&second.weights).unwrap().t());
        close(&after, &before, 1e-5);
    }
}

#[test]
fn a_rotation_is_orthonormal_and_spreads_an_outlier() {
    for channels in [12, 64, 140, 156] {
        let rotation = Rotation::hadamard(channels).unwrap().with_signs(11);
        let matrix = rotation.inputs(&Array2::<f32>::eye(channels)).unwrap();
        close(&matrix.dot(&matrix.t()), &Array2::eye(channels), 1e-5);
        let size = 1.0 / (channels as f32).sqrt();
        assert!(matrix.iter().all(|x| (x.abs() - size).abs() < 1e-6));
        let other = Rotation::hadamard(channels).unwrap().with_signs(12);
        assert_ne!(rotation, other);
        assert_eq!(rotation, other.with_signs(11));
    }
}

#[test]
fn powers_of_two_are_undone_bit_for_bit() {
    let layer = Layer::random(6, 24, 1, 5);
    let scales = scales(24).to_powers_of_two();
    let weights = scales.weights(&layer.weights).unwrap();
    assert_eq!(scales.restore_weights(&weights).unwrap(), layer.weights);
    let ends = array![f32::MIN_POSITIVE, f32::MAX, 3.0];
    let rounded = ChannelScales::new(ends).unwrap().to_powers_of_two();
    assert_eq!(rounded.scales()[2], 4.0);
    assert!(rounded.scales().iter().all(|scale| scale.is_normal()));
}

#[test]
fn any_layout_and_dimension_is_the_same_rows() {
    let x = Array3::from_shape_fn((3, 4, 8), |(i, j, k)| ((i * 32 + j * 8 + k) as f32).sin());
    for transform in transforms(8) {
        let whole = transform.inputs(&x).unwrap();
        let backwards = transform.inputs(&x.slice(s![..;-1, .., ..])).unwrap();
        assert_eq!(whole.slice(s![..;-1, .., ..]), backwards);
        for (rows, plane) in whole.outer_iter().zip(x.outer_iter()) {
            let columns = plane.t().to_owned();
            assert_eq!(transform.inputs(&columns.t()).unwrap(), rows);
        }
        let mut in_place = x.clone();
        transform.inputs_in_place(&mut in_place).unwrap();
        assert_eq!(in_place, whole);
        let mut in_place = x.clone();
        transform
            .inputs_in_place(&mut in_place.slice_mut(s![.., ..;-1, ..]))
            .unwrap();
        assert_eq!(in_place, whole);
        let none = transform.inputs(&Array2::<f32>::zeros((0, 8))).unwrap();
        assert_eq!(none.shape(), [0, 8]);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for transform in transforms(8) {
        let wrong = Array2::<f32>::zeros((2, 7));
        let refused = |error: Error| assert!(matches!(error, Error::ShapeMismatch { .. }));
        refused(transform.inputs(&wrong).unwrap_err());
        refused(transform.weights(&wrong).unwrap_err());
        refused(transform.outputs(&wrong).unwrap_err());
        refused(transform.hessian(&Hessian::new(7).unwrap()).unwrap_err());
        refused(transform.inputs(&ndarray::arr0(1.0_f32)).unwrap_err());
        for bad in [f32::NAN, f32::INFINITY] {
            let mut weights = Array2::<f32>::ones((8, 8));
            weights[[6, 2]] = bad;
            let error = transform.weights(&weights).unwrap_err();
            assert!(matches!(error, Error::NonFinite { .. }), "{error}");
            assert!(transform.outputs(&weights).is_err());
        }
    }
    for bad in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        let error = ChannelScales::new(array![1.0, bad]).unwrap_err();
        assert!(matches!(error, Error::InvalidScale { index: 1, .. }));
    }
    assert!(ChannelScales::new(array![]).is_err());
    let huge = ChannelScales::new(array![1e30]).unwrap();
    let error = huge.weights(&array![[1.0_f32], [1e10]]).unwrap_err();
    assert!(matches!(error, Error::NonFinite { position, .. } if position == [1, 0]));
    for (channels, size) in [
        (0, 1),
        (9, 2),
        (12, 0),
        (10, 10),
        (1 << 30, 2),
        (usize::MAX, 1),
    ] {
        assert!(
            Rotation::blocks(channels, size).is_err(),
            "{channels} {size}"
        );
    }
    let error = Rotation::hadamard(33).unwrap_err().to_string();
    assert!(error.contains("33"), "{error}");
    assert!(Chain::new(scales(4)).and(scales(5)).is_err());
}

#[test]
fn only_a_matrix_of_sums_of_products_is_a_hessian() {
    let good = Layer::random(1, 300, 40, 6).moments();
    let read = Hessian::from_matrix(&good, 40).unwrap();
    let delta = Array2::from_shape_fn((2, 300), |(o, i)| ((o * 7 + i) as f32).sin());
    let error = delta
        .mapv(f64::from)
        .dot(&good)
        .dot(&delta.mapv(f64::from).t());
    let expected = error[[0, 0]] + error[[1, 1]];
    assert!((read.error(&delta).unwrap() / expected - 1.0).abs() < 1e-9);
    assert!(Hessian::from_matrix(&good, 0).is_err());
    assert!(Hessian::from_matrix(&good.slice(s![..4, ..3]), 1).is_err());
    assert!(Hessian::from_matrix(&Array2::zeros((0, 0)), 1).is_err());
    for (at, bad) in [
        ([3, 3], f64::NAN),
        ([3, 3], -1.0),
        ([3, 5], f64::INFINITY),
        ([3, 5], 1e9),
        ([290, 2], good[[290, 290]].sqrt() * good[[2, 2]].sqrt()),
    ] {
        let mut matrix = good.clone();
        matrix[at] = bad;
        assert!(Hessian::from_matrix(&matrix, 40).is_err(), "{at:?} {bad}");
    }
}

#[cfg(feature = "serde")]
#[test]
fn stored_transforms_are_read_as_they_were_and_bad_ones_refused() {
    let rotation = Rotation::blocks(24, 12).unwrap().with_signs(9);
    let text = serde_json::to_string(&rotation).unwrap();
    assert_eq!(serde_json::from_str::<Rotation>(&text).unwrap(), rotation);
    let text = serde_json::to_string(&scales(3)).unwrap();
    assert_eq!(
        serde_json::from_str::<ChannelScales>(&text).unwrap(),
        scales(3)
    );
    for bad in ["[]", "[1.0, 0.0]", "[-1.0]", "[1e40]"] {
        assert!(serde_json::from_str::<ChannelScales>(bad).is_err(), "{bad}");
    }
    for bad in [
        r#"{"channels":24,"block":7,"seed":null}"#,
        r#"{"channels":1152921504606846976,"block":2,"seed":1}"#,
        r#"{"channels":0,"block":0,"seed":1}"#,
    ] {
        assert!(serde_json::from_str::<Rotation>(bad).is_err(), "{bad}");
    }
}
