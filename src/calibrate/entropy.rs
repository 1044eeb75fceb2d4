//! The range that keeps the distribution: least Kullback–Leibler divergence.

use super::Calibrator;
use crate::{
    affine::Range,
    error::Result,
    observe::{Histogram, Statistics},
    scheme::Scheme,
};

/// The clipping whose quantized distribution of magnitudes diverges the least from the one seen: the
/// recipe of TensorRT (Migacz, *8-bit Inference with TensorRT*, GTC 2017), as ModelOpt has it.
///
/// For each number `i` of bins from the number of levels on, the reference is the first `i` bins of
/// `|x|` with all that lies beyond added to the last one; the candidate is the same bins collapsed
/// into as many levels as the codes have on one side, each level spread evenly over those of its bins
/// that the reference has anything in. The last of equally good `i` wins, and the end of its bins
/// is the range.
///
/// With prefix sums over the bins a candidate costs a pass over the levels, not over the bins. The
/// bin at 0 is taken to hold what its neighbour does, since zeros need no level of their own.
///
/// ```
/// use lowbit::{Granularity, ObserverExt, Scheme};
/// use lowbit::{calibrate::{Entropy, ranges}, observe::HistogramObserver};
/// use ndarray::Array1;
///
/// let mut observer = HistogramObserver::new(Granularity::PerTensor);
/// let x = Array1::from_shape_fn(20_000, |i| ((i as f32 * 0.77).sin() * 2.0).powi(3));
/// observer.observe(&x)?;
/// let scheme = Scheme::int(8).build()?;
/// let chosen = ranges(&Entropy, &observer, &scheme)?;
/// assert!(chosen.as_slice()[0].max() <= 8.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Entropy;

/// Bins of magnitudes at most.
const BINS: usize = 4096;

/// The share that a last level of no mass counts as where the reference has some there: without it
/// an outlier that stands alone could not be clipped. ONNX Runtime smooths by as much.
const SMOOTHING: f64 = 1e-4;

impl Calibrator for Entropy {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a number of bins, and the nearest f32 is the end of a range"
    )]
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        let seen = statistics.range();
        let own;
        let histogram = match statistics.values() {
            None => statistics.histogram()?,
            Some(values) => {
                own = Histogram::of(values, BINS);
                &own
            }
        };
        let (mut counts, width) = histogram.magnitudes(BINS);
        if let Some(&next) = counts.get(1) {
            counts[0] = next;
        }
        let one_sided = seen.min() >= 0.0 && !scheme.mapping().is_symmetric();
        let bits = scheme.bits() - u32::from(!one_sided && scheme.bits() > 1);
        let end = least_divergence(&counts, 1 << bits) as f64 * width;
        let end = end.min(f64::from(f32::MAX)) as f32;
        Range::new(
            seen.min().max(-end).min(seen.max()),
            seen.max().min(end).max(seen.min()),
        )
    }
}

/// The number of bins whose collapse into `levels` diverges the least; all of them where there are
/// no more than levels.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn least_divergence(counts: &[u64], levels: usize) -> usize {
    let bins = counts.len();
    // Sums before each bin: of counts, of bins that hold anything, and of c ln c.
    let mut mass = vec![0_u64; bins + 1];
    let mut filled = vec![0_usize; bins + 1];
    let mut entropy = vec![0.0_f64; bins + 1];
    for (bin, &count) in counts.iter().enumerate() {
        mass[bin + 1] = mass[bin] + count;
        filled[bin + 1] = filled[bin] + usize::from(count > 0);
        entropy[bin + 1] = entropy[bin] + times_log(count as f64);
    }
    let total = mass[bins] as f64;
    let mut best = (f64::INFINITY, bins);
    for end in levels..=bins {
        if mass[end] == 0 {
            continue;
        }
        let (within, last) = (mass[end] as f64, counts[end - 1]);
        let beyond = mass[bins] - mass[end];
        // The last bin counts as filled where it holds what lies beyond.
        let moved_in = usize::from(last == 0 && beyond > 0);
        // Σ p ln p of the reference, in counts.
        let reference = entropy[end - 1] + times_log((last + beyond) as f64);
        // Σ p ln q, with q the mass of a level over its filled bins.
        let (mut cross, mut smoothing, mut start) = (0.0, 0.0, 0);
        for level in 1..=levels {
            let stop = (level * end).div_ceil(levels);
            let mut level_mass = (mass[stop] - mass[start]) as f64;
            let (mut outside, mut spread) = (0.0, filled[stop] - filled[start]);
            if stop == end && start < end {
                outside = beyond as f64;
                spread += moved_in;
            }
            if level_mass + outside > 0.0 {
                let held = level_mass + outside;
                if level_mass == 0.0 {
                    smoothing = SMOOTHING * within;
                    level_mass = smoothing;
                }
                cross += held * (level_mass / spread as f64).ln();
            }
            start = stop;
        }
        // Normalized: the reference sums to the total, the candidate to what it holds.
        let divergence = (reference - cross) / total - (total / (within + smoothing)).ln();
        if divergence <= best.0 {
            best = (divergence, end);
        }
    }
    best.1
}

