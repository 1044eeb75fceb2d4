//! What holds for every layer.

use lowbit::{
    Error, FloatFormat, Granularity, Mapping, QTensor, Quantizer, QuantizerExt, Range,
    RoundToNearest, ScaleKind, Scheme,
    calibrate::{Calibrator, MeanSquaredError},
    observe::{Hessian, InputDeviation, Statistics},
    ptq::{
        Gptq,
        gptq::{GroupFit, Order, Outcome, RangeWeights, Reason, Warning},
    },
};
use ndarray::{Array2, Axis, Ix2, array, s};
use proptest::prelude::*;

use crate::support::{Numbers, on_threads, square};

fn observed(inputs: &Array2<f32>) -> Hessian {
    let mut hessian = Hessian::new(inputs.ncols()).unwrap();
    hessian.observe(inputs).unwrap();
    hessian
}

fn displacement(weights: &Array2<f32>, quantized: &QTensor) -> Array2<f32> {
    let values = quantized.dequantize::<f32>();
    weights - &values.into_dimensionality::<Ix2>().unwrap()
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let mapping = prop_oneof![
        Just(Mapping::Symmetric),
        Just(Mapping::SymmetricHalfRange),
        Just(Mapping::Asymmetric),
        Just(Mapping::AsymmetricFloat),
    ];
    let scale_kind = prop_oneof![
        Just(ScaleKind::F32),
        Just(ScaleKind::F16),
        Just(ScaleKind::PowerOfTwo),
    ];
    let granularity = prop_oneof![
        Just(Granularity::PerTensor),
        (0..2_usize).prop_map(Granularity::PerAxis),
        (1..40_usize).prop_map(Granularity::PerGroup),
        (0..2_usize, 1..9_usize).prop_map(|(axis, size)| Granularity::PerGroupAlong { axis, size }),
        (1..5_usize, 1..5_usize)
            .prop_map(|(rows, columns)| Granularity::PerBlock { rows, columns }),
        Just(Granularity::PerRow),
    ];
    let builder = (2_u32..=8, any::<bool>(), mapping, any::<bool>());
    (builder, scale_kind, granularity).prop_map(
        |((bits, is_float, mapping, unsigned), scale_kind, granularity)| {
            let builder = match (is_float, unsigned) {
                (true, _) => Scheme::float(FloatFormat::E2M1),
                (_, true) => Scheme::int(bits).unsigned().mapping(mapping),
                (_, false) => Scheme::int(bits).mapping(mapping),
            };
            let builder = builder.scale_kind(scale_kind).granularity(granularity);
            builder.build().unwrap()
        },
    )
}

/// A layer and its inputs: few or many tokens, dead columns, columns that are copies of others, loud
/// ones, and any magnitude.
fn layers() -> impl Strategy<Value = (Array2<f32>, Array2<f32>)> {
    let sizes = (1..7_usize, 1..70_usize, 1..90_usize);
    (sizes, any::<u64>(), 0..6_u32, -15..15_i32, -15..15_i32).prop_map(
        |((rows, columns, tokens), seed, kind, input_exponent, weight_exponent)| {
            let mut numbers = Numbers(seed);
            let mut inputs = numbers.inputs(tokens, columns);
            let mut weights = numbers.matrix(rows, columns);
            match kind {
                0 => inputs.slice_mut(s![.., ..;3]).fill(0.0),
                1 if columns > 1 => {
                    let copy = inputs.slice(s![.., ..columns / 2]).to_owned();
                    inputs
                        .slice_mut(s![.., columns - columns / 2..])
                        .assign(&copy);
                }
                2 => {
                    let line = inputs.row(0).to_owned();
                    for (token, mut row) in inputs.rows_mut().into_iter().enumerate() {
                        row.assign(&(&line * (1.0 + token as f32)));
                    }
                }
                3 => weights.slice_mut(s![.., 0]).fill(40.0),
                4 => weights.slice_mut(s![0, ..]).fill(0.0),
                _ => {}
            }
            let scaled = inputs * 10.0_f32.powi(input_exponent);
            (weights * 10.0_f32.powi(weight_exponent), scaled)
        },
    )
}

fn orders() -> impl Strategy<Value = Order> {
    prop_oneof![
        Just(Order::Natural),
        Just(Order::Activation),
        Just(Order::GroupAware)
    ]
}

