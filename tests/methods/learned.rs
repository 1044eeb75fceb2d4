//! Learned codes: against exhaustive searches, a loop written out here, and the law that no row gets
//! worse.

use lowbit::{
    Affine, Error, FloatFormat, QTensor, Quantizer, QuantizerExt, RoundToNearest, Scheme,
    SchemeBuilder,
    affine::scalar,
    calibrate::MeanSquaredError,
    observe::Hessian,
    ptq::{AdaRound, QuantEase, SignRound},
};
use ndarray::{Array1, Array2, ArrayView1, Axis, Ix2};

use super::support::Layer;

fn nearest(scheme: Scheme) -> RoundToNearest {
    RoundToNearest::new(scheme).with_calibrator(MeanSquaredError::default())
}

fn image(quantized: &QTensor) -> Array2<f32> {
    quantized.dequantize().into_dimensionality::<Ix2>().unwrap()
}

/// `δ H δᵀ` of a row, in f64.
fn row_error(moments: &Array2<f64>, image: &[f32], weights: ArrayView1<'_, f32>) -> f64 {
    let pairs = image.iter().zip(weights);
    let change: Array1<f64> = pairs.map(|(&x, &w)| f64::from(x) - f64::from(w)).collect();
    moments.dot(&change).dot(&change)
}

/// The least error of a row over all codes of each weight.
fn exhaustive(moments: &Array2<f64>, weights: ArrayView1<'_, f32>, choices: &[Vec<f32>]) -> f64 {
    let all: usize = choices.iter().map(Vec::len).product();
    (0..all)
        .map(|mut index| {
            let picked: Vec<f32> = choices
                .iter()
                .map(|values| {
                    let value = values[index % values.len()];
                    index /= values.len();
                    value
                })
                .collect();
            row_error(moments, &picked, weights)
        })
        .fold(f64::INFINITY, f64::min)
}

#[test]
fn tiny_layers_come_near_the_best_of_all_codes() {
    let (mut best, mut best_next) = (0.0, 0.0);
    let (mut ease, mut ada, mut sign, mut plain) = (0.0, 0.0, 0.0, 0.0);
    for seed in 0..12 {
        let layer = Layer::random(4, 6, 60, seed);
        let (hessian, moments) = (layer.hessian(), layer.moments());
        let scheme = Scheme::int(2).asymmetric().per_axis(0).build().unwrap();
        let start = nearest(scheme);
        let affine = start.quantize(&layer.weights).unwrap().affine();
        for (row, weights) in layer.weights.rows().into_iter().enumerate() {
            let (scale, zero) = (affine.scale()[row], affine.zero_point()[row]);
            let value = |code: f32| (code.clamp(-2.0, 1.0) - zero) * scale;
            let every = vec![[-2.0, -1.0, 0.0, 1.0].map(value).to_vec(); 6];
            best += exhaustive(&moments, weights, &every);
            let next: Vec<Vec<f32>> = weights
                .iter()
                .map(|w| (w / scale).floor() + zero)
                .map(|floor| [floor, floor + 1.0].map(value).to_vec())
                .collect();
            best_next += exhaustive(&moments, weights, &next);
        }
        let error = |quantizer: &dyn Quantizer| {
            layer.output_error(&image(&quantizer.quantize(&layer.weights).unwrap()))
        };
        plain += error(&start);
        let fixed = QuantEase::after(start.clone(), &hessian).with_parameters_of_start();
        ease += error(&fixed);
        ada += error(&AdaRound::new(scheme, &hessian).with_start(start.clone()));
        sign += error(&SignRound::new(scheme, &hessian).with_start(start.clone()));
    }
    // No method with the scales of the start can be better than the best there is.
    assert!(ease >= best * (1.0 - 1e-4) && ada >= best_next * (1.0 - 1e-4));
    assert!(ease < 1.5 * best, "{ease} {best} {plain}");
    assert!(ada < 1.3 * best_next, "{ada} {best_next} {plain}");
    assert!(
        sign < 0.5 * plain && ease < 0.7 * plain,
        "{sign} {ease} {plain}"
    );
}

