//! Outputs and memory that the caller keeps, clamped outputs, and layers held to one thread.

use half::{bf16, f16};
use lowbit::{
    Activations, Affine, Error, PackedLinear, Requantization, Scheme, Workspace, quantize,
};
use ndarray::{Array2, Array3, s};

use super::support::{Random, layers, tensor};

fn dynamic(layer: PackedLinear) -> PackedLinear {
    let scheme = Scheme::int(8).per_row().build().unwrap();
    layer
        .with_activations(Activations::Dynamic(scheme))
        .unwrap()
}

#[test]
fn one_workspace_serves_layers_of_any_shape_one_after_the_other() {
    let mut random = Random(51);
    let mut workspace = Workspace::new();
    for (rows, outputs, depth) in [
        (9, 40, 300),
        (1, 7, 33),
        (0, 5, 8),
        (30, 90, 1_100),
        (2, 3, 0),
    ] {
        for bits in [3, 8] {
            let scheme = Scheme::int(bits).asymmetric().per_group(40);
            let weights = tensor(scheme.build().unwrap(), (outputs, depth), &mut random);
            let x = Array2::from_shape_simple_fn((rows, depth), || random.float());
            for layer in layers(&weights, None) {
                for layer in [layer.clone(), dynamic(layer)] {
                    // What is in the output before does not matter.
                    let mut out = Array2::from_elem((rows, outputs), f32::NAN);
                    layer.forward_into(&x, &mut out, &mut workspace).unwrap();
                    assert_eq!(out, layer.forward(&x).unwrap(), "{}", layer.kernel());
                    let mut strided = Array2::zeros((outputs, rows)).reversed_axes();
                    layer
                        .forward_into(&x, &mut strided, &mut workspace)
                        .unwrap();
                    assert_eq!(strided, out);
                    let half = x.mapv(f16::from_f32);
                    let mut small = Array2::from_elem((rows, outputs), f16::ZERO);
                    layer
                        .forward_into(&half, &mut small, &mut workspace)
                        .unwrap();
                    let wide = layer.forward(&half.mapv(f16::to_f32)).unwrap();
                    assert_eq!(small, wide.mapv(f16::from_f32));
                }
            }
        }
    }
}

#[test]
fn an_output_of_another_shape_is_refused() {
    let weights = tensor(Scheme::int(4).build().unwrap(), (5, 8), &mut Random(52));
    let layer = PackedLinear::pack(&weights, None).unwrap();
    let x = Array3::<f32>::zeros((2, 3, 8));
    for shape in [(2, 3, 8), (3, 2, 5), (2, 3, 4)] {
        let mut out = Array3::zeros(shape);
        let error = layer.forward_into(&x, &mut out, &mut Workspace::new());
        assert!(matches!(
            error,
            Err(Error::ShapeMismatch { what: "output", .. })
        ));
    }
}

