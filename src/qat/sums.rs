//! Sums over the elements that share a parameter, in f64, in an order that threads do not change.

use std::ops::Range;

use crate::{groups::Span, simd::reduce};

/// A sum for each of consecutive parameters.
#[derive(Debug)]
pub(super) struct GroupSums {
    first: usize,
    sums: Vec<f64>,
}

impl GroupSums {
    /// Zeros for the parameters from `first` up to `end`.
    pub(super) fn zeros(parameters: &Range<usize>) -> Self {
        Self {
            first: parameters.start,
            sums: vec![0.0; parameters.len()],
        }
    }

    /// Adds values that belong to the elements of a span.
    #[inline(always)]
    pub(super) fn add(&mut self, span: &Span, values: &[f32]) {
        let sums = self.of_span(span);
        if span.share == 1 {
            for (total, &value) in sums.iter_mut().zip(values) {
                *total += f64::from(value);
            }
        } else {
            for (total, group) in sums.iter_mut().zip(span.groups()) {
                *total += sum(&values[group]);
            }
        }
    }

    /// The sums of the parameters from the first one of a span on.
    #[inline(always)]
    pub(super) fn of_span(&mut self, span: &Span) -> &mut [f64] {
        &mut self.sums[span.parameter - self.first..]
    }

    /// The sums of pieces, in their order.
    pub(super) fn total<'a>(parameters: usize, pieces: impl Iterator<Item = &'a Self>) -> Vec<f64> {
        let mut total = vec![0.0; parameters];
        for piece in pieces {
            for (sum, &part) in total[piece.first..].iter_mut().zip(&piece.sums) {
                *sum += part;
            }
        }
        total
    }
}

/// The sum in f64.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    reduce(values, 0.0, 0.0, |sum, x| sum + f64::from(x), |a, b| a + b)
}
