//! Cutting a product into parts: each computes some outputs whole, so that the bits do not depend on
//! how many threads there are.

use std::ops::Range;

use ndarray::{ArrayViewMut2, Axis};

use super::scratch::Scratch;
use crate::parallel::{join, threads};

/// Products that are worth a part of their own.
const PRODUCTS: usize = 1 << 20;
/// Parts for each thread, so that one that is late does not keep the others waiting.
const PARTS_OF_A_THREAD: usize = 4;

/// A pass of some rows over the panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    /// Rows that share a pass, whose activations stay in the outer caches while the panels pass by:
    /// fewer read the weights more often.
    pub(super) rows: usize,
    /// Columns of a panel.
    pub(super) columns: usize,
}

/// Some rows of some panels.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) rows: Range<usize>,
    pub(super) panels: Range<usize>,
}

/// A product of which some output, `[rows, columns]` of its part, is to be computed.
#[derive(Debug)]
pub(super) struct Task<'a, O> {
    pub(super) part: Part,
    pub(super) out: ArrayViewMut2<'a, O>,
}

/// Computes the output, `[rows, width]` in row-major order, of a product of some depth: calls
/// `work` for parts of it, on at most so many threads.
pub(super) fn over_parts<'a, O: Send>(
    out: &'a mut [O],
    [rows, width, depth]: [usize; 3],
    pass: Pass,
    most_threads: usize,
    scratch: &mut Vec<Scratch>,
    work: &(impl Fn(Task<'a, O>, &mut Scratch) + Sync),
) {
    let Ok(out) = ArrayViewMut2::from_shape((rows, width), out) else {
        return;
    };
    let products = rows.saturating_mul(width).saturating_mul(depth);
    let parts = most_parts(threads(), most_threads)
        .min(products / PRODUCTS)
        .max(1);
    if scratch.len() < parts {
        scratch.resize_with(parts, Scratch::default);
    }
    let part = Part {
        rows: 0..rows,
        panels: 0..width.div_ceil(pass.columns),
    };
    split(Task { part, out }, pass, &mut scratch[..parts], work);
}

/// Parts for the threads of a pool, of which so many at most are to be used: no more than those, since
/// any thread that is idle takes one.
fn most_parts(pool: usize, most_threads: usize) -> usize {
    match pool.min(most_threads) {
        0..=1 => 1,
        threads if threads < pool => threads,
        threads => PARTS_OF_A_THREAD * threads,
    }
}

/// Computes a task in as many parts as there is scratch memory for.
fn split<'a, O: Send>(
    task: Task<'a, O>,
    pass: Pass,
    scratch: &mut [Scratch],
    work: &(impl Fn(Task<'a, O>, &mut Scratch) + Sync),
) {
    let Task { part, out } = task;
    let half = scratch.len() / 2;
    let share = |len: usize| len * half / scratch.len().max(1);
    let (rows, panels) = (share(part.rows.len()), share(part.panels.len()));
    let (mut left, mut right) = (part.clone(), part);
    let (axis, at) = if panels > 0 {
        left.panels.end = left.panels.start + panels;
        right.panels.start = left.panels.end;
        (Axis(1), (panels * pass.columns).min(out.ncols()))
    } else if rows > 0 {
        left.rows.end = left.rows.start + rows;
        right.rows.start = left.rows.end;
        (Axis(0), rows)
    } else {
        if let Some(scratch) = scratch.first_mut() {
            by_rows(Task { part: left, out }, pass.rows, scratch, work);
        }
        return;
    };
    let (first, second) = out.split_at(axis, at);
    let (mine, others) = scratch.split_at_mut(half);
    let left = Task {
        part: left,
        out: first,
    };
    let right = Task {
        part: right,
        out: second,
    };
    join(
        || split(left, pass, mine, work),
        || split(right, pass, others, work),
    );
}

/// Computes a task, some rows after the others.
fn by_rows<'a, O>(
    task: Task<'a, O>,
    rows_of_pass: usize,
    scratch: &mut Scratch,
    work: &impl Fn(Task<'a, O>, &mut Scratch),
) {
    let Task { part, mut out } = task;
    for first in part.rows.clone().step_by(rows_of_pass.max(1)) {
        let rows = rows_of_pass.min(part.rows.end - first);
        let (now, rest) = out.split_at(Axis(0), rows);
        out = rest;
        let part = Part {
            rows: first..first + rows,
            panels: part.panels.clone(),
        };
        work(Task { part, out: now }, scratch);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_no_more_parts_than_threads_may_take() {
        for (pool, most, parts) in [
            (1, 1, 1),
            (1, usize::MAX, 1),
            (8, 0, 1),
            (8, 1, 1),
            (8, 2, 2),
            (8, 7, 7),
            (8, 8, 32),
            (8, usize::MAX, 32),
        ] {
            assert_eq!(most_parts(pool, most), parts, "{most} of {pool}");
        }
    }

    #[test]
    fn every_output_is_in_one_part() {
        for (rows, width, depth) in [(1, 4096, 4096), (300, 70, 4096), (2000, 8, 1024), (5, 3, 2)] {
            let mut out = vec![0_u8; rows * width];
            let mut scratch = vec![];
            over_parts(
                &mut out,
                [rows, width, depth],
                Pass {
                    rows: 100,
                    columns: 16,
                },
                usize::MAX,
                &mut scratch,
                &|task: Task<'_, u8>, _| {
                    let Part { rows, panels } = task.part;
                    assert_eq!(task.out.nrows(), rows.len());
                    assert_eq!(
                        task.out.ncols(),
                        (panels.end * 16).min(width) - panels.start * 16
                    );
                    for out in task.out {
                        *out += 1;
                    }
                },
            );
            assert!(out.iter().all(|&count| count == 1), "{rows} {width}");
        }
    }
}
