//! Fitting by least squares against exhaustive searches.

use lowbit::{
    Calibrator, Error, FloatFormat, Format, Mapping, Quantizer, QuantizerExt, Range, Result,
    RoundToNearest, ScaleKind, Scheme, affine::scalar, calibrate::LeastSquares,
    observe::Statistics,
};
use ndarray::{Array1, Array2, array};

fn weights(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(o, i)| {
        let x = ((o * columns + i) as f32 * 0.618).sin();
        let outlier = if (o * 31 + i) % 29 == 0 { 4.0 } else { 1.0 };
        outlier * x * x * x + 0.1
    })
}

fn fitting(scheme: Scheme) -> RoundToNearest {
    RoundToNearest::new(scheme).with_calibrator(LeastSquares::default())
}

fn schemes() -> Vec<Scheme> {
    [
        Scheme::int(2).asymmetric_float(),
        Scheme::int(3).unsigned().asymmetric(),
        Scheme::int(2),
        Scheme::int(3).narrow_range(),
        Scheme::int(2).asymmetric().scale_kind(ScaleKind::F16),
        Scheme::int(3).scale_kind(ScaleKind::PowerOfTwo),
        Scheme::int(1).unsigned().asymmetric_float(),
        Scheme::float(FloatFormat::E2M1),
    ]
    .map(|scheme| scheme.per_group(16).build().unwrap())
    .to_vec()
}

/// The least error of one group over a fine grid of scales, and of zero points where they move.
fn least(values: &[f32], importance: &[f32], scheme: &Scheme) -> f64 {
    let magnitude = values.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let (low, high) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
    let zeros: Vec<f32> = match (scheme.format(), scheme.mapping()) {
        (Format::Int(_), Mapping::Asymmetric) => (scheme.quant_min()..=scheme.quant_max())
            .map(|zero| zero as f32)
            .collect(),
        (Format::Int(_), Mapping::AsymmetricFloat) => (-20..=60)
            .map(|step| low + (high - low) * step as f32 / 40.0)
            .collect(),
        _ => vec![scheme.middle() as f32],
    };
    let mut best = f64::INFINITY;
    for step in 1..=250 {
        let scale = stored(magnitude * step as f32 / 125.0, scheme.scale_kind());
        for &zero in &zeros {
            let one = |(&x, &w): (&f32, &f32)| {
                let code = scalar::quantize(x, scale, zero, scheme);
                let image: f32 = scalar::dequantize(code, scale, zero, scheme);
                f64::from(w) * f64::from(x - image).powi(2)
            };
            best = best.min(values.iter().zip(importance).map(one).sum());
        }
    }
    best
}

fn stored(scale: f32, kind: ScaleKind) -> f32 {
    match kind {
        ScaleKind::F16 => half::f16::from_f32(scale).to_f32(),
        ScaleKind::PowerOfTwo => scale.log2().ceil().exp2(),
        _ => scale,
    }
}

#[test]
fn the_errors_are_nearly_those_of_an_exhaustive_search() {
    let weights = weights(4, 64);
    let importance = Array1::from_shape_fn(64, |i| (1 + i % 5) as f32);
    for scheme in schemes() {
        let quantized = fitting(scheme)
            .with_importance(&importance)
            .quantize(&weights)
            .unwrap();
        let image = quantized.dequantize::<f32>();
        let (mut ours, mut exhaustive) = (0.0, 0.0);
        for (row, image) in weights.rows().into_iter().zip(image.outer_iter()) {
            for group in 0..4 {
                let columns = 16 * group..16 * group + 16;
                for i in columns.clone() {
                    ours += f64::from(importance[i]) * f64::from(row[i] - image[i]).powi(2);
                }
                let values = &row.to_vec()[columns.clone()];
                exhaustive += least(values, &importance.to_vec()[columns], &scheme);
            }
        }
        assert!(ours <= 1.03 * exhaustive, "{scheme}: {ours} {exhaustive}");
    }
}

#[test]
fn the_error_is_never_larger_than_that_of_any_fraction_of_the_range() {
    let weights = weights(3, 70);
    for scheme in schemes() {
        let error = |quantizer: &dyn Quantizer| {
            let image = quantizer.quantize(&weights).unwrap().dequantize::<f32>();
            let pairs = weights.iter().zip(&image);
            pairs.map(|(w, x)| f64::from(w - x).powi(2)).sum::<f64>()
        };
        let fitted = error(&fitting(scheme));
        #[derive(Debug)]
        struct Fraction(f32);
        impl Calibrator for Fraction {
            fn range(&self, statistics: &Statistics<'_>, _: &Scheme) -> Result<Range> {
                let seen = statistics.range();
                Range::new(self.0 * seen.min(), self.0 * seen.max())
            }
        }
        for step in 0..20_u8 {
            let is_float = matches!(scheme.format(), Format::Float(_));
            let widest = if is_float { 1.6 } else { 1.1 };
            let fraction = Fraction(widest + (0.1 - widest) * (f32::from(step) / 19.0));
            let nearest = RoundToNearest::new(scheme).with_calibrator(fraction);
            assert!(fitted <= error(&nearest) * (1.0 + 1e-9), "{scheme} {step}");
        }
    }
}

#[test]
fn weights_that_count_nothing_do_not_spoil_the_others() {
    let weights = array![[0.5_f32, -1.0, 100.0, 0.25]];
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let of = |importance: Array1<f32>| {
        let fitted = fitting(scheme).with_importance(&importance);
        fitted.quantize(&weights)
    };
    let image = of(array![1.0, 1.0, 0.0, 1.0]).unwrap().dequantize::<f32>();
    assert!((image[[0, 1]] + 1.0).abs() < 0.1, "{image}");
    let alike = of(array![1.0, 1.0, 1.0, 1.0]).unwrap();
    assert_eq!(of(array![0.0, 0.0, 0.0, 0.0]).unwrap(), alike);
    assert!(matches!(
        of(array![1.0, -1.0, 0.0, 1.0]),
        Err(Error::NonFinite { .. })
    ));
    assert!(of(array![1.0, f32::NAN, 0.0, 1.0]).is_err());
    assert!(of(array![1.0, 1.0]).is_err());
}

#[test]
fn extremes_give_finite_weights_or_a_typed_error() {
    for scheme in schemes() {
        let fitted = fitting(scheme);
        for extreme in [
            Array2::zeros((2, 0)),
            Array2::zeros((2, 3)),
            Array2::from_elem((2, 3), -0.7),
            Array2::from_elem((1, 1), f32::MIN_POSITIVE / 4.0),
            array![[f32::MAX, -f32::MAX, 1.0]],
            array![[1e-38_f32, -1e-40, 0.0]],
        ] {
            match fitted.quantize(&extreme) {
                Ok(quantized) => {
                    let image = quantized.dequantize::<f32>();
                    assert!(image.iter().all(|x| x.is_finite()), "{scheme} {image}");
                }
                Err(error) => assert!(matches!(error, Error::InvalidScale { .. }), "{error}"),
            }
        }
        assert!(fitted.quantize(&array![[f32::INFINITY]]).is_err());
    }
}
