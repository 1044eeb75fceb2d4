//! What every calibrator promises, whatever the data.

use lowbit::{
    Affine, Calibrator, Error, Granularity, Observer, ObserverExt, Ranges, Scheme,
    calibrate::{Percentile, ranges},
    observe::{
        Fixed, HistogramObserver, Importance, MeanDeviation, MinMax, MovingAverageMinMax,
        Statistics,
    },
};
use ndarray::{Array2, arr1};
use proptest::prelude::*;

use super::support::{calibrators, observer, of_histograms, schemes, values};

/// Whether one bit has to span more than f32 holds in one step.
fn too_wide(error: &Error) -> bool {
    matches!(error, Error::InvalidScale { .. })
}

proptest! {
    #[test]
    fn ranges_are_finite_and_within_the_data(values in values(), scheme in schemes()) {
        let statistics = Statistics::of_values(&values).unwrap();
        let seen = statistics.range();
        let binned = observer(&values, 256);
        let binned = binned.statistics(0).unwrap();
        let mut moments = MeanDeviation::new(Granularity::PerTensor);
        moments.observe(&arr1(&values)).unwrap();
        let moments = moments.statistics(0).unwrap();
        let inside = |calibrator: &dyn Calibrator, statistics: &Statistics<'_>| {
            match calibrator.range(statistics, &scheme) {
                Ok(range) => {
                    let again = calibrator.range(statistics, &scheme).unwrap();
                    let within = range.min() >= seen.min() && range.max() <= seen.max();
                    let usable = Affine::from_ranges(&scheme, &Ranges::per_tensor(range));
                    let valid = usable.map_or_else(|error| too_wide(&error), |_| true);
                    within && again == range && valid
                }
                Err(error) => too_wide(&error) && scheme.bits() == 1,
            }
        };
        for calibrator in calibrators() {
            prop_assert!(inside(&*calibrator, &statistics), "{calibrator:?}");
        }
        for calibrator in of_histograms() {
            prop_assert!(inside(&*calibrator, &binned), "{calibrator:?}");
        }
        let deviations = calibrators().pop().unwrap();
        prop_assert!(inside(&*deviations, &moments));
    }

    #[test]
    fn the_unit_of_measurement_does_not_matter(
        values in prop::collection::vec(-3.0_f32..3.0, 1..60),
        scheme in schemes(), exponent in -70..70_i32,
    ) {
        // Powers of two, so that scaling is exact.
        let unit = 2_f32.powi(exponent);
        // Below the resolution of the largest one: 0, which stays 0.
        let values: Vec<f32> =
            values.iter().map(|x| if x.abs() < 1e-6 { 0.0 } else { *x }).collect();
        let scaled: Vec<f32> = values.iter().map(|x| x * unit).collect();
        for calibrator in calibrators() {
            let name = format!("{calibrator:?}");
            let range = |values: &[f32]| {
                calibrator.range(&Statistics::of_values(values).unwrap(), &scheme).unwrap()
            };
            let (plain, scaled) = (range(&values), range(&scaled));
            // A power other than the square goes through a logarithm, which rounds by itself.
            if name.contains("2.4") {
                let seen = Statistics::of_values(&values).unwrap().range();
                let tight = 0.2 * seen.magnitude();
                prop_assert!(scaled.max() / unit >= plain.max().min(tight) - 1e-6);
            } else {
                let expected = (plain.min() * unit, plain.max() * unit);
                prop_assert_eq!((scaled.min(), scaled.max()), expected, "{}", name);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_group_has_the_range_of_its_own_elements(
        columns in prop::collection::vec(prop::collection::vec(-9.0_f32..9.0, 7), 1..6),
        bits in 2..9_u32,
    ) {
        let x = Array2::from_shape_fn((7, columns.len()), |(i, j)| columns[j][i]);
        let scheme = Scheme::int(bits).asymmetric().per_axis(1).build().unwrap();
        let mut channels = HistogramObserver::new(Granularity::PerAxis(1)).with_bins(512).unwrap();
        channels.observe(&x).unwrap();
        for calibrator in of_histograms() {
            let all = ranges(&*calibrator, &channels, &scheme).unwrap();
            prop_assert_eq!(all.shape(), [columns.len()]);
            for (range, column) in all.as_slice().iter().zip(&columns) {
                let alone = observer(column, 512);
                let expected = calibrator.range(&alone.statistics(0).unwrap(), &scheme).unwrap();
                prop_assert_eq!(*range, expected);
            }
        }
    }
}

#[test]
fn degenerate_data_have_a_range_of_their_own() {
    let cases: [&[f32]; 10] = [
        &[0.0],
        &[0.0; 9],
        &[-0.0, 0.0],
        &[3.5; 9],
        &[-3.5; 9],
        &[1e-45, 0.0],
        &[1e-40, -1e-40, 1e-39],
        &[f32::MAX, f32::MIN],
        &[f32::MIN; 3],
        &[1e30, 1.0, 0.0],
    ];
    for values in cases {
        for scheme in [
            Scheme::int(8),
            Scheme::int(2).asymmetric(),
            Scheme::int(16),
            Scheme::int(4).unsigned().asymmetric_float(),
        ] {
            let scheme = scheme.build().unwrap();
            let statistics = Statistics::of_values(values).unwrap();
            let seen = statistics.range();
            for calibrator in calibrators() {
                let range = calibrator.range(&statistics, &scheme).unwrap();
                assert!(range.min() >= seen.min() && range.max() <= seen.max());
                // What is all alike is not clipped.
                if seen.min() == seen.max() {
                    assert_eq!(range, seen, "{calibrator:?} as {scheme}");
                }
            }
        }
    }
}

#[test]
fn statistics_that_were_not_gathered_are_named() {
    let scheme = Scheme::int(8).build().unwrap();
    let of = |mut observer: Box<dyn Observer>| {
        observer.observe(&arr1(&[1.0_f32, -2.0])).unwrap();
        observer
    };
    let whole = Granularity::PerTensor;
    let without_histogram: [Box<dyn Observer>; 4] = [
        of(Box::new(MinMax::new(whole))),
        of(Box::new(MeanDeviation::new(whole))),
        of(Box::new(Importance::new(whole))),
        of(Box::new(MovingAverageMinMax::new(whole))),
    ];
    for observer in &without_histogram {
        let statistics = observer.statistics(0).unwrap();
        for calibrator in &of_histograms()[1..] {
            let error = calibrator.range(&statistics, &scheme).unwrap_err();
            assert!(
                matches!(error, Error::MissingStatistic { .. }),
                "{calibrator:?}"
            );
        }
        assert_eq!(
            of_histograms()[0].range(&statistics, &scheme).unwrap(),
            statistics.range()
        );
    }
    let histogram = of(Box::new(HistogramObserver::new(whole)));
    let deviations = calibrators().pop().unwrap();
    let error = deviations
        .range(&histogram.statistics(0).unwrap(), &scheme)
        .unwrap_err();
    assert!(error.to_string().contains("histogram"), "{error}");
}

#[test]
fn an_observer_of_another_granularity_or_of_nothing_is_refused() {
    let scheme = Scheme::int(8).per_axis(0).build().unwrap();
    let mut observer = HistogramObserver::new(Granularity::PerAxis(1));
    let of = |observer: &dyn Observer| ranges(&Percentile::default(), observer, &scheme);
    assert!(matches!(of(&observer), Err(Error::Mismatch { .. })));
    observer = HistogramObserver::new(Granularity::PerAxis(0));
    assert!(matches!(of(&observer), Err(Error::Empty { .. })));
    observer.observe(&Array2::<f32>::zeros((2, 0))).unwrap();
    assert!(matches!(of(&observer), Err(Error::Empty { .. })));
    let range = lowbit::Range::new(0.0, 1.0).unwrap();
    assert!(of(&Fixed::new(range, Granularity::PerAxis(0))).is_err());
}

#[test]
fn values_that_are_none_or_not_finite_are_refused() {
    assert!(matches!(
        Statistics::of_values(&[]),
        Err(Error::Empty { .. })
    ));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let error = Statistics::of_values(&[0.0, bad, f32::NAN]).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position, .. } if position == [1]));
        let statistics = Statistics::of_values(&[0.0, 1.0]).unwrap();
        let error = statistics.with_importance(&[1.0, bad]).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position, .. } if position == [1]));
    }
    let statistics = Statistics::of_values(&[0.0, 1.0]).unwrap();
    assert!(statistics.with_importance(&[1.0]).is_err());
    assert!(statistics.with_importance(&[1.0, -0.5]).is_err());
}
