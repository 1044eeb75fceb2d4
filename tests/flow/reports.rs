//! The numbers of a report against what the data themselves give.

use lowbit::{
    Affine, FloatFormat, Mapping, Range, Scheme,
    calibrate::Percentile,
    fake_quantize,
    flow::{Calibration, Site, SiteReport},
};
use ndarray::{Array2, ArrayD, Axis, array, concatenate};

use super::support::bell;

/// What the report estimates, element by element.
struct Direct {
    clipped: f64,
    sqnr: f64,
    cosine: f64,
}

fn direct(x: &ArrayD<f32>, affine: &Affine) -> Direct {
    let y = fake_quantize(x, affine).unwrap();
    let groups = affine.groups(x.shape()).unwrap();
    let pairs = || {
        x.iter()
            .zip(&y)
            .map(|(&x, &y)| (f64::from(x), f64::from(y)))
    };
    let outside = x.iter().enumerate().filter(|&(element, &x)| {
        let parameter = groups.parameter_of(element);
        let range = affine.range(parameter).unwrap();
        let half = affine.scale()[parameter] / 2.0;
        x < range.min() - half || x > range.max() + half
    });
    let sum = |term: fn((f64, f64)) -> f64| pairs().map(term).sum::<f64>();
    let signal = sum(|(x, _)| x * x);
    Direct {
        clipped: outside.count() as f64 / x.len() as f64,
        sqnr: 10.0 * (signal / sum(|(x, y)| (x - y) * (x - y))).log10(),
        cosine: sum(|(x, y)| x * y) / (signal * sum(|(_, y)| y * y)).sqrt(),
    }
}

fn report(site: Site, x: &ArrayD<f32>) -> (SiteReport, Affine) {
    let calibration = Calibration::new(site);
    for row in x.axis_iter(Axis(0)) {
        calibration.tap("x", &row.insert_axis(Axis(0))).unwrap();
    }
    let calibrated = calibration.finish().unwrap();
    let (report, affine) = (
        calibrated.report("x").unwrap(),
        calibrated.affine("x").unwrap(),
    );
    (report.clone(), affine.clone())
}

#[test]
fn clipping_noise_and_angle_are_those_of_the_data() {
    let batches = [
        bell(60, 40, 1),
        bell(60, 40, 2) * 0.1,
        bell(60, 40, 3).mapv(|x| x.max(0.0)),
    ];
    let views: Vec<_> = batches.iter().map(|batch| batch.view()).collect();
    let mixed = concatenate(Axis(0), &views).unwrap();
    for x in batches.iter().chain([&mixed]).map(|x| x.clone().into_dyn()) {
        for bits in [3, 4, 8] {
            for mapping in [
                Mapping::Symmetric,
                Mapping::SymmetricHalfRange,
                Mapping::Asymmetric,
                Mapping::AsymmetricFloat,
            ] {
                for builder in [
                    Scheme::int(bits).mapping(mapping),
                    Scheme::int(bits).mapping(mapping).per_axis(1),
                ] {
                    let scheme = builder.build().unwrap();
                    let site = Site::new(scheme).unwrap();
                    let site = site.with_calibrator(Percentile::new(98.0).unwrap());
                    let (report, affine) = report(site, &x);
                    let expected = direct(&x, &affine);
                    assert_eq!(report.elements, x.len() as u64);
                    let near = |got: f64, expected: f64, slack: f64| {
                        let close = (got - expected).abs() <= slack;
                        assert!(close, "{got} {expected} as {scheme}: {report:?}");
                    };
                    near(report.clipped, expected.clipped, 0.003);
                    near(report.sqnr, expected.sqnr, 0.2);
                    near(report.cosine, expected.cosine, 0.001);
                }
            }
        }
    }
}

#[test]
fn small_floats_are_reported_as_they_are_rounded() {
    let x = bell(60, 40, 5).into_dyn();
    for format in [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1] {
        let site = Site::new(Scheme::float(format).build().unwrap()).unwrap();
        let (report, affine) = report(site, &x);
        let expected = direct(&x, &affine);
        assert_eq!(report.clipped, 0.0);
        assert!(
            (report.sqnr - expected.sqnr).abs() < 0.3,
            "{report:?} {}",
            expected.sqnr
        );
        assert!((report.cosine - expected.cosine).abs() < 0.001);
    }
}

#[test]
fn seen_and_covered_are_the_outermost_of_all_groups() {
    let scheme = Scheme::int(8).per_axis(1).build().unwrap();
    let x = array![[-1.0_f32, 10.0], [0.5, -20.0]];
    let (report, affine) = report(Site::new(scheme).unwrap(), &x.into_dyn());
    assert_eq!(report.seen, (-20.0, 10.0));
    let wide = affine.range(1).unwrap();
    assert_eq!(report.covered, (wide.min(), wide.max()));
    assert_eq!(wide, Range::new(-128.0 * (20.0 / 127.0), 20.0).unwrap());
}

#[test]
fn what_is_exact_has_no_noise() {
    for (x, scheme) in [
        (array![[0.0_f32, 0.0]], Scheme::int(4)),
        (array![[0.0_f32, 0.0]], Scheme::int(4).asymmetric_float()),
        (array![[7.5_f32, 7.5]], Scheme::int(4).asymmetric()),
        (array![[-3.0_f32, -3.0]], Scheme::int(4).asymmetric_float()),
    ] {
        let scheme = scheme.build().unwrap();
        let (report, _) = report(Site::new(scheme).unwrap(), &x.into_dyn());
        assert_eq!(
            (report.sqnr, report.clipped),
            (f64::INFINITY, 0.0),
            "{report:?}"
        );
        assert!((report.cosine - 1.0).abs() < 1e-12);
    }
}

#[test]
fn more_bits_are_never_reported_as_worse() {
    let x: Array2<f32> = bell(50, 50, 7);
    let sqnr = |bits: u32| {
        let scheme = Scheme::int(bits).asymmetric().build().unwrap();
        report(Site::new(scheme).unwrap(), &x.clone().into_dyn())
            .0
            .sqnr
    };
    let rising: Vec<f64> = (1..=8).chain([16]).map(sqnr).collect();
    assert!(
        rising.windows(2).all(|pair| pair[0] < pair[1]),
        "{rising:?}"
    );
    // About 6 dB a bit, once there are some.
    assert!((rising[7] - rising[5] - 12.0).abs() < 2.0, "{rising:?}");
}
