//! Histograms of what passes by.

use ndarray::ArrayViewD;

use super::{
    Histogram, Observer, Statistics,
    histogram::MOST_BINS,
    tally::{State, Tally, nothing_seen, same_kind},
};
use crate::{
    error::{Error, Result},
    scheme::Granularity,
};

/// A histogram of each group of elements, with the exact extremes.
///
/// Memory is bounded: at most 8 bytes for each bin of each group. Bins grow, and merge in pairs, as
/// the range does; no count is lost and any batch may come first. Neither the order nor the split
/// of the batches changes it, nor does merging shards.
///
/// ```
/// use lowbit::{Granularity, Observer, ObserverExt, observe::HistogramObserver};
/// use ndarray::array;
///
/// let mut observer = HistogramObserver::new(Granularity::PerTensor);
/// observer.observe(&array![0.001_f32, 0.002])?;
/// observer.observe(&array![-1000.0_f32, 0.5])?; // an outlier a million times as large
/// let statistics = observer.statistics(0)?;
/// assert_eq!(statistics.histogram()?.total(), 4);
/// assert!(statistics.histogram()?.bins().count() <= 4096);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct HistogramObserver {
    bins: usize,
    tally: Tally<Histogram>,
}

/// Bins unless set otherwise: at least 2,048 over the range seen.
const BINS: usize = 4096;

impl HistogramObserver {
    /// An observer that has seen nothing, with at most 4,096 bins; at least half as many lie over
    /// the range seen.
    #[must_use]
    pub fn new(granularity: Granularity) -> Self {
        Self {
            bins: BINS,
            tally: Tally::new(granularity),
        }
    }

    /// Another number of bins at most.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for less than 2 or more than 2^20 bins, and after the first batch.
    pub fn with_bins(mut self, bins: usize) -> Result<Self> {
        if !(2..=MOST_BINS).contains(&bins) {
            return Err(Error::option("bins", "2 to 1,048,576", bins));
        }
        if self.tally.shape().is_some() {
            let expected = format!("{}, as before the first batch", self.bins);
            return Err(Error::option("bins", expected, bins));
        }
        self.bins = bins;
        Ok(self)
    }

    /// Whether [`observe_view`](Observer::observe_view) would take a batch.
    ///
    /// # Errors
    /// Those that it would give.
    pub(crate) fn check(&self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        self.tally.admit(batch).map(drop)
    }
}

impl State for Histogram {
    fn count(&self) -> u64 {
        self.total()
    }
}

impl Observer for HistogramObserver {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        let bins = self.bins;
        self.tally
            .observe(batch, |histogram, values| histogram.include(values, bins))
    }

    fn granularity(&self) -> Granularity {
        self.tally.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.tally.shape()
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        let histogram = self.tally.state(parameter)?;
        let range = histogram.range().ok_or_else(|| nothing_seen("histogram"))?;
        Ok(Statistics::new("histogram", histogram.total(), range).with_histogram(histogram))
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        let other = same_kind::<Self>(other)?;
        if self.bins != other.bins {
            return Err(Error::Mismatch {
                what: "bins of the histograms",
                expected: self.bins.to_string(),
                got: other.bins.to_string(),
            });
        }
        let bins = self.bins;
        self.tally
            .merge(&other.tally, |ours, theirs| ours.merge(theirs, bins))
    }

    fn reset(&mut self) {
        self.tally.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self {
            bins: self.bins,
            tally: Tally::new(self.granularity()),
        })
    }
}

/// What a stored observer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "HistogramObserver")]
struct Unchecked {
    bins: usize,
    tally: Tally<Histogram>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for HistogramObserver {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let mut observer = Self::new(stored.tally.granularity()).with_bins(stored.bins)?;
        stored
            .tally
            .check(|histogram| histogram.is_valid(observer.bins))?;
        observer.tally = stored.tally;
        Ok(observer)
    }
}
