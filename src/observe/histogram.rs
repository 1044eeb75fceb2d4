//! Histograms whose bins are dyadic intervals.

/// Counts of elements in bins of equal, power-of-two width.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram {}
