//! The parameters of the columns of a block: read, or fitted to the weights as they are moved.

use std::ops::Range;

use ndarray::{Array2, Axis, s};

use super::{super::GroupFit, State, Sweep};
use crate::{
    affine::{Affine, Parameter, loops::SpanParameters},
    element::Code,
    error::{Error, Result},
    observe::Statistics,
    simd::{Loops, wide},
};

/// Parameters of one column, a row each.
#[derive(Debug)]
pub(super) struct Lanes {
    pub(super) scale: Vec<f32>,
    pub(super) zero: Vec<f32>,
}

impl Lanes {
    pub(super) fn new(rows: usize) -> Self {
        Self {
            scale: vec![1.0; rows],
            zero: vec![0.0; rows],
        }
    }

    /// Reads those of the column at a position.
    pub(super) fn read(
        &mut self,
        affine: &Affine,
        sweep: &Sweep<'_>,
        first_row: usize,
        position: usize,
    ) {
        let (column, n) = (sweep.columns.order[position], sweep.weights.ncols());
        let stride = sweep.stride();
        let lanes = self.scale.iter_mut().zip(&mut self.zero).enumerate();
        for (lane, (scale, zero)) in lanes {
            let row = first_row + lane;
            let parameter = match &sweep.columns.groups {
                Some(groups) => row * stride + groups[position],
                None => sweep.groups.parameter_of(row * n + column),
            };
            *scale = affine.scale()[parameter];
            *zero = affine.zero_point()[parameter];
        }
    }

    #[inline(always)]
    pub(super) fn view(&self) -> SpanParameters<'_> {
        SpanParameters::of_each(&self.scale, &self.zero)
    }
}

impl<C: Code> State<'_, '_, C> {
    /// The parameters of the column at a position, fitted if its group begins there.
    pub(super) fn prepare(&mut self, position: usize, block: Range<usize>) -> Result<()> {
        let sweep = self.sweep;
        let group_end = sweep.columns.group_end(position);
        let same_group = sweep.columns.groups.is_some() && group_end.is_none();
        if same_group {
            return Ok(());
        }
        self.rounding_lanes
            .read(sweep.rounding, sweep, self.first_row, position);
        self.lanes
            .read(sweep.fixed, sweep, self.first_row, position);
        match group_end {
            Some(end) if sweep.fits() => self.fit(position, end, block),
            _ => Ok(()),
        }
    }

    /// Fits the parameters of the group at positions `from..to` to the weights as they are now, or
    /// as they were when the block began.
    fn fit(&mut self, from: usize, to: usize, block: Range<usize>) -> Result<()> {
        let sweep = self.sweep;
        let group = sweep
            .columns
            .groups
            .as_ref()
            .map_or(0, |groups| groups[from]);
        if sweep.fit == GroupFit::Fresh {
            self.settle(from, to, block.start);
        } else if from == block.start {
            self.settle(from, to.max(block.end), block.start);
        }
        let first = if sweep.fit == GroupFit::Fresh {
            from
        } else {
            block.start
        };
        let mut values = vec![0.0; to - from];
        for row in 0..self.rows {
            let column = self.settled.column(row);
            for (value, settled) in values.iter_mut().zip(column.slice(s![from - first..])) {
                *value = *settled;
            }
            if let Some(parameter) = self.parameter_of(&values, from)? {
                self.lanes.scale[row] = parameter.scale;
                self.lanes.zero[row] = parameter.zero_point;
            }
            let at = row * sweep.stride() + group;
            self.fitted.scale[at] = self.lanes.scale[row];
            self.fitted.zero[at] = self.lanes.zero[row];
        }
        Ok(())
    }

    /// The weights at positions `from..to` as they would have to be, real numbers, to make up for
    /// the columns before `from` together: what the papers' updates leave in `W`. (A moved weight of
    /// this module takes those between it and `from` to stay what they were, until their turn.)
    fn settle(&mut self, from: usize, to: usize, start: usize) {
        let (sweep, rows) = (self.sweep, self.rows);
        let mut original = Array2::zeros((to - from, rows));
        let mut settled = Array2::zeros((to - from, rows));
        for row in 0..rows {
            let weights = sweep.weights.row(self.first_row + row);
            let sums = self.sums.row(row);
            for position in from..to {
                let weight = weights[sweep.columns.order[position]];
                original[[position - from, row]] = weight;
                settled[[position - from, row]] = if from > start {
                    self.moved[[position - start, row]]
                } else {
                    weight + sums[position]
                };
            }
        }
        // Before the first column is quantized, there is nothing to make up for.
        if from > 0 {
            wide(Substitute {
                sweep,
                from,
                original: &original,
                settled: &mut settled,
            });
        }
        self.settled = settled;
    }

    /// The parameters that a calibrator chooses for weights from a position on; `None` if they have
    /// grown beyond what the scheme can hold, so that the row is lost and will be rounded.
    fn parameter_of(&self, values: &[f32], from: usize) -> Result<Option<Parameter>> {
        if values.iter().any(|value| !value.is_finite()) {
            return Ok(None);
        }
        let mut statistics = Statistics::of_values(values)?;
        if let Some(importance) = self.sweep.importance {
            statistics = statistics.with_importance(&importance[from..from + values.len()])?;
        }
        let scheme = self.sweep.scheme();
        let range = self.sweep.calibrator.range(&statistics, scheme)?;
        match Parameter::from_range(scheme, range) {
            Ok(parameter) => Ok(Some(parameter)),
            Err(Error::InvalidScale { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }
}

/// Moves each column from a position on by the displacements of those before it, which follow from
/// how far they have been moved themselves.
struct Substitute<'s, 'w> {
    sweep: &'s Sweep<'w>,
    from: usize,
    original: &'s Array2<f32>,
    settled: &'s mut Array2<f32>,
}

impl Loops for Substitute<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (i, original) in self.original.rows().into_iter().enumerate() {
            let (done, mut later) = self.settled.view_mut().split_at(Axis(0), i + 1);
            let displaced = &original - &done.row(i);
            let displaced = displaced.as_slice().unwrap_or_default();
            let couplings = self.sweep.factor.couplings.row(self.from + i);
            let couplings = couplings.slice(s![self.from + i + 1..]);
            for (mut later, &coupling) in later.rows_mut().into_iter().zip(couplings) {
                let later = later.as_slice_mut().unwrap_or_default();
                for (later, delta) in later.iter_mut().zip(displaced) {
                    *later += delta * coupling;
                }
            }
        }
    }
}
