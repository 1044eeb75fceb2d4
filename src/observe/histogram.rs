//! Histograms whose bins are dyadic intervals.
//!
//! Bins are `2^e` wide and lie at multiples of their width, so that 0 is always an edge. Which `e`
//! serves depends on the extremes alone, and only grows as they do; a coarser histogram is had from
//! a finer one by adding neighbours, exactly. Therefore the counts are a function of the elements:
//! the order and the split of the batches, and merging, do not change them, whatever comes first.

#[cfg(any(test, feature = "serde"))]
mod stored;

use crate::{
    affine::{Range, extent},
    element::{BLOCK, Real},
    parallel::map_pieces,
    simd::{Loops, prefetch, wide},
};

/// Bins at most.
pub(super) const MOST_BINS: usize = 1 << 20;

/// The least exponent: the distance of subnormal f32.
const FINEST: i32 = -149;

/// A bin is at least the largest magnitude times 2 to the minus this.
const RESOLUTION: i32 = 22;

/// Counts of elements in bins of equal, power-of-two width, with the extremes.
///
/// ```
/// use lowbit::{Granularity, Observer, ObserverExt, observe::HistogramObserver};
/// use ndarray::array;
///
/// let mut observer = HistogramObserver::new(Granularity::PerTensor).with_bins(4)?;
/// observer.observe(&array![-1.0_f32, 0.1, 0.2, 0.9])?;
/// let statistics = observer.statistics(0)?;
/// let bins = statistics.histogram()?.bins().map(|bin| (bin.lower, bin.count));
/// assert_eq!(bins.collect::<Vec<_>>(), [(-1.0, 1), (-0.5, 0), (0.0, 2), (0.5, 1)]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "stored::Unchecked")
)]
pub struct Histogram {
    /// The exponent of the width.
    exponent: i32,
    /// The first bin is `[first, first + 1) · 2^exponent`.
    first: i64,
    counts: Vec<u64>,
    /// The extremes; 0 while there is no count.
    min: f32,
    max: f32,
}

/// One bin: elements in `[lower, upper)`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Bin {
    /// The lower edge.
    pub lower: f64,
    /// The upper edge.
    pub upper: f64,
    /// Elements in the bin.
    pub count: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            exponent: FINEST,
            first: 0,
            counts: vec![],
            min: 0.0,
            max: 0.0,
        }
    }
}

impl Histogram {
    /// The histogram of finite values, in at most `limit` bins.
    pub(crate) fn of(values: &[f32], limit: usize) -> Self {
        let mut histogram = Self::default();
        histogram.include(values, limit);
        histogram
    }

    /// The width of a bin.
    #[must_use]
    pub fn width(&self) -> f64 {
        power_of_two(self.exponent)
    }

