//! Entropy against the recipe of TensorRT, bin by bin: O(bins²) where the crate takes prefix sums.

use lowbit::{
    Calibrator, Observer, Scheme, SchemeBuilder,
    calibrate::Entropy,
    observe::{HistogramObserver, Statistics},
};

use super::support::{distributions, observer};

/// Counts of magnitudes in bins from 0 on.
fn magnitudes(observer: &HistogramObserver) -> (Vec<f64>, f64) {
    let statistics = observer.statistics(0).unwrap();
    let histogram = statistics.histogram().unwrap();
    let width = histogram.width();
    let mut counts = vec![];
    for bin in histogram.bins() {
        // 0 is always an edge.
        let distance = bin.lower.max(-bin.upper);
        let index = (distance / width).round() as usize;
        counts.resize(counts.len().max(index + 1), 0.0);
        counts[index] += bin.count as f64;
    }
    (counts, width)
}

/// The divergence of each number of bins from `levels` on.
fn divergences(counts: &[f64], levels: usize) -> Vec<(usize, f64)> {
    (levels..=counts.len())
        .filter(|&end| counts[..end].iter().any(|&count| count > 0.0))
        .map(|end| (end, divergence(counts, levels, end)))
        .collect()
}

fn divergence(counts: &[f64], levels: usize, end: usize) -> f64 {
    // The reference: what lies beyond is added to the last bin.
    let mut reference = counts[..end].to_vec();
    reference[end - 1] += counts[end..].iter().sum::<f64>();
    // The candidate: collapsed, and spread over the bins of a level that hold anything.
    let mut candidate = vec![0.0; end];
    let kept: f64 = counts[..end].iter().sum();
    for level in 0..levels {
        let inside = |bin: &usize| bin * levels >= level * end && bin * levels < (level + 1) * end;
        let bins: Vec<usize> = (0..end).filter(inside).collect();
        let filled: Vec<usize> = bins
            .iter()
            .copied()
            .filter(|&bin| reference[bin] > 0.0)
            .collect();
        let mut mass: f64 = bins.iter().map(|&bin| counts[bin]).sum();
        if mass == 0.0 && !filled.is_empty() {
            mass = 1e-4 * kept; // the smoothing that the documentation names
        }
        for &bin in &filled {
            candidate[bin] = mass / filled.len() as f64;
        }
    }
    let (p_total, q_total): (f64, f64) = (reference.iter().sum(), candidate.iter().sum());
    let terms = reference.iter().zip(&candidate).filter(|(p, _)| **p > 0.0);
    terms
        .map(|(p, q)| p / p_total * ((p / p_total) / (q / q_total)).ln())
        .sum()
}

#[test]
fn the_range_ends_where_the_recipe_ends_it() {
    let builders: [(SchemeBuilder, bool, usize); 4] = [
        (Scheme::int(4), false, 8),
        (Scheme::int(4).asymmetric(), true, 16),
        (Scheme::int(3).unsigned(), false, 4),
        (Scheme::int(6), false, 32),
    ];
    for values in distributions() {
        for bins in [100, 333] {
            let observer = observer(&values, bins);
            let (mut counts, width) = magnitudes(&observer);
            if counts.len() > 1 {
                counts[0] = counts[1];
            }
            for (builder, asymmetric, levels) in builders {
                let scheme = builder.build().unwrap();
                let statistics = observer.statistics(0).unwrap();
                let seen = statistics.range();
                // Numbers of both signs share the codes.
                let levels = if asymmetric && seen.min() < 0.0 {
                    levels / 2
                } else {
                    levels
                };
                let range = Entropy.range(&statistics, &scheme).unwrap();
                if counts.len() < levels {
                    assert_eq!(range, seen);
                    continue;
                }
                let all = divergences(&counts, levels);
                let least = all.iter().map(|(_, d)| *d).fold(f64::INFINITY, f64::min);
                let ends: Vec<f64> = all
                    .iter()
                    .filter(|(_, d)| *d <= least + 1e-9)
                    .map(|(end, _)| (*end as f64 * width).min(f64::from(seen.magnitude())))
                    .collect();
                let chosen = f64::from(range.magnitude());
                let found = ends.iter().any(|end| (end - chosen).abs() <= 1e-6 * chosen);
                assert!(found, "{chosen}, not among {ends:?} as {scheme}");
                assert!(range.min() >= seen.min() && range.max() <= seen.max());
            }
        }
    }
}

#[test]
fn fewer_bins_than_levels_are_kept_whole() {
    let values = [0.5_f32, -1.0, 0.25, 0.75];
    let observer = observer(&values, 8);
    let scheme = Scheme::int(8).build().unwrap();
    let range = Entropy
        .range(&observer.statistics(0).unwrap(), &scheme)
        .unwrap();
    assert_eq!((range.min(), range.max()), (-1.0, 0.75));
}

#[test]
fn values_at_hand_are_binned_as_finely_as_an_observer_bins_them() {
    for values in distributions() {
        let observer = observer(&values, 4096);
        for builder in [Scheme::int(8), Scheme::int(4).asymmetric()] {
            let scheme = builder.build().unwrap();
            let binned = Entropy
                .range(&observer.statistics(0).unwrap(), &scheme)
                .unwrap();
            let statistics = Statistics::of_values(&values).unwrap();
            assert_eq!(Entropy.range(&statistics, &scheme).unwrap(), binned);
        }
    }
}
