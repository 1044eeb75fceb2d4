//! Percentiles against data in order, and standard deviations against their formula.

use lowbit::{
    Calibrator, Error, Observer, Scheme,
    calibrate::{Percentile, StandardDeviations},
    observe::{Moments, Statistics},
};
use proptest::prelude::*;

use super::support::{distributions, observer, schemes, values};

/// The quantile of values, interpolated between neighbours, as NumPy has it by default.
fn quantile(values: impl Iterator<Item = f32>, part: f64) -> f64 {
    let mut sorted: Vec<f64> = values.map(f64::from).collect();
    sorted.sort_by(f64::total_cmp);
    let position = part * (sorted.len() - 1) as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

fn expected(values: &[f32], percentage: f64, scheme: &Scheme) -> (f64, f64) {
    let all = || values.iter().copied();
    let (min, max) = (quantile(all(), 0.0), quantile(all(), 1.0));
    if scheme.mapping().is_symmetric() {
        let magnitude = quantile(all().map(f32::abs), percentage / 100.0);
        // No further than was seen on either side.
        (-magnitude.min(-min).max(-max), magnitude.min(max).max(min))
    } else {
        let tail = (1.0 - percentage / 100.0) / 2.0;
        (quantile(all(), tail), quantile(all(), 1.0 - tail))
    }
}

proptest! {
    #[test]
    fn percentiles_of_values_are_those_of_sorted_data(
        values in values(), scheme in schemes(),
        percentage in prop_oneof![Just(100.0), Just(99.99), 1e-3_f64..100.0],
    ) {
        let statistics = Statistics::of_values(&values).unwrap();
        let range = Percentile::new(percentage).unwrap().range(&statistics, &scheme).unwrap();
        let (low, high) = expected(&values, percentage, &scheme);
        let slack = 1e-6 * f64::from(statistics.range().magnitude()) + 1e-44;
        prop_assert!((f64::from(range.min()) - low).abs() <= slack, "{range:?} {low}..{high}");
        prop_assert!((f64::from(range.max()) - high).abs() <= slack, "{range:?} {low}..{high}");
    }

    #[test]
    fn standard_deviations_reach_from_the_mean_but_not_beyond_the_data(
        values in values(), scheme in schemes(), k in 0.1_f64..10.0,
    ) {
        let statistics = Statistics::of_values(&values).unwrap();
        let range = StandardDeviations::new(k).unwrap().range(&statistics, &scheme).unwrap();
        let count = values.len() as f64;
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
        let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
        let reach = k * (squares / count).sqrt();
        let seen = statistics.range();
        let (min, max) = (f64::from(seen.min()), f64::from(seen.max()));
        let slack = 1e-6 * f64::from(seen.magnitude()) + 1e-44;
        let low = (mean - reach).clamp(min, max);
        let high = (mean + reach).clamp(min, max);
        prop_assert!((f64::from(range.min()) - low).abs() <= slack, "{range:?} {low}");
        prop_assert!((f64::from(range.max()) - high).abs() <= slack, "{range:?} {high}");
    }
}

/// Between which numbers a quantile of counted elements lies: it is a rank, to an element.
fn bounds(values: impl Iterator<Item = f32>, part: f64, width: f64) -> (f64, f64) {
    let mut sorted: Vec<f64> = values.map(f64::from).collect();
    sorted.sort_by(f64::total_cmp);
    let rank = part * sorted.len() as f64;
    let below = (rank.floor() as usize).saturating_sub(1);
    let above = (rank.ceil() as usize).min(sorted.len() - 1);
    (sorted[below] - width, sorted[above] + width)
}

#[test]
fn percentiles_of_histograms_are_those_of_data_to_a_bin() {
    for values in distributions() {
        let observer = observer(&values, 4096);
        let statistics = observer.statistics(0).unwrap();
        let seen = statistics.range();
        let width = statistics.histogram().unwrap().width();
        let lies = |x: f32, part: f64| {
            let (low, high) = bounds(values.iter().copied(), part, width);
            (low..=high).contains(&x.into())
        };
        for percentage in [50.0, 90.0, 99.0, 99.9, 100.0] {
            let chosen = Percentile::new(percentage).unwrap();
            let scheme = Scheme::int(8).asymmetric().build().unwrap();
            let range = chosen.range(&statistics, &scheme).unwrap();
            let tail = (1.0 - percentage / 100.0) / 2.0;
            assert!(
                lies(range.min(), tail) && lies(range.max(), 1.0 - tail),
                "{range:?}"
            );

            let scheme = Scheme::int(8).build().unwrap();
            let range = chosen.range(&statistics, &scheme).unwrap();
            let magnitudes = values.iter().map(|x| x.abs());
            let (low, high) = bounds(magnitudes, percentage / 100.0, width);
            let at_the_end = range == seen;
            let magnitude = f64::from(range.magnitude());
            assert!((low..=high).contains(&magnitude) || at_the_end, "{range:?}");
        }
    }
}

#[test]
fn moments_that_are_no_numbers_are_refused() {
    let range = lowbit::Range::new(-1.0, 1.0).unwrap();
    let scheme = Scheme::int(8).build().unwrap();
    for (mean, variance) in [
        (f64::NAN, 1.0),
        (0.0, f64::NAN),
        (0.0, -1e-12), // as E[x²] − E[x]² may round to
        (f64::INFINITY, 1.0),
        (0.0, f64::INFINITY),
    ] {
        let statistics = Statistics::new("another crate's", 3, range);
        let statistics = statistics.with_moments(Moments { mean, variance });
        let error = StandardDeviations::default()
            .range(&statistics, &scheme)
            .unwrap_err();
        assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    }
}

#[test]
fn settings_outside_what_they_may_be_are_refused() {
    for bad in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(StandardDeviations::new(bad).is_err());
        assert!(Percentile::new(bad).is_err());
    }
    assert!(Percentile::new(100.000_001).is_err());
}