    /// The bins from the one of the least element to the one of the greatest, in order.
    pub fn bins(&self) -> impl Iterator<Item = Bin> + '_ {
        let width = self.width();
        let mut lower = index_to_f64(self.first) * width;
        self.counts.iter().map(move |&count| {
            let bin = Bin {
                lower,
                upper: lower + width,
                count,
            };
            lower += width;
            bin
        })
    }

    /// How many elements were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The least and the greatest element, exactly; `None` before the first one.
    #[must_use]
    pub fn range(&self) -> Option<Range> {
        if self.counts.is_empty() {
            return None;
        }
        Range::new(self.min, self.max).ok()
    }

    /// Counts of magnitudes in bins from 0 on, and their width: as fine as at most `limit` bins
    /// allow.
    pub(crate) fn magnitudes(&self, limit: usize) -> (Vec<u64>, f64) {
        // Bin k >= 0 holds [k, k + 1); bin k < 0 the magnitudes of ones from −k − 1 on.
        let folded = |bin: i64| if bin >= 0 { bin } else { -bin - 1 };
        let bins = |exponent: i32| {
            let shift = (exponent - self.exponent).min(63);
            let last = self.first + to_i64(self.counts.len().max(1)) - 1;
            usize::try_from(folded(self.first >> shift).max(folded(last >> shift)) + 1)
                .unwrap_or(usize::MAX)
        };
        let mut exponent = self.exponent;
        while bins(exponent) > limit.max(1) {
            exponent += 1;
        }
        let mut magnitudes = vec![0; bins(exponent)];
        for (bin, count) in (self.first..).zip(&self.counts) {
            let bin = folded(bin >> (exponent - self.exponent).min(63));
            magnitudes[usize::try_from(bin).unwrap_or_default()] += count;
        }
        (magnitudes, power_of_two(exponent))
    }

    /// Counts finite values, in at most `limit` bins, at least 2.
    pub(crate) fn include(&mut self, values: &[f32], limit: usize) {
        if values.is_empty() {
            return;
        }
        let (min, max, _) = extent(values);
        self.cover(min, max, limit);
        let scale = power_of_two(-self.exponent);
        // At most 2^23 bins from 0, by the least width of the magnitude.
        let first = i32::try_from(self.first).unwrap_or_default();
        if values.len() < 8 * self.counts.len() {
            for &value in values {
                self.counts[bin_of(value, scale, first)] += 1;
            }
            return;
        }
        let pieces = map_pieces(values.len(), COUNTED, |elements| {
            let mut counters = vec![[0; 4]; self.counts.len()];
            wide(Count {
                values: &values[elements],
                scale,
                first,
                counters: &mut counters,
            });
            counters
        });
        for counters in pieces {
            for (count, lanes) in self.counts.iter_mut().zip(counters) {
                *count += lanes.into_iter().map(u64::from).sum::<u64>();
            }
        }
    }

    /// Adds the counts of another histogram of the same limit, whose bins are then no wider than
    /// those that cover both.
    pub(crate) fn merge(&mut self, other: &Self, limit: usize) {
        if other.counts.is_empty() {
            return;
        }
        self.cover(other.min, other.max, limit);
        let shift = (self.exponent - other.exponent).min(63);
        for (bin, count) in (other.first..).zip(&other.counts) {
            let index = usize::try_from((bin >> shift) - self.first).unwrap_or_default();
            if let Some(sum) = self.counts.get_mut(index) {
                *sum += count;
            }
        }
    }

    /// Widens the bins so that they reach from `min` to `max` too.
    fn cover(&mut self, min: f32, max: f32, limit: usize) {
        let (min, max) = match self.counts.is_empty() {
            true => (min, max),
            false => (self.min.min(min), self.max.max(max)),
        };
        if (min, max) != (self.min, self.max) || self.counts.is_empty() {
            self.rebin(exponent_for(min, max, limit), min, max);
        }
    }

    fn rebin(&mut self, exponent: i32, min: f32, max: f32) {
        let (first, last) = span(min, max, exponent);
        let mut counts = vec![0; usize::try_from(last - first + 1).unwrap_or_default()];
        let shift = (exponent - self.exponent).min(63);
        for (bin, count) in (self.first..).zip(&self.counts) {
            counts[usize::try_from((bin >> shift) - first).unwrap_or_default()] += count;
        }
        *self = Self {
            exponent,
            first,
            counts,
            min,
            max,
        };
    }
}

/// The exponent of the least width that the extremes allow; it only grows as they do.
fn exponent_for(min: f32, max: f32, limit: usize) -> i32 {
    let magnitude = min.abs().max(max.abs());
    let mut exponent = if magnitude == 0.0 {
        FINEST
    } else {
        // The floor of the logarithm; subnormals are finer than any bin needs to be.
        let biased = i32::try_from(magnitude.to_bits() >> 23).unwrap_or_default();
        (biased.max(1) - 127 - RESOLUTION).max(FINEST)
    };
    loop {
        let (first, last) = span(min, max, exponent);
        if last - first < to_i64(limit.max(2)) {
            return exponent;
        }
        exponent += 1;
    }
}

/// The bins of the extremes.
fn span(min: f32, max: f32, exponent: i32) -> (i64, i64) {
    (floor_in(min, exponent), floor_in(max, exponent))
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "at most 2^23 widths, by the least width of the magnitude"
)]
fn floor_in(value: f32, exponent: i32) -> i64 {
    (f64::from(value) * power_of_two(-exponent)).floor() as i64
}

/// Elements that are counted in 32 bits.
const COUNTED: usize = 1 << 22;

/// Counts values in the bins that cover them.
struct Count<'a> {
    values: &'a [f32],
    scale: f64,
    first: i32,
    /// Four for each bin, in turn: elements of one bin that follow each other need not wait.
    counters: &'a mut [[u32; 4]],
}

impl Loops for Count<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut bins = [0; BLOCK];
        for values in self.values.chunks(BLOCK) {
            prefetch(values);
            let bins = &mut bins[..values.len()];
            for (bin, &value) in bins.iter_mut().zip(values) {
                *bin = bin_of(value, self.scale, self.first);
            }
            let (fours, rest) = bins.as_chunks::<4>();
            for four in fours {
                for (lane, &bin) in four.iter().enumerate() {
                    self.counters[bin][lane] += 1;
                }
            }
            for &bin in rest {
                self.counters[bin][0] += 1;
            }
        }
    }
}

