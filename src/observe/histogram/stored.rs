//! Histograms that were stored, before they are believed.

use super::{Histogram, MOST_BINS, exponent_for, span, to_i64};
#[cfg(feature = "serde")]
use crate::error::{Error, Result};
use crate::observe::tally::MOST_ELEMENTS;

impl Histogram {
    /// Whether counts and extremes can have come from values, in at most `limit` bins.
    pub(crate) fn is_valid(&self, limit: usize) -> bool {
        self.is_consistent()
            && (self.counts.is_empty() || self.exponent == exponent_for(self.min, self.max, limit))
    }

    /// Whether counts and extremes can have come from values, in however many bins.
    fn is_consistent(&self) -> bool {
        if self.counts.is_empty() {
            return *self == Self::default();
        }
        let Some(_) = self.range() else { return false };
        let exponent = |limit: usize| exponent_for(self.min, self.max, limit);
        if !(exponent(MOST_BINS)..=exponent(2)).contains(&self.exponent) {
            return false;
        }
        let total = self
            .counts
            .iter()
            .try_fold(0_u64, |sum, &count| sum.checked_add(count));
        let (first, last) = span(self.min, self.max, self.exponent);
        total.is_some_and(|total| total <= MOST_ELEMENTS)
            && self.first == first
            && to_i64(self.counts.len()) == last - first + 1
            && self.counts.first().is_some_and(|&count| count > 0)
            && self.counts.last().is_some_and(|&count| count > 0)
    }
}

/// What a stored histogram says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Histogram")]
pub(super) struct Unchecked {
    exponent: i32,
    first: i64,
    counts: Vec<u64>,
    min: f32,
    max: f32,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Histogram {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let histogram = Self {
            exponent: stored.exponent,
            first: stored.first,
            counts: stored.counts,
            min: stored.min,
            max: stored.max,
        };
        if histogram.is_consistent() {
            return Ok(histogram);
        }
        Err(Error::Mismatch {
            what: "histogram",
            expected: "bins from the one of the least element to the one of the greatest".into(),
            got: format!(
                "{} bins from {} on, of width 2^{}, for [{}, {}]",
                histogram.counts.len(),
                histogram.first,
                histogram.exponent,
                histogram.min,
                histogram.max
            ),
        })
    }
}
