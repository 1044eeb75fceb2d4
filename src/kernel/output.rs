//! From sums to outputs: scale of the row, bias, clamp, and the type of the output.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{requantization::FixedPoint, tasks::Task};
use crate::{
    affine::scalar::{Rule, integer},
    element::{Code, Element},
    scheme::Scheme,
    simd::{Loops, ask_for, wide},
};

/// Rows of the output that are asked for ahead: no processor expects what lies so far apart.
const ROWS_AHEAD: usize = 8;

/// The sums of some rows and one panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct PanelSums<'a, S> {
    /// The first row and column, of the whole output.
    pub(super) row: usize,
    pub(super) column: usize,
    /// Columns of the panel; those beyond the last one of the output are padding.
    pub(super) columns: usize,
    /// `[row][column]`.
    pub(super) sums: &'a [S],
}

/// Takes the sums of panels.
pub(super) trait Sink<S> {
    fn take(&mut self, sums: PanelSums<'_, S>);
}

/// What an output is made of its sum with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Epilogue<'a> {
    /// A factor for each row; none where sums are in real units.
    pub(super) scale: &'a [f32],
    pub(super) bias: Option<&'a [f32]>,
    pub(super) clamp: Option<(f32, f32)>,
}

impl Epilogue<'_> {
    /// Calls `write(value, out)` for the output of each sum of a row, those from a column on.
    #[inline(always)]
    fn apply<O>(
        &self,
        row: usize,
        column: usize,
        sums: &[f32],
        out: &mut [O],
        mut write: impl FnMut(f32, &mut O),
    ) {
        let scale = self.scale.get(row).copied().unwrap_or(1.0);
        let (low, high) = self.clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let limited = |value: f32| {
            // NaN stays NaN.
            let value = if value < low { low } else { value };
            if value > high { high } else { value }
        };
        if let Some(bias) = self.bias {
            for ((&sum, &bias), out) in sums.iter().zip(&bias[column..]).zip(out) {
                write(limited(sum * scale + bias), out);
            }
        } else {
            for (&sum, out) in sums.iter().zip(out) {
                write(limited(sum * scale + 0.0), out);
            }
        }
    }
}

impl<S> PanelSums<'_, S> {
    /// Makes outputs of the sums of each row, where they belong in a task: `finish(row, sums, out)`.
    #[inline(always)]
    fn write<O>(self, task: &mut Task<'_, O>, mut finish: impl FnMut(usize, &[S], &mut [O])) {
        let from = self.column - task.part.panels.start * self.columns;
        let to = (from + self.columns).min(task.out.ncols());
        for (index, sums) in self.sums.chunks_exact(self.columns).enumerate() {
            let row = self.row + index;
            let of_task = row - task.part.rows.start;
            if of_task + ROWS_AHEAD < task.out.nrows() {
                let ahead = task.out.row(of_task + ROWS_AHEAD);
                ask_for(&ahead.to_slice().unwrap_or_default()[from..to]);
            }
            let mut out = task.out.row_mut(of_task);
            if let Some(out) = out.as_slice_mut() {
                let out = &mut out[from..to];
                finish(row, &sums[..out.len()], out);
            }
        }
    }
}

/// Exact sums as they are.
pub(super) struct Exact<'a>(pub(super) Task<'a, i32>);

impl Sink<i32> for Exact<'_> {
    fn take(&mut self, sums: PanelSums<'_, i32>) {
        sums.write(&mut self.0, |_, sums, out| out.copy_from_slice(sums));
    }
}

/// Floats of the type of the output.
pub(super) struct Floats<'a, O> {
    pub(super) task: Task<'a, O>,
    pub(super) epilogue: Epilogue<'a>,
}

impl<O: Element<Real = f32>> Sink<f32> for Floats<'_, O> {
    fn take(&mut self, sums: PanelSums<'_, f32>) {
        wide(Take(self, sums));
    }
}

/// Taking sums, in plain loops.
struct Take<'a, 'sums, S, K>(&'a mut K, PanelSums<'sums, S>);

impl<O: Element<Real = f32>> Loops for Take<'_, '_, f32, Floats<'_, O>> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(Floats { task, epilogue }, sums) = self;
        let column = sums.column;
        sums.write(task, |row, sums, out| {
            epilogue.apply(row, column, sums, out, |value, out| {
                *out = O::from_real(value);
            });
        });
    }
}

/// Codes of the float outputs.
pub(super) struct Codes<'a, C> {
    pub(super) task: Task<'a, C>,
    pub(super) epilogue: Epilogue<'a>,
    pub(super) to: &'a ToCodes,
}

/// Rounding floats to codes, with the place of the first NaN.
#[derive(Debug)]
pub(super) struct ToCodes {
    rule: Rule<f32>,
    scale: f32,
    zero: f32,
    /// Outputs of a row.
    width: usize,
    first_nan: AtomicUsize,
}

impl ToCodes {
    pub(super) fn new(scheme: &Scheme, scale: f32, zero: f32, width: usize) -> Self {
        Self {
            rule: Rule::of(scheme),
            scale,
            zero,
            width,
            first_nan: AtomicUsize::new(usize::MAX),
        }
    }

    /// Where the first NaN was, in row-major order.
    pub(super) fn found_nan(self) -> Option<usize> {
        let first = self.first_nan.into_inner();
        (first != usize::MAX).then_some(first)
    }
}

impl<C: Code> Sink<f32> for Codes<'_, C> {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer zero point of a code of at most 8 bits"
    )]
    fn take(&mut self, sums: PanelSums<'_, f32>) {
        let (epilogue, to, column) = (self.epilogue, self.to, sums.column);
        let Rule::Integer {
            quant_min,
            quant_max,
        } = to.rule
        else {
            return;
        };
        sums.write(&mut self.task, |row, sums, out| {
            let (mut index, mut nan) = (0, None);
            epilogue.apply(row, column, sums, out, |value, out| {
                if value.is_nan() {
                    nan = nan.or(Some(index));
                }
                let (_, distance) = integer(value, to.scale, to.zero, quant_min, quant_max);
                *out = C::truncate(distance.wrapping_add(to.zero as i32));
                index += 1;
            });
            if let Some(index) = nan {
                let at = row * to.width + column + index;
                to.first_nan.fetch_min(at, Ordering::Relaxed);
            }
        });
    }
}

/// Codes by integers alone.
pub(super) struct FixedCodes<'a, C> {
    pub(super) task: Task<'a, C>,
    pub(super) stage: &'a FixedPoint,
}

impl<C: Code> Sink<i32> for FixedCodes<'_, C> {
    fn take(&mut self, sums: PanelSums<'_, i32>) {
        let (stage, column) = (self.stage, sums.column);
        sums.write(&mut self.task, |_, sums, out| {
            for (index, (&sum, out)) in sums.iter().zip(out).enumerate() {
                *out = C::truncate(stage.code(column + index, sum));
            }
        });
    }
}
