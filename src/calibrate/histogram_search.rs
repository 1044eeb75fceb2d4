//! The search of torch's histogram observer.

use super::Calibrator;
use crate::{
    affine::Range,
    error::Result,
    observe::{Bin, Histogram, Statistics},
    scheme::Scheme,
};

/// Narrows the range quantile by quantile, from the side that gives up more bins, for as long as the
/// squared error of a uniform quantizer over it does not grow: the non-linear search of torch.ao's
/// `HistogramObserver`, with its step of 1e-5 and its error, integrated over evenly filled bins.
///
/// The levels number `2^b`. As in torch, it stops at the first increase, so that the result is a
/// local minimum.
///
/// ```
/// use lowbit::{Granularity, ObserverExt, Scheme};
/// use lowbit::{calibrate::{HistogramSearch, ranges}, observe::HistogramObserver};
/// use ndarray::Array1;
///
/// let mut observer = HistogramObserver::new(Granularity::PerTensor);
/// let mut x = Array1::from_shape_fn(20_000, |i| (i as f32 * 0.77).sin());
/// x[0] = 30.0;
/// observer.observe(&x)?;
/// let scheme = Scheme::int(4).asymmetric().build()?;
/// let chosen = ranges(&HistogramSearch, &observer, &scheme)?;
/// assert!(chosen.as_slice()[0].max() < 30.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct HistogramSearch;

/// The step of the quantiles.
const STEP: f64 = 1e-5;

/// Bins of values at hand.
const BINS: usize = 4096;

impl Calibrator for HistogramSearch {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts below 2^53, and the nearest f32 is the end of a range"
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
        let bins: Vec<Bin> = histogram.bins().collect();
        let levels = f64::from(1_u32 << scheme.bits());
        let cumulative: Vec<f64> = bins
            .iter()
            .scan(0_u64, |sum, bin| {
                *sum += bin.count;
                Some(*sum as f64)
            })
            .collect();
        let (Some(&total), Some(mut end)) = (cumulative.last(), bins.len().checked_sub(1)) else {
            return Ok(seen);
        };
        let (mut start, mut alpha, mut beta) = (0, 0.0, 1.0);
        let mut least = f64::INFINITY;
        while alpha < beta {
            let (next_alpha, next_beta) = (alpha + STEP, beta - STEP);
            let (mut left, mut right) = (start, end);
            while left < end && cumulative[left] < next_alpha * total {
                left += 1;
            }
            while right > start && cumulative[right] > next_beta * total {
                right -= 1;
            }
            let (mut next_start, mut next_end) = (start, end);
            if left - start > end - right {
                (next_start, alpha) = (left, next_alpha);
            } else {
                (next_end, beta) = (right, next_beta);
            }
            if (next_start, next_end) == (start, end) {
                continue;
            }
            let error = squared_error(&bins, next_start, next_end, levels);
            if error > least {
                break;
            }
            (least, start, end) = (error, next_start, next_end);
        }
        let low = (bins[start].lower as f32).clamp(seen.min(), seen.max());
        let high = (bins[end].upper.min(f64::from(f32::MAX)) as f32).clamp(low, seen.max());
        Range::new(low, high)
    }
}

/// The squared error of the histogram when `levels` steps lie over the bins from `start` to `end`.
#[expect(clippy::cast_precision_loss, reason = "numbers of bins and counts")]
fn squared_error(bins: &[Bin], start: usize, end: usize, levels: f64) -> f64 {
    // In widths of a bin, so that no magnitude under- or overflows.
    let step = (end - start + 1) as f64 / levels;
    let level_of = |position: f64| (position / step).floor().clamp(0.0, levels - 1.0);
    let cube = |x: f64| x * x * x;
    // The integral of x² from one distance to another.
    let between = |from: f64, to: f64| (cube(to) - cube(from)) / 3.0;
    let filled = bins.iter().enumerate().filter(|(_, bin)| bin.count > 0);
    filled
        .map(|(index, bin)| {
            let low = index as f64 - start as f64;
            let high = low + 1.0;
            let (first, last) = (level_of(low), level_of(high));
            let distance = |x: f64, level: f64| x - (level + 0.5) * step;
            bin.count as f64
                * (between(distance(low, first), step / 2.0)
                    + (last - first - 1.0) * between(-step / 2.0, step / 2.0)
                    + between(-step / 2.0, distance(high, last)))
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_that_of_finely_divided_bins() {
        let counts = [3, 0, 7, 100, 80, 20, 0, 1];
        let bins: Vec<Bin> = (0_u64..)
            .zip(counts)
            .map(|(index, count)| Bin {
                lower: index as f64,
                upper: index as f64 + 1.0,
                count,
            })
            .collect();
        for (start, end, levels) in [(0, 7, 4.0), (2, 5, 4.0), (2, 5, 16.0), (3, 3, 2.0)] {
            let step = (end - start + 1) as f64 / levels;
            let mut expected = 0.0;
            const PARTS: usize = 20_000;
            for bin in &bins {
                for part in 0..PARTS {
                    let x = bin.lower + (part as f64 + 0.5) / PARTS as f64 - start as f64;
                    let level = (x / step).floor().clamp(0.0, levels - 1.0);
                    let error = x - (level + 0.5) * step;
                    expected += bin.count as f64 * error * error / PARTS as f64;
                }
            }
            let got = squared_error(&bins, start, end, levels);
            approx::assert_relative_eq!(got, expected, max_relative = 1e-4);
        }
    }

    #[test]
    fn degenerate_values_have_a_range() {
        for values in [
            &[0.0_f32][..],
            &[1.0; 7],
            &[f32::MAX, -f32::MAX],
            &[1e-45, 0.0],
        ] {
            let scheme = Scheme::int(8).build().unwrap();
            let statistics = Statistics::of_values(values).unwrap();
            let range = HistogramSearch.range(&statistics, &scheme).unwrap();
            assert!(range.min() >= statistics.range().min());
            assert!(range.max() <= statistics.range().max());
        }
    }
}