fn fits() -> impl Strategy<Value = GroupFit> {
    prop_oneof![
        Just(GroupFit::Fresh),
        Just(GroupFit::Stale),
        Just(GroupFit::Static)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_row_is_worse_than_rounded_to_nearest(
        (weights, inputs) in layers(),
        scheme in schemes(),
        order in orders(),
        fit in fits(),
        clips in any::<bool>(),
        damping in prop_oneof![Just(0.0), Just(1e-6), Just(0.01), Just(0.5)],
        beta in prop_oneof![3 => Just(0.0_f32), 1 => Just(0.2)],
        row_search in prop_oneof![2 => Just(0_u16), 1 => 1..6_u16],
    ) {
        let hessian = observed(&inputs);
        let mut gptq = Gptq::new(scheme, &hessian)
            .with_order(order)
            .with_group_fit(fit)
            .with_row_search(row_search)
            .with_damping(damping)
            .and_then(|gptq| gptq.with_first_order(beta))
            .unwrap();
        let mut rounding = RoundToNearest::new(scheme);
        if clips {
            gptq = gptq.with_calibrator(MeanSquaredError::default());
            rounding = rounding.with_calibrator(MeanSquaredError::default());
        }
        let rounded = match rounding.quantize(&weights) {
            Ok(rounded) => rounded,
            // Scales of 16 bits do not hold every range.
            Err(_) => return Ok(()),
        };
        let (quantized, report) = gptq.quantize_with_report(&weights).unwrap();
        let delta = displacement(&weights, &quantized);
        prop_assert!(delta.iter().all(|x| x.is_finite()));
        let errors = hessian.row_errors(&delta).unwrap();
        let limits = hessian.row_errors(&displacement(&weights, &rounded)).unwrap();
        for (row, (error, limit)) in errors.iter().zip(&limits).enumerate() {
            // Rounding noise of the errors themselves: that of the squares they are made of.
            let noise: f64 = delta
                .row(row)
                .iter()
                .zip(hessian.diagonal())
                .map(|(&d, h)| f64::from(d) * f64::from(d) * h)
                .sum();
            prop_assert!(*error <= limit * (1.0 + 1e-6) + 1e-6 * noise, "{error} {limit} {report}");
        }
        approx::assert_relative_eq!(
            report.rounding_error,
            limits.sum(),
            max_relative = 1e-2,
            epsilon = 1e-3 * limits.sum(),
        );
        prop_assert!(report.output_error <= report.rounding_error);
    }

    #[test]
    fn asymmetric_calibration_is_no_worse_than_rounding_from_where_the_float_model_is(
        (weights, inputs) in layers(),
        scheme in schemes(),
        order in orders(),
        seed in any::<u64>(),
        alpha in 0.0..1.0_f64,
        row_search in prop_oneof![2 => Just(0_u16), 1 => 1..6_u16],
    ) {
        let (tokens, columns) = inputs.dim();
        let size = inputs.iter().fold(0.0_f32, |size, x| size.max(x.abs()));
        let strayed = &inputs + &(Numbers(seed).matrix(tokens, columns) * (0.1 * size));
        let mut deviation = InputDeviation::new(columns).unwrap();
        deviation.observe(&inputs, &strayed).unwrap();
        let gptq = Gptq::asymmetric(scheme, &deviation)
            .with_order(order)
            .with_row_search(row_search)
            .with_alpha(alpha)
            .unwrap();
        let Ok(rounded) = RoundToNearest::new(scheme).quantize(&weights) else {
            return Ok(());
        };
        let quantized = gptq.quantize(&weights).unwrap();
        let wide = |x: &Array2<f32>| x.mapv(f64::from);
        let target = wide(&inputs).dot(&wide(&weights).t());
        let errors = |quantized: &QTensor| {
            let values = quantized.dequantize::<f64>().into_dimensionality::<Ix2>().unwrap();
            let outputs = wide(&strayed).dot(&values.t()) - &target;
            outputs.columns().into_iter().map(|y| y.dot(&y)).collect::<Vec<_>>()
        };
        for (row, (error, limit)) in errors(&quantized).iter().zip(errors(&rounded)).enumerate() {
            let noise: f64 = target.column(row).dot(&target.column(row));
            prop_assert!(*error <= limit * (1.0 + 1e-5) + 1e-5 * noise, "{error} {limit}");
        }
    }
}

/// A calibrator at a multiple of its range.
#[derive(Debug)]
struct Multiple(f32);

impl Calibrator for Multiple {
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> lowbit::Result<Range> {
        let range = MeanSquaredError::default().range(statistics, scheme)?;
        Range::new(range.min() * self.0, range.max() * self.0)
    }
}

/// Each row of a search is the best of those that GPTQ makes of it under each multiple alone.
#[test]
fn a_row_search_keeps_the_best_multiple_of_each_row() {
    let inputs = Numbers(31).inputs(300, 40);
    let weights = Numbers(32).matrix(150, 40);
    let strayed = &inputs + &(Numbers(33).matrix(300, 40) * 0.3);
    let mut deviation = InputDeviation::new(40).unwrap();
    deviation.observe(&inputs, &strayed).unwrap();
    let wide = |x: &Array2<f32>| x.mapv(f64::from);
    let target = wide(&inputs).dot(&wide(&weights).t());
    let three = Scheme::int(3).per_axis(0);
    for scheme in [three, three.asymmetric()].map(|scheme| scheme.build().unwrap()) {
        // What a row is judged by: outputs from those of the same inputs, or of the float model's.
        let errors = |is_asymmetric: bool, quantized: &QTensor| {
            let values = quantized.dequantize::<f64>().into_dimensionality::<Ix2>();
            let outputs = wide(&strayed).dot(&values.unwrap().t());
            let own_target = wide(&strayed).dot(&wide(&weights).t());
            let errors = outputs - if is_asymmetric { &target } else { &own_target };
            errors.map_axis(Axis(0), |y| y.dot(&y))
        };
        for is_asymmetric in [false, true] {
            let gptq = if is_asymmetric {
                Gptq::asymmetric(scheme, &deviation)
            } else {
                Gptq::new(scheme, deviation.hessian())
            };
            let gptq = gptq.with_damping(0.0).unwrap();
            // Rows that are worse than rounded under the same range come back rounded, under each
            // multiple for itself; a search rounds them under the range itself alone.
            let run = |multiple: f32| {
                let gptq = gptq.clone().with_calibrator(Multiple(multiple));
                let mut found = errors(is_asymmetric, &gptq.quantize(&weights).unwrap());
                if multiple != 1.0 {
                    let rounding = RoundToNearest::new(scheme).with_calibrator(Multiple(multiple));
                    let rounded = errors(is_asymmetric, &rounding.quantize(&weights).unwrap());
                    found.zip_mut_with(&rounded, |found, &rounded| {
                        if (*found - rounded).abs() < 1e-9 * rounded {
                            *found = f64::INFINITY;
                        }
                    });
                }
                found
            };
            let each = [1.0, 0.7, 0.95, 1.2].map(run);
            let searched = gptq
                .clone()
                .with_calibrator(Multiple(1.0))
                .with_row_search(3);
            let found = errors(is_asymmetric, &searched.quantize(&weights).unwrap());
            let mut chosen = [0; 4];
            for (row, &found) in found.iter().enumerate() {
                let all = each.each_ref().map(|errors| errors[row]);
                let least = all.into_iter().fold(f64::INFINITY, f64::min);
                approx::assert_relative_eq!(found, least, max_relative = 1e-3);
                chosen[all.iter().position(|&error| error == least).unwrap()] += 1;
            }
            assert!(
                chosen.iter().filter(|&&rows| rows > 0).count() >= 3,
                "{chosen:?}"
            );
        }
    }
}

/// The least error of all `4⁶` assignments of 2-bit codes to a row of six weights.
#[test]
fn six_weights_come_close_to_the_best_of_all_codes() {
    let scheme = Scheme::int(2).asymmetric().per_axis(0).build().unwrap();
    let (mut gptq, mut rounding, mut best) = (0.0, 0.0, 0.0);
    let mut optimal = 0;
    for seed in 0..200 {
        let mut numbers = Numbers(seed);
        let inputs = numbers.matrix(20, 3).dot(&numbers.matrix(3, 6)) + numbers.matrix(20, 6) * 0.7;
        let weights = numbers.matrix(1, 6);
        let hessian = observed(&inputs);
        let h = square(&inputs);
        let error = |values: &[f64]| {
            let delta =
                Array2::from_shape_fn((1, 6), |(_, j)| f64::from(weights[[0, j]]) - values[j]);
            delta.dot(&h).dot(&delta.t())[[0, 0]]
        };
        let error_of =
            |quantized: &QTensor| error(&quantized.dequantize::<f64>().into_raw_vec_and_offset().0);
        let rounded = RoundToNearest::new(scheme).quantize(&weights).unwrap();
        let quantized = Gptq::new(scheme, &hessian)
            .with_group_fit(GroupFit::Static)
            .quantize(&weights)
            .unwrap();
        let parameter = rounded.affine().parameter(0).unwrap();
        let (scale, zero) = (f64::from(parameter.scale), f64::from(parameter.zero_point));
        let least = (0..4096_u32)
            .map(|codes| {
                let code = |j: u32| f64::from((codes >> (2 * j)) & 3) - 2.0;
                error(&[0, 1, 2, 3, 4, 5].map(|j| (code(j) - zero) * scale))
            })
            .fold(f64::INFINITY, f64::min);
        let (own, limit) = (error_of(&quantized), error_of(&rounded));
        assert!(own <= limit * (1.0 + 1e-9), "{seed}");
        assert!(own >= least * (1.0 - 1e-9), "{seed}");
        optimal += usize::from(own <= least * (1.0 + 1e-9));
        (gptq, rounding, best) = (gptq + own, rounding + limit, best + least);
    }
    println!("{optimal} optimal; {gptq} {rounding} {best}");
    assert!(
        gptq < 1.3 * best && rounding > 2.0 * best,
        "{gptq} {rounding} {best}"
    );
    assert!(optimal > 60, "{optimal} of 200");
}

#[test]
fn threads_change_no_bit() {
    let inputs = Numbers(1).inputs(500, 280);
    let strayed = &inputs + &(Numbers(2).matrix(500, 280) * 0.3);
    let weights = Numbers(3).matrix(300, 280);
    let run = |threads| {
        on_threads(threads, || {
            let mut deviation = InputDeviation::new(280).unwrap();
            deviation.observe(&inputs, &strayed).unwrap();
            let scheme = Scheme::int(3).per_group(48).build().unwrap();
            [
                Gptq::new(scheme, deviation.hessian()),
                Gptq::asymmetric(scheme, &deviation),
            ]
            .map(|gptq| {
                let gptq = gptq.with_calibrator(MeanSquaredError::default());
                gptq.quantize_with_report(&weights).unwrap()
            })
        })
    };
    let alone = run(1);
    assert_eq!(run(2), alone);
    assert_eq!(run(5), alone);
}

#[test]
fn groups_larger_than_a_block_begin_one_and_end_one() {
    let inputs = Numbers(16).inputs(500, 440);
    let hessian = observed(&inputs);
    let weights = Numbers(17).matrix(5, 440);
    // Groups of 200, 200 and 40: no group begins within a block, so that nothing is ever stale.
    let scheme = Scheme::int(3).per_group(200).build().unwrap();
    let fitted = |fit| {
        let gptq = Gptq::new(scheme, &hessian).with_group_fit(fit);
        gptq.quantize(&weights).unwrap()
    };
    assert_eq!(fitted(GroupFit::Stale), fitted(GroupFit::Fresh));
    assert_ne!(fitted(GroupFit::Static), fitted(GroupFit::Fresh));
}

#[test]
fn weights_of_any_layout_give_the_same() {
    let inputs = Numbers(4).inputs(100, 40);
    let hessian = observed(&inputs);
    let weights = Numbers(5).matrix(7, 40);
    let gptq = Gptq::new(Scheme::int(3).per_group(16).build().unwrap(), &hessian);
    let expected = gptq.quantize(&weights).unwrap();
    let transposed = weights.t().to_owned();
    assert_eq!(gptq.quantize(&transposed.t()).unwrap(), expected);
    let mut doubled = Array2::zeros((14, 80));
    doubled.slice_mut(s![..;2, ..;2]).assign(&weights);
    assert_eq!(
        gptq.quantize(&doubled.slice(s![..;2, ..;2])).unwrap(),
        expected
    );
    let boxed: Box<dyn Quantizer + '_> = Box::new(gptq);
    assert_eq!(boxed.quantize(&weights).unwrap(), expected);
}

#[test]
fn without_a_signal_weights_are_rounded_and_the_report_says_why() {
    let weights = Numbers(6).matrix(5, 12);
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let rounded = RoundToNearest::new(scheme).quantize(&weights).unwrap();
    let unseen = Hessian::new(12).unwrap();
    let silent = observed(&Array2::zeros((50, 12)));
    let few = observed(&Numbers(7).inputs(3, 12));
    for (gptq, reason) in [
        (Gptq::new(scheme, &unseen), Reason::FewTokens),
        (Gptq::new(scheme, &silent), Reason::NoSignal),
        (
            Gptq::new(scheme, &few).with_minimum_tokens(4),
            Reason::FewTokens,
        ),
    ] {
        let (quantized, report) = gptq.quantize_with_report(&weights).unwrap();
        assert_eq!(quantized, rounded);
        assert_eq!(report.outcome, Outcome::RoundToNearest(reason));
        assert_eq!(report.rounded_rows, 5);
        assert_eq!(report.output_error, report.rounding_error);
        assert!(report.weight_error > 0.0);
    }
    let (_, report) = Gptq::new(scheme, &few)
        .quantize_with_report(&weights)
        .unwrap();
    assert_eq!(
        report.warnings,
        [Warning::FewTokens {
            tokens: 3,
            columns: 12
        }]
    );
    assert!(
        report.to_string().contains("3 tokens for 12 columns"),
        "{report}"
    );
    assert!(matches!(report.outcome, Outcome::Gptq { damping, .. } if damping == 0.01));
}

#[test]
fn a_column_that_never_had_an_input_keeps_its_weight() {
    let mut inputs = Numbers(8).inputs(200, 20);
    inputs.column_mut(4).fill(0.0);
    let hessian = observed(&inputs);
    let weights = Numbers(9).matrix(6, 20);
    let scheme = Scheme::int(8).per_axis(0).build().unwrap();
    let (quantized, report) = Gptq::new(scheme, &hessian)
        .quantize_with_report(&weights)
        .unwrap();
    assert_eq!(report.dead_columns, 1);
    let rounded = RoundToNearest::new(scheme).quantize(&weights).unwrap();
    let column = |quantized: &QTensor| {
        let codes = quantized
            .codes::<i8>()
            .unwrap()
            .into_dimensionality::<Ix2>();
        codes.unwrap().column(4).to_owned()
    };
    assert_eq!(column(&quantized), column(&rounded));
}

#[test]
fn bad_weights_and_options_are_refused() {
    let hessian = observed(&Numbers(10).inputs(30, 4));
    let gptq = Gptq::new(Scheme::int(4).per_axis(0).build().unwrap(), &hessian);
    let error = gptq
        .quantize(&array![[1.0_f32, 2.0, f32::NAN, 0.0]])
        .unwrap_err();
    assert!(matches!(error, Error::NonFinite { position, .. } if position == [0, 2]));
    let error = gptq.quantize(&array![[1.0_f32, 2.0, 3.0]]).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { expected, .. } if expected == [1, 4]));
    assert!(matches!(
        gptq.quantize(&array![1.0_f32, 2.0, 3.0, 4.0]),
        Err(Error::ShapeMismatch { .. })
    ));
    assert!(
        gptq.quantize(&ndarray::Array3::<f32>::zeros((2, 2, 4)))
            .is_err()
    );
    let none = gptq.quantize(&Array2::zeros((0, 4))).unwrap();
    assert_eq!(none.shape(), [0, 4]);
    let far = Scheme::int(4).per_axis(2).build().unwrap();
    let error = Gptq::new(far, &hessian).quantize(&Array2::zeros((1, 4)));
    assert!(matches!(error, Err(Error::NoSuchAxis { .. })));
    for bad in [-1.0, f64::NAN, f64::INFINITY] {
        assert!(gptq.clone().with_damping(bad).is_err());
        assert!(gptq.clone().with_alpha(bad).is_err());
        assert!(gptq.clone().with_first_order(bad as f32).is_err());
    }
}

