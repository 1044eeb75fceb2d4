//! Statistics as weighted points: values as they are, or the middles of bins.

use std::borrow::Cow;

use crate::{error::Result, observe::Statistics};

/// Numbers and how much each counts.
pub(super) struct Points<'a> {
    pub(super) values: Cow<'a, [f32]>,
    /// `None` where all count alike.
    pub(super) weights: Option<Cow<'a, [f32]>>,
}

impl<'a> Points<'a> {
    /// The values that are at hand with their importance, else the bins of the histogram that hold
    /// anything.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "the middle of a bin and the share of it need not be exact"
    )]
    pub(super) fn of(statistics: &Statistics<'a>) -> Result<Self> {
        if let Some(values) = statistics.values() {
            return Ok(Self {
                values: Cow::Borrowed(values),
                weights: statistics.importance().map(Cow::Borrowed),
            });
        }
        let histogram = statistics.histogram()?;
        let total = histogram.total().max(1) as f64;
        let range = statistics.range();
        let filled = histogram.bins().filter(|bin| bin.count > 0);
        let (values, weights) = filled
            .map(|bin| {
                let middle = (bin.lower + (bin.upper - bin.lower) / 2.0) as f32;
                let share = (bin.count as f64 / total) as f32;
                (middle.clamp(range.min(), range.max()), share)
            })
            .unzip();
        Ok(Self {
            values: Cow::Owned(values),
            weights: Some(Cow::Owned(weights)),
        })
    }
}
