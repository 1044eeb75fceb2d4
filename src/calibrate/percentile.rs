//! All but a few elements.

use super::Calibrator;
use crate::{
    affine::Range,
    error::{Error, Result},
    observe::{Bin, Statistics},
    scheme::Scheme,
};

/// Bins of magnitudes at most.
const BINS: usize = 1 << 16;

/// The range that holds a percentage of the elements, half of the rest left out on each side; under
/// a symmetric scheme, the magnitude that so many elements do not exceed.
///
/// From values the percentile is interpolated between neighbours, as NumPy does it; from a histogram
/// inside the bin. The range never exceeds the one seen. The usual 99.99 is that of ONNX Runtime's
/// documentation and of ModelOpt.
///
/// ```
/// use lowbit::{Calibrator, Scheme, calibrate::Percentile, observe::Statistics};
/// let values: Vec<f32> = (0..=100).map(|i| i as f32).collect();
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let range = Percentile::new(90.0)?.range(&Statistics::of_values(&values)?, &scheme)?;
/// assert_eq!((range.min(), range.max()), (5.0, 95.0));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Percentile {
    percentage: f64,
}

impl Default for Percentile {
    /// 99.99 %.
    fn default() -> Self {
        Self { percentage: 99.99 }
    }
}

impl Percentile {
    /// The range that holds `percentage` of the elements.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is more than 0 and at most 100.
    pub fn new(percentage: f64) -> Result<Self> {
        if percentage > 0.0 && percentage <= 100.0 {
            Ok(Self { percentage })
        } else {
            Err(Error::option(
                "percentile",
                "more than 0 and at most 100",
                percentage,
            ))
        }
    }
}

impl Calibrator for Percentile {
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        let seen = statistics.range();
        let inside = self.percentage / 100.0;
        let symmetric = scheme.mapping().is_symmetric();
        let ends = if symmetric {
            [None, Some(inside)]
        } else {
            let tail = (1.0 - inside) / 2.0;
            [Some(tail), Some(1.0 - tail)]
        };
        let quantiles = match statistics.values() {
            Some(values) => {
                let magnitude = |&x: &f32| if symmetric { x.abs() } else { x };
                let mut sorted: Vec<f32> = values.iter().map(magnitude).collect();
                sorted.sort_unstable_by(f32::total_cmp);
                ends.map(|end| end.map(|end| of_sorted(&sorted, end)))
            }
            None if symmetric => {
                let (counts, width) = statistics.histogram()?.magnitudes(BINS);
                ends.map(|end| end.map(|end| of_bins(magnitude_bins(&counts, width), end)))
            }
            None => {
                let histogram = statistics.histogram()?;
                ends.map(|end| end.map(|end| of_bins(histogram.bins(), end)))
            }
        };
        let [low, high] = quantiles;
        let (low, high) = match (low, high) {
            (None, Some(magnitude)) => (-magnitude, magnitude),
            (low, high) => (low.unwrap_or(seen.min()), high.unwrap_or(seen.max())),
        };
        // In this order, so that ends that crossed by interpolation meet.
        let low = low.max(seen.min()).min(seen.max());
        Range::new(low, high.max(low).min(seen.max()).max(low))
    }
}

/// Bins of magnitudes from 0 on.
fn magnitude_bins(counts: &[u64], width: f64) -> impl Iterator<Item = Bin> {
    counts.iter().scan(0.0, move |lower, &count| {
        let bin = Bin {
            lower: *lower,
            upper: *lower + width,
            count,
        };
        *lower = bin.upper;
        Some(bin)
    })
}

/// The quantile of values in order, interpolated between neighbours.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position among the values, which is at least 0"
)]
fn of_sorted(sorted: &[f32], quantile: f64) -> f32 {
    let last = sorted.len() - 1;
    let position = quantile * last as f64;
    let below = (position as usize).min(last);
    let (low, high) = (sorted[below], sorted[(below + 1).min(last)]);
    let part = position - below as f64;
    (f64::from(low) + part * (f64::from(high) - f64::from(low))) as f32
}

/// The quantile of binned elements, each bin taken as evenly filled.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a share of the elements, and the nearest f32 of an edge"
)]
fn of_bins(bins: impl Iterator<Item = Bin>, quantile: f64) -> f32 {
    let bins: Vec<Bin> = bins.collect();
    let total: u64 = bins.iter().map(|bin| bin.count).sum();
    let wanted = quantile * total as f64;
    let mut below = 0_u64;
    for bin in &bins {
        let reached = below + bin.count;
        if bin.count > 0 && reached as f64 >= wanted {
            let part = ((wanted - below as f64) / bin.count as f64).clamp(0.0, 1.0);
            return (bin.lower + part * (bin.upper - bin.lower)) as f32;
        }
        below = reached;
    }
    bins.last().map_or(0.0, |bin| bin.upper as f32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Granularity, Observer, ObserverExt, observe::HistogramObserver};

    #[test]
    fn a_histogram_gives_the_percentile_of_its_values_to_a_bin() {
        let values: Vec<f32> = (0..20_000)
            .map(|i| ((i as f32 * 0.7).sin() * 3.0).exp() - 2.0)
            .collect();
        let mut observer = HistogramObserver::new(Granularity::PerTensor);
        observer.observe(&ndarray::arr1(&values)).unwrap();
        let binned = observer.statistics(0).unwrap();
        let exact = Statistics::of_values(&values).unwrap();
        let width = binned.histogram().unwrap().width() as f32;
        for scheme in [Scheme::int(8), Scheme::int(8).unsigned().asymmetric()] {
            let scheme = scheme.build().unwrap();
            for percentage in [50.0, 90.0, 99.0, 99.9, 100.0] {
                let percentile = Percentile::new(percentage).unwrap();
                let a = percentile.range(&exact, &scheme).unwrap();
                let b = percentile.range(&binned, &scheme).unwrap();
                assert!(
                    (a.min() - b.min()).abs() <= width,
                    "{percentage} {a:?} {b:?}"
                );
                assert!(
                    (a.max() - b.max()).abs() <= width,
                    "{percentage} {a:?} {b:?}"
                );
            }
        }
    }

    #[test]
    fn degenerate_values_have_percentiles() {
        let scheme = Scheme::int(8).asymmetric().build().unwrap();
        for values in [&[0.0_f32][..], &[3.0; 5], &[-1e30, 1e30], &[-2.0, -1.0]] {
            let statistics = Statistics::of_values(values).unwrap();
            let range = Percentile::default().range(&statistics, &scheme).unwrap();
            assert!(range.min() >= statistics.range().min());
            assert!(range.max() <= statistics.range().max());
        }
        for bad in [0.0, -1.0, 100.1, f64::NAN] {
            assert!(Percentile::new(bad).is_err());
        }
    }
}