#[test]
fn the_largest_and_the_least_weights_stay_numbers() {
    let inputs = Numbers(11).inputs(60, 24);
    let hessian = observed(&inputs);
    let scheme = Scheme::int(4).asymmetric().per_group(8).build().unwrap();
    for size in [3e37_f32, 1e30, 1e-30, 1e-38, 1e-44] {
        let weights = Numbers(12).matrix(5, 24) * size;
        let (quantized, report) = Gptq::new(scheme, &hessian)
            .quantize_with_report(&weights)
            .unwrap();
        let values = quantized.dequantize::<f32>();
        assert!(values.iter().all(|x| x.is_finite()), "{size}");
        assert!(report.output_error.is_finite() && report.output_error <= report.rounding_error);
    }
}

#[cfg(feature = "serde")]
#[test]
fn a_matrix_that_is_not_positive_definite_is_damped_more_then_given_up() {
    // One loud column, and others that all oppose each other, which no inputs can.
    let read = |n: usize, loud: f64, oppose: f64| -> Hessian {
        let mut upper = Vec::new();
        for i in 0..n {
            for j in i..n {
                upper.push(match (i, j) {
                    (0, 0) => loud,
                    (0, _) => 0.0,
                    _ if i == j => 1.0,
                    _ => -oppose,
                });
            }
        }
        let tree = serde_json::json!({
            "columns": n, "tokens": 100, "upper": upper, "staged": Vec::<f32>::new(),
        });
        serde_json::from_value(tree).unwrap()
    };
    let outcome = |hessian: &Hessian| {
        let weights = Numbers(13).matrix(4, hessian.columns());
        let scheme = Scheme::int(4).per_axis(0).build().unwrap();
        let (quantized, report) = Gptq::new(scheme, hessian)
            .quantize_with_report(&weights)
            .unwrap();
        assert!(quantized.dequantize::<f32>().iter().all(|x| x.is_finite()));
        report
    };
    let report = outcome(&read(4, 1.0, 0.6));
    let used = 1.0;
    let expected = Outcome::Gptq {
        damping: used,
        diagonal_floor: None,
    };
    assert_eq!(report.outcome, expected);
    assert_eq!(
        report.warnings,
        [Warning::RaisedDamping { asked: 0.01, used }]
    );

    let report = outcome(&read(41, 1_000.0, 0.9));
    assert!(
        matches!(
            report.outcome,
            Outcome::Gptq {
                diagonal_floor: Some(_),
                ..
            }
        ),
        "{report}"
    );

    let report = outcome(&read(41, 1.0, 0.9));
    assert_eq!(
        report.outcome,
        Outcome::RoundToNearest(Reason::NotPositiveDefinite)
    );
}

