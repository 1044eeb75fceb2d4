//! Nothing is clipped.

use super::Calibrator;
use crate::{affine::Range, error::Result, observe::Statistics, scheme::Scheme};

/// From the least to the greatest element seen ("min-max", "absmax").
///
/// ```
/// use lowbit::{Calibrator, Scheme, calibrate::FullRange, observe::Statistics};
/// let statistics = Statistics::of_values(&[-1.0, 0.5, 2.0])?;
/// let range = FullRange.range(&statistics, &Scheme::int(8).build()?)?;
/// assert_eq!((range.min(), range.max()), (-1.0, 2.0));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FullRange;

impl Calibrator for FullRange {
    fn range(&self, statistics: &Statistics<'_>, _scheme: &Scheme) -> Result<Range> {
        Ok(statistics.range())
    }
}
