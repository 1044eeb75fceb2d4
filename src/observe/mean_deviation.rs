//! Mean and standard deviation.

use ndarray::ArrayViewD;

use super::{
    Moments, Observer, Statistics,
    min_max::Extremes,
    tally::{State, Tally, nothing_seen, same_kind},
};
use crate::{error::Result, scheme::Granularity};

/// The mean and the standard deviation of each group of elements, with the extremes.
///
/// Sums are in f64, as sums of squares about the mean that are merged pairwise (Chan, Golub and
/// LeVeque 1983), so that a large mean costs no digits. The order of the batches changes the last
/// bits alone.
///
/// ```
/// use lowbit::{Granularity, Observer, ObserverExt, observe::MeanDeviation};
/// use ndarray::array;
///
/// let mut observer = MeanDeviation::new(Granularity::PerTensor);
/// observer.observe(&array![1.0_f32, 3.0])?;
/// observer.observe(&array![5.0_f32, 7.0])?;
/// let moments = observer.statistics(0)?.moments()?;
/// assert_eq!((moments.mean, moments.deviation()), (4.0, 5.0_f64.sqrt()));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct MeanDeviation {
    tally: Tally<Sums>,
}

impl MeanDeviation {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new(granularity: Granularity) -> Self {
        Self {
            tally: Tally::new(granularity),
        }
    }
}

impl Observer for MeanDeviation {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        self.tally.observe(batch, Sums::take)
    }

    fn granularity(&self) -> Granularity {
        self.tally.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.tally.shape()
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        let sums = self.tally.state(parameter)?;
        let range = sums.extremes.range();
        let range = range.ok_or_else(|| nothing_seen("mean and deviation"))?;
        let count = sums.extremes.count;
        let moments = Moments {
            mean: sums.mean,
            variance: sums.squares / as_f64(count),
        };
        Ok(Statistics::new("mean and deviation", count, range).with_moments(moments))
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        self.tally
            .merge(&same_kind::<Self>(other)?.tally, Sums::merge)
    }

    fn reset(&mut self) {
        self.tally.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self::new(self.granularity()))
    }
}

/// The sums of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Sums {
    extremes: Extremes,
    mean: f64,
    /// Sum of the squares of the distances from the mean.
    squares: f64,
}

impl State for Sums {
    fn count(&self) -> u64 {
        self.extremes.count
    }
}

impl Sums {
    fn take(&mut self, values: &[f32]) {
        let mut extremes = Extremes::default();
        extremes.take(values);
        let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / as_f64(extremes.count);
        let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum();
        self.merge(&Self {
            extremes,
            mean,
            squares,
        });
    }

    fn merge(&mut self, other: &Self) {
        if other.extremes.count == 0 {
            return;
        }
        let (ours, theirs) = (as_f64(self.extremes.count), as_f64(other.extremes.count));
        let distance = other.mean - self.mean;
        let weight = theirs / (ours + theirs);
        self.squares += other.squares + distance * distance * ours * weight;
        self.mean += distance * weight;
        self.extremes.merge(&other.extremes);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

/// What a stored observer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "MeanDeviation")]
struct Unchecked {
    tally: Tally<Sums>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for MeanDeviation {
    type Error = crate::error::Error;

    fn try_from(Unchecked { tally }: Unchecked) -> Result<Self> {
        tally.check(|sums| {
            sums.extremes.is_valid() && sums.mean.is_finite() && sums.squares >= 0.0
        })?;
        Ok(Self { tally })
    }
}
