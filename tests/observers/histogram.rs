//! Histograms: bounded memory, exact counts, whatever comes first.

use lowbit::{Granularity, Observer, ObserverExt, observe::HistogramObserver};
use ndarray::{Array1, arr1};
use proptest::prelude::*;

use super::support::numbers;

fn observer(bins: usize) -> HistogramObserver {
    HistogramObserver::new(Granularity::PerTensor)
        .with_bins(bins)
        .unwrap()
}

/// Checks a histogram against the values themselves.
fn check(observer: &HistogramObserver, values: &[f32], limit: usize) -> Result<(), TestCaseError> {
    let statistics = observer.statistics(0).unwrap();
    let histogram = statistics.histogram().unwrap();
    let bins: Vec<_> = histogram.bins().collect();
    prop_assert!(bins.len() <= limit, "{} bins", bins.len());
    prop_assert_eq!(histogram.total(), values.len() as u64);
    prop_assert_eq!(histogram.range(), Some(statistics.range()));
    for bin in &bins {
        let inside = |x: &&f32| (bin.lower..bin.upper).contains(&f64::from(**x));
        prop_assert_eq!(bin.count, values.iter().filter(inside).count() as u64);
        prop_assert_eq!(bin.upper - bin.lower, histogram.width());
    }
    // As fine as the limit lets it be, unless that is finer than f32 needs.
    let width = histogram.width();
    let (min, max) = (
        f64::from(statistics.range().min()),
        f64::from(statistics.range().max()),
    );
    let bins_of_half = (max * 2.0 / width).floor() - (min * 2.0 / width).floor() + 1.0;
    let finest = min.abs().max(max.abs()) / 2_f64.powi(22);
    prop_assert!(bins_of_half > limit as f64 || width / 2.0 <= finest.max(1e-44));
    Ok(())
}

proptest! {
    #[test]
    fn counts_are_exact_after_growing_from_any_first_batch(
        first in prop::collection::vec(numbers(), 1..20),
        rest in prop::collection::vec(prop::collection::vec(numbers(), 0..20), 0..5),
        limit in prop_oneof![2..40_usize, Just(4096)],
    ) {
        let mut observer = observer(limit);
        let mut values = vec![];
        for batch in std::iter::once(first).chain(rest) {
            observer.observe(&arr1(&batch)).unwrap();
            values.extend(batch);
            check(&observer, &values, limit)?;
        }
    }
}

#[test]
fn an_outlier_after_a_tiny_first_batch_costs_neither_memory_nor_counts() {
    for first in [
        vec![1e-40_f32, -1e-40],
        vec![0.25; 1000],
        vec![0.0; 10],
        vec![-3.0, -3.1],
        vec![1e-45],
        vec![f32::MAX],
    ] {
        let mut observer = observer(4096);
        let mut values = first.clone();
        observer.observe(&arr1(&first)).unwrap();
        for outlier in [1e-3_f32, -1.0, 1e9, f32::MIN, f32::MAX] {
            observer.observe(&arr1(&[outlier])).unwrap();
            values.push(outlier);
            check(&observer, &values, 4096).unwrap();
        }
        // What fell into one bin again lies where it was, at the width that there is now.
        let statistics = observer.statistics(0).unwrap();
        let full = statistics
            .histogram()
            .unwrap()
            .bins()
            .filter(|bin| bin.count > 0);
        assert!(full.count() <= 4);
    }
}

#[test]
fn negative_numbers_are_counted_on_their_side_of_zero() {
    let mut observer = observer(16);
    observer
        .observe(&arr1(&[-1.0_f32, -0.001, -1e-30, 0.0, 0.001, 1.0]))
        .unwrap();
    let statistics = observer.statistics(0).unwrap();
    let histogram = statistics.histogram().unwrap();
    let below: u64 = histogram
        .bins()
        .filter(|bin| bin.upper <= 0.0)
        .map(|bin| bin.count)
        .sum();
    let above: u64 = histogram
        .bins()
        .filter(|bin| bin.lower >= 0.0)
        .map(|bin| bin.count)
        .sum();
    assert_eq!((below, above), (3, 3));
}

#[test]
fn counts_beyond_what_f32_holds_stay_exact() {
    // 2^24 + 1, which a float counter cannot hold.
    let mut observer = observer(2);
    let batch = Array1::from_elem(1 << 20, 0.5_f32);
    for _ in 0..16 {
        observer.observe(&batch).unwrap();
    }
    observer.observe(&arr1(&[0.5_f32])).unwrap();
    let statistics = observer.statistics(0).unwrap();
    assert_eq!(statistics.histogram().unwrap().total(), (1 << 24) + 1);
    assert_eq!(statistics.count(), (1 << 24) + 1);
}

#[test]
fn memory_is_bounded_for_each_group() {
    let mut observer = HistogramObserver::new(Granularity::PerAxis(1))
        .with_bins(64)
        .unwrap();
    let batch = ndarray::Array2::from_shape_fn((500, 3), |(i, j)| {
        ((i * 3 + j) as f32 * 0.7).tan() * 10_f32.powi(j as i32 * 10)
    });
    observer.observe(&batch).unwrap();
    for parameter in 0..3 {
        let statistics = observer.statistics(parameter).unwrap();
        let histogram = statistics.histogram().unwrap();
        let bins = histogram.bins().count();
        assert!((32..=64).contains(&bins), "{bins}");
        assert_eq!(histogram.total(), 500);
    }
}