#[test]
fn the_descent_ends_where_a_loop_in_doubles_does() {
    let layer = Layer::random(12, 40, 200, 3);
    let (hessian, moments) = (layer.hessian(), layer.moments());
    let scheme = Scheme::int(3).asymmetric().per_group(16).build().unwrap();
    let start = nearest(scheme).quantize(&layer.weights).unwrap();
    let (affine, mut x) = (start.affine(), image(&start));
    let groups = affine.groups(&[12, 40]).unwrap();
    for row in 0..12 {
        loop {
            let mut moved = false;
            for column in 0..40 {
                let parameter = groups.parameter_of(row * 40 + column);
                let (s, z) = (affine.scale()[parameter], affine.zero_point()[parameter]);
                let change: Array1<f64> = (0..40)
                    .map(|j| f64::from(x[[row, j]]) - f64::from(layer.weights[[row, j]]))
                    .collect();
                let slope = moments.row(column).dot(&change);
                let bottom = f64::from(x[[row, column]]) - slope / moments[[column, column]];
                let code = scalar::quantize(bottom, s, z, &scheme);
                let value: f32 = scalar::dequantize(code, s, z, &scheme);
                let step = f64::from(value) - f64::from(x[[row, column]]);
                let fall = step * (2.0 * slope + step * moments[[column, column]]);
                if fall < -1e-9 {
                    moved = true;
                    x[[row, column]] = value;
                }
            }
            if !moved {
                break;
            }
        }
    }
    let ease = QuantEase::after(nearest(scheme), &hessian)
        .with_parameters_of_start()
        .with_sweeps(100);
    let ours = layer.output_error(&image(&ease.quantize(&layer.weights).unwrap()));
    let expected = layer.output_error(&x);
    assert!((ours / expected - 1.0).abs() < 0.01, "{ours} {expected}");
    // Scales that move along get further.
    let moving = QuantEase::after(nearest(scheme), &hessian);
    let moving = layer.output_error(&image(&moving.quantize(&layer.weights).unwrap()));
    assert!(moving < 0.95 * ours, "{moving} {ours}");
}

fn schemes() -> Vec<Scheme> {
    let all: [SchemeBuilder; 10] = [
        Scheme::int(4).per_axis(0),
        Scheme::int(3).narrow_range().per_group(13),
        Scheme::int(3).unsigned().asymmetric().per_group(13),
        Scheme::int(2).asymmetric_float().per_group(16),
        Scheme::int(1).unsigned().asymmetric_float().per_axis(0),
        Scheme::int(4).per_tensor(),
        Scheme::int(4).asymmetric().per_block(3, 16),
        Scheme::int(4).per_axis(1),
        Scheme::int(3).per_row().scale_kind(lowbit::ScaleKind::F16),
        Scheme::int(3)
            .per_group(16)
            .scale_kind(lowbit::ScaleKind::PowerOfTwo),
    ];
    all.map(|scheme| scheme.build().unwrap()).to_vec()
}

#[test]
fn no_row_gets_worse_and_the_layer_gets_better_under_every_scheme() {
    let layer = Layer::random(66, 30, 90, 4);
    let (hessian, moments) = (layer.hessian(), layer.moments());
    let errors = |quantized: &QTensor| -> Vec<f64> {
        let image = image(quantized);
        let rows = image.rows().into_iter().zip(layer.weights.rows());
        rows.map(|(x, w)| row_error(&moments, &x.to_vec(), w))
            .collect()
    };
    for scheme in schemes() {
        let start = nearest(scheme);
        let before = errors(&start.quantize(&layer.weights).unwrap());
        let methods: [Box<dyn Quantizer + '_>; 3] = [
            Box::new(QuantEase::after(start.clone(), &hessian)),
            Box::new(
                SignRound::new(scheme, &hessian)
                    .with_start(start.clone())
                    .with_steps(60),
            ),
            Box::new(
                AdaRound::new(scheme, &hessian)
                    .with_start(start.clone())
                    .with_steps(40, 0.1)
                    .unwrap(),
            ),
        ];
        for method in methods {
            let quantized = method.quantize(&layer.weights).unwrap();
            assert_eq!(*quantized.scheme(), scheme);
            let after = errors(&quantized);
            for (after, before) in after.iter().zip(&before) {
                assert!(*after <= before * (1.0 + 1e-4), "{scheme} {after} {before}");
            }
            let total = |errors: &[f64]| errors.iter().sum::<f64>();
            assert!(total(&after) < 0.9 * total(&before), "{scheme} {method:?}");
            // What is packed is what was counted: the codes are codes, the parameters can be stored.
            let affine = quantized.affine();
            let (scale, zero) = (affine.scale().to_vec(), affine.zero_point().to_vec());
            assert!(Affine::new(scheme, affine.shape(), scale, zero).is_ok());
        }
    }
    // Small floats have codes too.
    let float = Scheme::float(FloatFormat::E2M1)
        .per_group(16)
        .build()
        .unwrap();
    let ease = QuantEase::new(float, &hessian)
        .quantize(&layer.weights)
        .unwrap();
    let plain = nearest(float).quantize(&layer.weights).unwrap();
    assert!(layer.output_error(&image(&ease)) < 0.7 * layer.output_error(&image(&plain)));
    for refused in [
        SignRound::new(float, &hessian).quantize(&layer.weights),
        AdaRound::new(float, &hessian).quantize(&layer.weights),
    ] {
        assert!(matches!(refused, Err(Error::Unsupported { .. })));
    }
}

