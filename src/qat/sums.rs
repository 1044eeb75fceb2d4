//! Sums over the elements that share a parameter, in f64, in an order that threads do not change.

use std::ops::Range;

use crate::{
    groups::{Groups, Run},
    parallel::PIECE,
    scheme::Granularity,
};

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

    /// Adds values that belong to the elements of a run from its element `at` on; `sum` adds up
    /// those that share a parameter.
    #[inline]
    pub(super) fn add(
        &mut self,
        run: &Run,
        at: usize,
        values: &[f32],
        sum: impl Fn(&[f32]) -> f64,
    ) {
        let parameter = run.parameter - self.first;
        if run.each {
            let first = parameter + at;
            for (sum, &value) in self.sums[first..].iter_mut().zip(values) {
                *sum += f64::from(value);
            }
        } else {
            self.sums[parameter] += sum(values);
        }
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

/// The parameters that some elements use, and perhaps others between them.
pub(super) fn parameters_of(groups: &Groups, elements: Range<usize>) -> Range<usize> {
    if elements.is_empty() {
        return 0..0;
    }
    if let Granularity::PerTensor | Granularity::PerRow | Granularity::PerGroup(_) =
        groups.granularity()
    {
        return groups.parameter_of(elements.start)..groups.parameter_of(elements.end - 1) + 1;
    }
    // Runs do not go through the parameters in order where groups lie across rows.
    let (mut first, mut end) = (usize::MAX, 0);
    for run in groups.runs(elements) {
        first = first.min(run.parameter);
        end = end.max(run.parameter + if run.each { run.len } else { 1 });
    }
    first..end
}

/// Elements in a piece: more than usual where a piece touches many parameters, so that its sums
/// take little memory beside it. A function of the groups alone.
pub(super) fn piece_size(groups: &Groups) -> usize {
    PIECE.max(16 * parameters_of(groups, 0..PIECE.min(groups.len())).len())
}

/// Eight sums at a time, which vectorizes, and their sum.
pub(super) fn sum(values: &[f32]) -> f64 {
    const LANES: usize = 8;
    let mut lanes = [0.0_f64; LANES];
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(chunks.remainder()) {
        *lane += f64::from(value);
    }
    lanes.iter().sum()
}