#[test]
fn a_clamp_limits_outputs_of_every_type_and_keeps_nan() {
    let mut random = Random(53);
    let weights = tensor(
        Scheme::int(4).per_group(32).build().unwrap(),
        (21, 70),
        &mut random,
    );
    let mut x = Array2::from_shape_simple_fn((6, 70), || random.float());
    let bias: Vec<f32> = (0..21).map(|_| random.float()).collect();
    let output = Scheme::int(8).asymmetric().build().unwrap();
    let output = Affine::per_tensor(output, 0.5, -3.0).unwrap();
    let to_codes = Requantization::float(output.clone()).unwrap();
    for layer in layers(&weights, Some(&bias)) {
        for layer in [layer.clone(), dynamic(layer)] {
            let free = layer.forward(&x).unwrap();
            let limit = free.iter().fold(0.0_f32, |most, value| most.max(*value)) / 2.0;
            let relu = layer.clone().with_clamp(0.0, limit).unwrap();
            let expected = free.mapv(|value| value.clamp(0.0, limit));
            assert!(expected.iter().any(|&v| v == 0.0) && expected.iter().any(|&v| v == limit));
            assert_eq!(relu.forward(&x).unwrap(), expected);
            let codes: Array2<i8> = relu.forward_requantized(&x, &to_codes).unwrap();
            assert_eq!(codes, quantize::<_, i8, _>(&expected, &output).unwrap());
            let small = relu.forward(&x.mapv(bf16::from_f32)).unwrap();
            let wide = relu
                .forward(&x.mapv(|v| bf16::from_f32(v).to_f32()))
                .unwrap();
            assert_eq!(small, wide.mapv(bf16::from_f32));
        }
    }
    x[[4, 3]] = f32::NAN;
    let layer = PackedLinear::pack(&weights, None)
        .unwrap()
        .with_clamp(0.0, 1.0)
        .unwrap();
    let y = layer.forward(&x).unwrap();
    assert!(y.slice(s![4, ..]).iter().all(|value| value.is_nan()));
    assert!(
        y.slice(s![..4, ..])
            .iter()
            .all(|value| (0.0..=1.0).contains(value))
    );
    // Codes cannot be NaN: the first one is told by its place.
    let error = layer
        .forward_requantized::<_, i8, _>(&x, &to_codes)
        .unwrap_err();
    let Error::NonFinite { position, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(position, [4, 0]);
    let constant = layer.clone().with_clamp(0.5, 0.5).unwrap();
    assert_eq!(constant.forward(&x.row(0)).unwrap()[3], 0.5);
    for (min, max) in [(1.0, 0.0), (f32::NAN, 1.0), (0.0, f32::NAN)] {
        let refused = layer.clone().with_clamp(min, max);
        assert!(
            matches!(refused, Err(Error::InvalidRange { .. })),
            "{min} {max}"
        );
    }
}

#[test]
fn a_clamp_in_fixed_point_is_one_of_the_codes() {
    let mut random = Random(54);
    let weights = tensor(
        Scheme::int(8).per_axis(0).build().unwrap(),
        (21, 70),
        &mut random,
    );
    let scheme = Scheme::int(8).asymmetric().build().unwrap();
    let input = Affine::per_tensor(scheme, 0.02, 5.0).unwrap();
    let x = Array2::from_shape_simple_fn((6, 70), || random.float());
    for layer in layers(&weights, None) {
        let layer = layer
            .with_activations(Activations::Static(input.clone()))
            .unwrap();
        let floats = layer.forward(&x).unwrap();
        let most = floats
            .iter()
            .fold(0.0_f32, |most, value| most.max(value.abs()));
        let output = Affine::per_tensor(scheme, most / 100.0, -20.0).unwrap();
        let fixed = Requantization::fixed_point(output).unwrap();
        let free: Array2<i8> = layer.forward_requantized(&x, &fixed).unwrap();
        let relu = layer.with_clamp(0.0, f32::INFINITY).unwrap();
        let codes: Array2<i8> = relu.forward_requantized(&x, &fixed).unwrap();
        assert_eq!(codes, free.mapv(|code| code.max(-20)));
        assert!(free.iter().any(|&code| code < -20));
    }
}

#[test]
fn the_place_of_a_bad_activation_is_that_in_the_array() {
    let weights = tensor(Scheme::int(4).build().unwrap(), (5, 300), &mut Random(55));
    for granularity in [Scheme::int(8), Scheme::int(8).per_row()] {
        let activations = Activations::Dynamic(granularity.build().unwrap());
        let layer = PackedLinear::pack(&weights, None).unwrap();
        let layer = layer.with_activations(activations).unwrap();
        for value in [f32::NAN, f32::INFINITY] {
            let mut x = Array3::<f32>::zeros((2, 3, 300));
            x[[1, 0, 290]] = value;
            let error = layer.forward(&x).unwrap_err();
            let Error::NonFinite { position, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(position, [1, 0, 290]);
        }
    }
}

#[test]
fn a_nan_under_known_parameters_is_named_where_infinities_saturate() {
    let weights = tensor(Scheme::int(4).build().unwrap(), (5, 700), &mut Random(57));
    let input = Affine::per_tensor(Scheme::int(8).build().unwrap(), 0.1, 0.0).unwrap();
    for layer in layers(&weights, None) {
        let activations = Activations::Static(input.clone());
        let layer = layer.with_activations(activations).unwrap();
        let mut x = Array3::<f32>::zeros((2, 3, 700));
        x[[0, 1, 3]] = f32::INFINITY;
        x[[1, 2, 5]] = f32::NEG_INFINITY;
        let ends = x.mapv(|x| x.clamp(-12.8, 12.7));
        assert_eq!(layer.forward(&x).unwrap(), layer.forward(&ends).unwrap());
        x[[1, 2, 690]] = f32::NAN;
        let error = layer.forward(&x).unwrap_err();
        let Error::NonFinite { position, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(position, [1, 2, 690]);
    }
}

#[test]
fn a_row_whose_range_has_no_scale_is_named() {
    let weights = tensor(Scheme::int(4).build().unwrap(), (5, 40), &mut Random(58));
    let scheme = Scheme::int(8).scale_kind(lowbit::ScaleKind::F16);
    for (scheme, named) in [(scheme.per_row(), 4), (scheme, 0)] {
        let activations = Activations::Dynamic(scheme.build().unwrap());
        for layer in layers(&weights, None) {
            let layer = layer.with_activations(activations.clone()).unwrap();
            let mut x = Array3::<f32>::ones((2, 3, 40));
            x[[1, 1, 7]] = 1e30;
            let error = layer.forward(&x).unwrap_err();
            let Error::InvalidScale { index, .. } = error else {
                panic!("{error}");
            };
            assert_eq!(index, named);
        }
    }
}

#[test]
#[cfg_attr(target_family = "wasm", ignore = "there is one thread")]
fn a_layer_held_to_one_thread_gives_the_same_bits() {
    let mut random = Random(56);
    let weights = tensor(
        Scheme::int(4).per_group(32).build().unwrap(),
        (900, 700),
        &mut random,
    );
    let x = Array2::from_shape_simple_fn((20, 700), || random.float());
    for layer in layers(&weights, None) {
        for layer in [layer.clone(), dynamic(layer)] {
            let all = layer.forward(&x).unwrap();
            for threads in [0, 1, 2] {
                assert_eq!(
                    layer.clone().with_threads(threads).forward(&x).unwrap(),
                    all
                );
            }
        }
    }
}