#[test]
fn the_reasons_to_use_it_hold_on_a_correlated_layer() {
    let inputs = Numbers(14).inputs(1_000, 256);
    let hessian = observed(&inputs);
    let weights = Numbers(15).matrix(64, 256);
    let error = |bits, change: &dyn Fn(Gptq<'_>) -> Gptq<'_>| {
        let scheme = Scheme::int(bits).per_group(32).build().unwrap();
        let gptq = change(Gptq::new(scheme, &hessian));
        let (_, report) = gptq.quantize_with_report(&weights).unwrap();
        (report.output_error, report.rounding_error)
    };
    let (plain, rounding) = error(3, &|gptq| gptq);
    assert!(plain < 0.5 * rounding, "{plain} {rounding}");
    let (natural, _) = error(3, &|gptq| gptq.with_order(Order::Natural));
    assert!(plain < natural, "{plain} {natural}");
    fn clips(gptq: Gptq<'_>) -> Gptq<'_> {
        gptq.with_calibrator(MeanSquaredError::default())
    }
    let (clipped, _) = error(3, &clips);
    assert!(clipped < 0.9 * plain, "{clipped} {plain}");
    let (stale, _) = error(3, &|gptq| clips(gptq).with_group_fit(GroupFit::Stale));
    assert!(clipped < stale, "{clipped} {stale}");
    let (even, _) = error(3, &|gptq| {
        clips(gptq).with_range_weights(RangeWeights::Even)
    });
    assert!(clipped < even, "{clipped} {even}");
}