/// The bin of a value among those that cover it. The product is exact in f64; the difference from
/// the first bin would not be, so the floor comes before it.
#[inline(always)]
#[expect(
    clippy::cast_sign_loss,
    reason = "not below the first bin, since the value is covered"
)]
fn bin_of(value: f32, scale: f64, first: i32) -> usize {
    let position = f64::from(value) * scale;
    let (nearest, bin) = position.round_small();
    let floor = bin - i32::from(nearest > position);
    (floor - first) as u32 as usize
}

/// `2^exponent`, exactly, for exponents of normal f64.
fn power_of_two(exponent: i32) -> f64 {
    f64::from_bits(u64::try_from(i64::from(exponent) + 1023).unwrap_or(1) << 52)
}

#[expect(clippy::cast_precision_loss, reason = "at most 2^23")]
fn index_to_f64(index: i64) -> f64 {
    index as f64
}

fn to_i64(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn values() -> impl Strategy<Value = Vec<f32>> {
        let finite = any::<f32>().prop_filter("finite", |x| x.is_finite());
        let value = prop_oneof![-1.0_f32..1.0, -1e3_f32..1e3, finite, Just(0.0), Just(1e-45)];
        proptest::collection::vec(value, 0..60)
    }

    proptest! {
        #[test]
        fn counts_do_not_depend_on_order_split_or_merging(
            values in values(),
            cut in 0..60_usize,
            limit in 2..300_usize,
        ) {
            let whole = Histogram::of(&values, limit);
            prop_assert!(whole.is_valid(limit));
            prop_assert_eq!(whole.total(), values.len() as u64);
            let (first, second) = values.split_at(cut.min(values.len()));

            let mut backwards = Histogram::default();
            for value in values.iter().rev() {
                backwards.include(&[*value], limit);
            }
            prop_assert_eq!(&backwards, &whole);

            let mut merged = Histogram::of(second, limit);
            merged.merge(&Histogram::of(first, limit), limit);
            prop_assert_eq!(&merged, &whole);
        }

        #[test]
        fn every_bin_counts_the_elements_between_its_edges(values in values()) {
            let histogram = Histogram::of(&values, 64);
            prop_assert!(histogram.bins().count() <= 64);
            for bin in histogram.bins() {
                let inside = |x: &&f32| (bin.lower..bin.upper).contains(&f64::from(**x));
                prop_assert_eq!(values.iter().filter(inside).count() as u64, bin.count);
            }
            for limit in [1, 3, 64] {
                let (magnitudes, width) = histogram.magnitudes(limit);
                prop_assert!(magnitudes.len() <= limit);
                prop_assert_eq!(magnitudes.iter().sum::<u64>(), values.len() as u64);
                let largest = values.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
                prop_assert!(magnitudes.len() as f64 * width >= f64::from(largest));
            }
        }
    }

    #[test]
    fn magnitudes_are_counted_on_both_sides_of_zero_as_finely_as_is_allowed() {
        // No magnitude lies on an edge, where the sides differ: bins hold their lower one.
        let values: Vec<f32> = (0..500)
            .map(|i| ((i * 7919 % 1000) as f32 - 433.0) * 0.01 + 0.003)
            .collect();
        let histogram = Histogram::of(&values, 256);
        for limit in [1, 2, 3, 17, 64, 200, 256, 1000] {
            let (magnitudes, width) = histogram.magnitudes(limit);
            let bin = |x: f32, width: f64| (f64::from(x.abs()) / width) as usize;
            let mut expected = vec![0_u64; magnitudes.len()];
            for &x in &values {
                expected[bin(x, width)] += 1;
            }
            assert_eq!(magnitudes, expected, "at most {limit}");
            let last = values.iter().map(|&x| bin(x, width / 2.0)).max();
            assert!(magnitudes.len() <= limit && width >= histogram.width());
            assert!(width == histogram.width() || last >= Some(limit), "{limit}");
        }
    }

    #[test]
    fn the_range_is_resolved_as_finely_as_half_the_limit() {
        let values: Vec<f32> = (0..10_000)
            .map(|i| (i as f32 * 0.37).sin() * 3.3 - 1.0)
            .collect();
        let bins = Histogram::of(&values, 4096).bins().count();
        assert!((2048..=4096).contains(&bins), "{bins} bins");
    }

    #[test]
    fn many_equal_values_are_counted_as_few_are() {
        let mut values = vec![0.25_f32; 50_000];
        values.push(-1.0);
        let histogram = Histogram::of(&values, 16);
        let fullest = histogram.bins().max_by_key(|bin| bin.count);
        assert_eq!(fullest.map(|bin| bin.count), Some(50_000));
    }
}
