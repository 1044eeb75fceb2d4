//! Cutting a product into tasks: each computes some outputs whole, so that the bits do not depend on
//! how many threads there are.

use ndarray::{ArrayViewMut2, Axis};

use crate::parallel::threads;

/// Rows whose activations stay in the nearer caches while the panels pass by.
const ROWS: usize = 128;
/// Products that are worth a task of their own.
const PRODUCTS: usize = 1 << 20;

/// A part of the output: some rows of some panels.
#[derive(Debug)]
pub(super) struct Task<'a, O> {
    /// The first row.
    pub(super) row: usize,
    /// The first panel.
    pub(super) panel: usize,
    pub(super) out: ArrayViewMut2<'a, O>,
}

/// Cuts the output, `[rows, width]` in row-major order, of a product of some depth into blocks of
/// rows, and these into as many parts as keep every thread busy, none too small to be worth it.
pub(super) fn tasks<O>(
    out: &mut [O],
    [rows, width, depth]: [usize; 3],
    columns: usize,
) -> Vec<Task<'_, O>> {
    let Ok(mut rest) = ArrayViewMut2::from_shape((rows, width), out) else {
        return vec![];
    };
    let panels = width.div_ceil(columns);
    let threads = threads();
    let parts = if threads == 1 {
        1
    } else {
        let products = rows.min(ROWS).saturating_mul(width).saturating_mul(depth);
        let wanted = (4 * threads).div_ceil(rows.div_ceil(ROWS).max(1));
        wanted.min(products / PRODUCTS).max(1)
    };
    let panels_of_a_task = panels.div_ceil(parts).max(1);
    let mut tasks = Vec::new();
    for row in (0..rows).step_by(ROWS) {
        let (mut block, below) = rest.split_at(Axis(0), ROWS.min(rows - row));
        rest = below;
        for panel in (0..panels).step_by(panels_of_a_task) {
            let part = panels_of_a_task * columns;
            let (out, right) = block.split_at(Axis(1), part.min(width - panel * columns));
            block = right;
            tasks.push(Task { row, panel, out });
        }
    }
    tasks
}
