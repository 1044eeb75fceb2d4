//! Ranges that rows are tried under, beside the one of the calibrator.

use crate::{
    affine::{Range, Ranges},
    error::Result,
};

/// The least and the greatest multiple.
const ENDS: (f32, f32) = (0.7, 1.2);

/// So many multiples, evenly from the least to the greatest; one alone is the least.
pub(super) fn multiples(count: u16) -> impl Iterator<Item = f32> {
    let step = (ENDS.1 - ENDS.0) / f32::from(count.max(2) - 1);
    (0..count).map(move |index| ENDS.0 + step * f32::from(index))
}

/// Ranges at a multiple; those that floats do not hold then stay as they are.
pub(super) fn scaled(ranges: &Ranges, multiple: f32) -> Result<Ranges> {
    let scale = |range: &Range| Range::new(range.min() * multiple, range.max() * multiple);
    let all = ranges.as_slice().iter();
    let scaled = all.map(|range| scale(range).unwrap_or(*range));
    Ranges::new(ranges.shape(), scaled.collect())
}
