//! The least and the greatest element seen.

use ndarray::ArrayViewD;

use super::{
    Observer, Statistics,
    tally::{State, Tally, nothing_seen, same_kind},
};
use crate::{
    affine::{Range, extent},
    error::Result,
    scheme::Granularity,
};

/// The least and the greatest element seen, of each group of elements.
///
/// Neither the order nor the split of the batches changes it.
///
/// ```
/// use lowbit::{Granularity, Observer, ObserverExt, observe::MinMax};
/// use ndarray::array;
///
/// let mut observer = MinMax::new(Granularity::PerAxis(1)); // a range for each column
/// observer.observe(&array![[1.0_f32, -2.0], [3.0, 0.5]])?;
/// observer.observe(&array![[-1.0_f32, 4.0]])?;
/// assert_eq!(observer.statistics(0)?.range().min(), -1.0);
/// assert_eq!(observer.statistics(1)?.range().max(), 4.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct MinMax {
    tally: Tally<Extremes>,
}

impl MinMax {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new(granularity: Granularity) -> Self {
        Self {
            tally: Tally::new(granularity),
        }
    }
}

impl Observer for MinMax {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        self.tally.observe(batch, Extremes::take)
    }

    fn granularity(&self) -> Granularity {
        self.tally.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.tally.shape()
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        let state = self.tally.state(parameter)?;
        let range = state.range().ok_or_else(|| nothing_seen("min-max"))?;
        Ok(Statistics::new("min-max", state.count, range))
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        self.tally
            .merge(&same_kind::<Self>(other)?.tally, Extremes::merge)
    }

    fn reset(&mut self) {
        self.tally.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self::new(self.granularity()))
    }
}

/// How many elements were seen, and the extremes of them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) struct Extremes {
    pub(super) count: u64,
    min: f32,
    max: f32,
}

impl State for Extremes {
    fn count(&self) -> u64 {
        self.count
    }
}

impl Extremes {
    /// From the least to the greatest element, if there was any.
    pub(super) fn range(&self) -> Option<Range> {
        (self.count > 0)
            .then(|| Range::new(self.min, self.max).ok())
            .flatten()
    }
}

impl Extremes {
    pub(super) fn take(&mut self, values: &[f32]) {
        let (min, max, _) = extent(values);
        self.merge(&Self {
            count: values.len() as u64,
            min,
            max,
        });
    }

    /// Whether stored extremes can have come from values.
    #[cfg(feature = "serde")]
    pub(super) fn is_valid(&self) -> bool {
        self.count == 0 || self.range().is_some()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        if self.count == 0 {
            *self = *other;
        } else if other.count > 0 {
            self.count += other.count;
            self.min = self.min.min(other.min);
            self.max = self.max.max(other.max);
        }
    }
}

/// What a stored observer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "MinMax")]
struct Unchecked {
    tally: Tally<Extremes>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for MinMax {
    type Error = crate::error::Error;

    fn try_from(Unchecked { tally }: Unchecked) -> Result<Self> {
        tally.check(Extremes::is_valid)?;
        Ok(Self { tally })
    }
}
