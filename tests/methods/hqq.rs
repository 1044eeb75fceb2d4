//! HQQ against its published loop.

use lowbit::{
    Error, FloatFormat, Groups, Quantizer, QuantizerExt, RoundToNearest, ScaleKind, Scheme,
    calibrate::MeanSquaredError, ptq::Hqq,
};
use ndarray::{Array2, array};

fn weights(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(o, i)| {
        let x = ((o * columns + i) as f32 * 0.618).sin();
        let outlier = if (o * 31 + i) % 41 == 0 { 7.0 } else { 1.0 };
        outlier * x * x * x + 0.05 * o as f32
    })
}

/// The published loop (`optimize_weights_proximal_legacy`), value by value in f64, keeping the
/// best zero point that it visits.
fn published(values: &[f64], levels: f64) -> f64 {
    let (min, max) = values
        .iter()
        .fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    let inverse = levels / (max - min);
    let mut zero = -min * inverse;
    let (mut beta, p) = (10.0_f64, 0.7_f64);
    let mut best = f64::INFINITY;
    for _ in 0..=20 {
        let codes: Vec<f64> = values
            .iter()
            .map(|&w| (w * inverse + zero).round_ties_even().clamp(0.0, levels))
            .collect();
        let errors = values.iter().zip(&codes);
        let errors: Vec<f64> = errors.map(|(&w, &q)| w - (q - zero) / inverse).collect();
        best = best.min(errors.iter().map(|e| e.abs()).sum());
        let shrunk = |e: f64| e.signum() * (e.abs() - e.abs().powf(p - 1.0) / beta).max(0.0);
        let total: f64 = (0..values.len())
            .map(|i| codes[i] - (values[i] - shrunk(errors[i])) * inverse)
            .sum();
        zero = total / values.len() as f64;
        beta *= 1.01;
    }
    best
}

#[test]
fn the_errors_are_those_of_the_published_loop_with_its_best_zero_point() {
    // Large weights, so that the shrinkage has work to do, and small ones.
    for unit in [8.0, 1.0, 0.03] {
        let weights = weights(6, 50) * unit;
        let scheme = Scheme::int(2).unsigned().asymmetric_float().per_axis(0);
        let quantized = Hqq::new(scheme.build().unwrap())
            .quantize(&weights)
            .unwrap();
        let image = quantized.dequantize::<f32>();
        for (row, image) in weights.rows().into_iter().zip(image.outer_iter()) {
            let pairs = row.iter().zip(&image);
            let ours: f64 = pairs.map(|(&w, &x)| f64::from((w - x).abs())).sum();
            let values: Vec<f64> = row.iter().map(|&w| w.into()).collect();
            approx::assert_relative_eq!(ours, published(&values, 3.0), max_relative = 1e-4);
        }
    }
}

#[test]
fn no_group_has_a_larger_absolute_error_than_rounding_to_nearest() {
    let weights = weights(5, 70);
    for scheme in [
        Scheme::int(2).asymmetric_float().per_group(32),
        Scheme::int(3).unsigned().asymmetric().per_group(32),
        Scheme::int(2).per_axis(0),
        Scheme::int(4).narrow_range().per_tensor(),
        Scheme::int(3).asymmetric().per_block(2, 16),
        Scheme::int(1).unsigned().asymmetric_float().per_axis(1),
        Scheme::int(4)
            .asymmetric_float()
            .per_axis(0)
            .scale_kind(ScaleKind::PowerOfTwo),
        Scheme::int(3).per_group(32).scale_kind(ScaleKind::F16),
        Scheme::float(FloatFormat::E2M1).per_group(16),
    ] {
        let scheme = scheme.build().unwrap();
        let groups = Groups::new(&[5, 70], scheme.granularity()).unwrap();
        let errors = |quantizer: &dyn Quantizer| {
            let image = quantizer.quantize(&weights).unwrap().dequantize::<f32>();
            let mut errors = vec![0.0_f64; groups.parameters()];
            for (index, (&w, &x)) in weights.iter().zip(&image).enumerate() {
                errors[groups.parameter_of(index)] += f64::from((w - x).abs());
            }
            errors
        };
        let nearest = errors(&RoundToNearest::new(scheme));
        let hqq = errors(&Hqq::new(scheme));
        for (hqq, nearest) in hqq.iter().zip(&nearest) {
            assert!(*hqq <= nearest * (1.0 + 1e-6), "{scheme}: {hqq} {nearest}");
        }
        if !scheme.mapping().is_symmetric() {
            assert!(hqq.iter().sum::<f64>() < nearest.iter().sum(), "{scheme}");
        }
    }
}

#[test]
fn bad_options_and_bad_weights_are_refused() {
    let scheme = Scheme::int(4).asymmetric_float().build().unwrap();
    let hqq = Hqq::new(scheme);
    for norm in [0.0, -1.0, 1.5, f32::NAN] {
        assert!(hqq.clone().with_norm(norm).is_err());
    }
    for (penalty, growth) in [
        (0.0, 1.0),
        (1.0, 0.5),
        (f32::INFINITY, 1.0),
        (f32::NAN, 1.0),
    ] {
        assert!(hqq.clone().with_penalty(penalty, growth).is_err());
    }
    let nan = array![[0.0_f32, 1.0], [f32::NAN, 2.0]];
    let error = hqq.quantize(&nan).unwrap_err();
    assert!(matches!(error, Error::NonFinite { position, .. } if position == [1, 0]));
    // Nothing, one value, equal values, the ends of the number line.
    for extreme in [
        Array2::zeros((0, 4)),
        Array2::zeros((2, 3)),
        Array2::from_elem((2, 3), -0.7),
        Array2::from_elem((1, 1), f32::MIN_POSITIVE / 4.0),
        array![[f32::MAX / 4.0, -f32::MAX / 4.0, 1.0]],
    ] {
        for scheme in [
            scheme,
            Scheme::int(2).build().unwrap(),
            Scheme::int(3).asymmetric().per_group(2).build().unwrap(),
        ] {
            let hqq = Hqq::new(scheme).with_calibrator(MeanSquaredError::default());
            let image = hqq.quantize(&extreme).unwrap().dequantize::<f32>();
            assert!(image.iter().all(|x| x.is_finite()));
        }
    }
}
