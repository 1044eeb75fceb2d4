//! Sums over the elements that share a parameter, in f64, in an order that threads do not change.

use std::ops::Range;

use crate::{
    groups::{Groups, Span},
    parallel::PIECE,
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

/// Elements in a piece: more than usual where a piece touches many parameters, so that its sums
/// take little memory beside it. A function of the groups alone.
pub(super) fn piece_size(groups: &Groups) -> usize {
    PIECE.max(16 * groups.parameters_of(0..PIECE.min(groups.len())).len())
}

/// The sum in f64: as many at a time as keeps the vectors of every instruction set busy, then by
/// halves.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    const LANES: usize = 32;
    let mut lanes = [0.0_f64; LANES];
    let add = |lanes: &mut [f64; LANES], chunk: &[f32; LANES]| {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value);
        }
    };
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        add(&mut lanes, chunk);
    }
    if !rest.is_empty() {
        let mut last = [0.0; LANES];
        last[..rest.len()].copy_from_slice(rest);
        add(&mut lanes, &last);
    }
    let [sum] = halved(halved::<2, _>(halved::<4, _>(halved::<8, _>(halved::<
        16,
        _,
    >(lanes)))));
    sum
}

/// The sums of the elements of the first half and those of the second.
#[inline(always)]
fn halved<const HALF: usize, const ALL: usize>(lanes: [f64; ALL]) -> [f64; HALF] {
    std::array::from_fn(|at| lanes[at] + lanes[at + HALF])
}