fn times_log(count: f64) -> f64 {
    if count > 0.0 { count * count.ln() } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recipe as it is told, bin by bin.
    fn told(counts: &[u64], levels: usize) -> Vec<(usize, f64)> {
        let bins = counts.len();
        (levels..=bins)
            .map(|end| {
                let mut reference: Vec<f64> = counts[..end].iter().map(|&c| c as f64).collect();
                reference[end - 1] += counts[end..].iter().sum::<u64>() as f64;
                let level_of = |bin: usize| {
                    (0..levels)
                        .rev()
                        .find(|level| bin * levels >= level * end)
                        .unwrap()
                };
                let mut level_mass = vec![0.0; levels];
                let mut level_bins = vec![0.0; levels];
                for (bin, &count) in counts[..end].iter().enumerate() {
                    if reference[bin] > 0.0 {
                        level_mass[level_of(bin)] += count as f64;
                        level_bins[level_of(bin)] += 1.0;
                    }
                }
                let within: f64 = level_mass.iter().sum();
                let last = level_of(end - 1);
                if level_mass[last] == 0.0 && reference[end - 1] > 0.0 {
                    level_mass[last] = 1e-4 * within;
                }
                let candidate: Vec<f64> = (0..end)
                    .map(|bin| match reference[bin] > 0.0 {
                        false => 0.0,
                        true => level_mass[level_of(bin)] / level_bins[level_of(bin)],
                    })
                    .collect();
                let (p_sum, q_sum): (f64, f64) = (reference.iter().sum(), candidate.iter().sum());
                let terms = reference.iter().zip(&candidate).map(|(&p, &q)| {
                    let (p, q) = (p / p_sum, q / q_sum);
                    match (p > 0.0, q > 0.0) {
                        (false, _) => 0.0,
                        (true, true) => p * (p / q).ln(),
                        (true, false) => f64::INFINITY,
                    }
                });
                (end, terms.sum())
            })
            .collect()
    }

    #[test]
    fn prefix_sums_choose_what_the_recipe_chooses() {
        let mut state = 7_u64;
        let mut random = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as f64 / (1_u64 << 31) as f64
        };
        for (bins, levels) in [
            (300, 128),
            (256, 16),
            (200, 8),
            (64, 2),
            (129, 128),
            (40, 64),
        ] {
            for sparse in [0.0, 0.3, 0.9] {
                let counts: Vec<u64> = (0..bins)
                    .map(|bin| {
                        let decay = (-6.0 * bin as f64 / bins as f64).exp();
                        if random() < sparse {
                            0
                        } else {
                            (1e4 * decay * random()) as u64
                        }
                    })
                    .collect();
                let chosen = least_divergence(&counts, levels);
                if bins < levels {
                    assert_eq!(chosen, bins);
                    continue;
                }
                let all = told(&counts, levels);
                let least = all.iter().map(|(_, d)| *d).fold(f64::INFINITY, f64::min);
                let (_, divergence) = all.iter().find(|(end, _)| *end == chosen).unwrap();
                assert!((divergence - least).abs() < 1e-9, "{divergence} {least}");
            }
        }
    }

    #[test]
    fn outliers_are_clipped() {
        let mut values: Vec<f32> = (0..100_000).map(|i| (i as f32 * 0.618).sin()).collect();
        values.push(40.0);
        let scheme = Scheme::int(8).build().unwrap();
        let range = Entropy
            .range(&Statistics::of_values(&values).unwrap(), &scheme)
            .unwrap();
        assert!((0.8..2.1).contains(&range.max()), "{range:?}");
    }

    #[test]
    fn degenerate_values_have_a_range() {
        for scheme in [Scheme::int(8), Scheme::int(2).asymmetric(), Scheme::int(16)] {
            let scheme = scheme.build().unwrap();
            for values in [
                &[0.0_f32][..],
                &[1.0; 7],
                &[f32::MAX, -f32::MAX],
                &[1e-45, 0.0],
            ] {
                Entropy
                    .range(&Statistics::of_values(values).unwrap(), &scheme)
                    .unwrap();
            }
        }
    }
}