#[test]
fn hessians_and_weights_that_are_no_use_are_refused_or_change_nothing() {
    let layer = Layer::random(5, 20, 60, 5);
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let plain = nearest(scheme).quantize(&layer.weights).unwrap();
    let empty = Hessian::new(20).unwrap();
    let mut zero = Hessian::new(20).unwrap();
    zero.observe(&Array2::<f32>::zeros((9, 20))).unwrap();
    for hessian in [&empty, &zero] {
        let methods: [Box<dyn Quantizer + '_>; 3] = [
            Box::new(QuantEase::after(nearest(scheme), hessian)),
            Box::new(SignRound::new(scheme, hessian).with_start(nearest(scheme))),
            Box::new(AdaRound::new(scheme, hessian).with_start(nearest(scheme))),
        ];
        for method in methods {
            assert_eq!(method.quantize(&layer.weights).unwrap(), plain);
            let none = method.quantize(&Array2::<f32>::zeros((0, 20))).unwrap();
            assert!(none.is_empty());
        }
    }
    // A channel that no input reached keeps its rounding; huge and tiny inputs change nothing.
    let mut dead = layer.inputs.clone();
    dead.column_mut(7).fill(0.0);
    let mut seen = Vec::new();
    for unit in [1.0, 1e15, 1e-15] {
        let mut hessian = Hessian::new(20).unwrap();
        hessian.observe(&(&dead * unit)).unwrap();
        let ease = QuantEase::after(nearest(scheme), &hessian).with_parameters_of_start();
        let codes = ease
            .quantize(&layer.weights)
            .unwrap()
            .codes::<i8>()
            .unwrap();
        let before = plain.codes::<i8>().unwrap();
        let channel = |codes: &ndarray::ArrayD<i8>| codes.index_axis(Axis(1), 7).to_owned();
        assert_eq!(channel(&codes), channel(&before));
        seen.push(codes);
    }
    assert_ne!(seen[0], plain.codes::<i8>().unwrap());
    let hessian = layer.hessian();
    let ease = QuantEase::new(scheme, &hessian);
    let mut nan = layer.weights.clone();
    nan[[2, 3]] = f32::NAN;
    let error = ease.quantize(&nan).unwrap_err();
    assert!(matches!(error, Error::NonFinite { position, .. } if position == [2, 3]));
    for wrong in [Array2::<f32>::zeros((5, 19)), Array2::zeros((20, 5))] {
        assert!(matches!(
            ease.quantize(&wrong),
            Err(Error::ShapeMismatch { .. })
        ));
    }
    assert!(ease.quantize(&Array1::<f32>::zeros(20)).is_err());
    assert!(
        AdaRound::new(scheme, &hessian)
            .with_steps(1, f32::NAN)
            .is_err()
    );
    assert!(AdaRound::new(scheme, &hessian).with_penalty(-1.0).is_err());
    for extreme in [1e30, 1e-36, 0.0] {
        let image = image(&ease.quantize(&(&layer.weights * extreme)).unwrap());
        assert!(image.iter().all(|w| w.is_finite()));
    }
    let none = SignRound::new(scheme, &hessian)
        .with_start(nearest(scheme))
        .with_steps(0);
    assert_eq!(none.quantize(&layer.weights).unwrap(), plain);
}
