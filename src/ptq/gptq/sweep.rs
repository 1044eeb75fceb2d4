//! The sweep over the columns of some rows: quantize one, and let the later ones make up for it.

mod fit;

use std::ops::Range;

use ndarray::{Array2, ArrayView2, Axis, linalg::general_mat_mul, s};

use super::{
    GroupFit,
    columns::Columns,
    factor::{Diagonal, Factor},
};
use crate::{
    affine::{Affine, loops, scalar::Rule},
    calibrate::Calibrator,
    element::Code,
    error::Result,
    groups::Groups,
    parallel::map_over_pieces,
    scheme::{Granularity, Scheme},
    simd::{Loops, NOTHING, wide},
};
use fit::Lanes;

/// Columns whose errors are carried to the others together.
pub(super) const BLOCK: usize = 128;
/// Rows that are swept together: lanes of the loops, and rows of the products.
const ROWS: usize = 128;
/// Floats between rows of sums, so that rows of 2ᵏ elements do not share a cache set.
const PADDING: usize = 16;

/// What a sweep needs to know; the letters are those of the module's documentation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sweep<'a> {
    /// `W`, `[out, in]`.
    pub(super) weights: ArrayView2<'a, f32>,
    pub(super) groups: &'a Groups,
    /// The parameters of round-to-nearest.
    pub(super) rounding: &'a Affine,
    /// Those of GPTQ, where they are not fitted on the way.
    pub(super) fixed: &'a Affine,
    pub(super) fit: GroupFit,
    pub(super) calibrator: &'a dyn Calibrator,
    /// How much an error in each column counts to the calibrator, in the order of the columns.
    pub(super) importance: Option<&'a [f32]>,
    pub(super) columns: &'a Columns,
    pub(super) factor: &'a Factor,
    /// `β` of first-order correction.
    pub(super) beta: f32,
}

/// What a sweep leaves of some rows.
#[derive(Debug)]
pub(super) struct Swept {
    /// Scales and zero points that were fitted, `[rows, groups of a row]`; empty if none were.
    pub(super) scale: Vec<f32>,
    pub(super) zero: Vec<f32>,
    pub(super) errors: Vec<RowError>,
    /// Those of round-to-nearest.
    pub(super) rounding_errors: Vec<RowError>,
}

/// Errors of one row.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RowError {
    /// `δ (H + λ I) δᵀ / unit`: what the sweep makes small.
    pub(super) damped: f64,
    /// `δ λ I δᵀ / unit`.
    pub(super) added: f64,
    /// `Σ δᵢ² Hᵢᵢ / unit`, damping included: what rounding errors of the others are relative to.
    pub(super) mass: f64,
    /// `δ δᵀ`.
    pub(super) weight: f64,
}

impl RowError {
    /// Counts displacements `δ` of one column and errors `e` of outputs, a row each.
    #[inline(always)]
    fn count(
        errors: &mut [Self],
        deltas: &[f32],
        outputs: &[f32],
        Diagonal { own, added }: Diagonal,
    ) {
        for ((error, &delta), &output) in errors.iter_mut().zip(deltas).zip(outputs) {
            let (delta, output) = (f64::from(delta), f64::from(output));
            error.damped += output * output;
            error.added += added * delta * delta;
            error.mass += (own + added) * delta * delta;
            error.weight += delta * delta;
        }
    }
}

impl Sweep<'_> {
    /// Sweeps all rows; writes their codes, `[out, in]` in row-major order.
    pub(super) fn run<C: Code>(&self, codes: &mut [C]) -> Result<Vec<Swept>> {
        let n = self.weights.ncols();
        let pieces = map_over_pieces(codes, ROWS * n, |start, codes| {
            let rows = start / n..(start + codes.len()) / n;
            State::new(self, rows.start, rows.len()).run(codes)
        });
        pieces.into_iter().collect()
    }

    fn scheme(&self) -> &Scheme {
        self.rounding.scheme()
    }

    /// Whether parameters are fitted to weights as they stand when their group's turn comes.
    fn fits(&self) -> bool {
        self.fit != GroupFit::Static
    }

    /// Parameters from one row to the next, where a row has its own.
    fn stride(&self) -> usize {
        match self.scheme().granularity() {
            Granularity::PerTensor => 0,
            _ => self.groups.parameters() / self.weights.nrows(),
        }
    }

    /// Whether the displacement that is carried on is not that of the codes, or not that alone.
    fn is_modified(&self) -> bool {
        self.factor.asymmetry.is_some() || self.beta != 0.0
    }
}

/// Some rows on their way through the columns. Within a block, columns lie one after the other, so
/// that rows are lanes.
#[derive(Debug)]
struct State<'a, 'w, C> {
    sweep: &'a Sweep<'w>,
    first_row: usize,
    rows: usize,
    /// What earlier columns add to later ones, `[parts · rows, in + PADDING]`. The first part is what
    /// weights are moved by; the others measure: round-to-nearest, and the codes where the first does
    /// not.
    sums: Array2<f32>,
    /// Displacements of the columns of a block, `[BLOCK, parts · rows]`.
    deltas: Array2<f32>,
    /// Weights of a block as they were, and as they are now; `[BLOCK, rows]`.
    original: Array2<f32>,
    moved: Array2<f32>,
    /// The weights that parameters are fitted to, a column a row.
    settled: Array2<f32>,
    /// `[BLOCK, rows]`.
    codes: Vec<C>,
    lanes: Lanes,
    rounding_lanes: Lanes,
    errors: Vec<Vec<RowError>>,
    fitted: Lanes,
}

impl<'a, 'w, C: Code> State<'a, 'w, C> {
    fn new(sweep: &'a Sweep<'w>, first_row: usize, rows: usize) -> Self {
        let parts = if sweep.is_modified() { 3 } else { 2 };
        let fitted = if sweep.fits() { sweep.stride() } else { 0 };
        Self {
            sweep,
            first_row,
            rows,
            sums: Array2::zeros((parts * rows, sweep.weights.ncols() + PADDING)),
            deltas: Array2::zeros((BLOCK, parts * rows)),
            original: Array2::zeros((BLOCK, rows)),
            moved: Array2::zeros((BLOCK, rows)),
            settled: Array2::zeros((0, rows)),
            codes: vec![C::default(); BLOCK * rows],
            lanes: Lanes::new(rows),
            rounding_lanes: Lanes::new(rows),
            errors: vec![vec![RowError::default(); rows]; parts],
            fitted: Lanes::new(rows * fitted),
        }
    }

    fn run(mut self, codes: &mut [C]) -> Result<Swept> {
        let n = self.sweep.weights.ncols();
        let mut start = 0;
        for &end in &self.sweep.columns.block_ends {
            self.load(start, end);
            for position in start..end {
                self.prepare(position, start..end)?;
                wide(QuantizeColumn(&mut self, position, start..end));
            }
            self.carry(start, end);
            for part in 1..self.errors.len() {
                wide(Measure(&mut self, part, start..end));
            }
            for (row, codes) in codes.chunks_mut(n).enumerate() {
                for position in start..end {
                    let code = self.codes[(position - start) * self.rows + row];
                    codes[self.sweep.columns.order[position]] = code;
                }
            }
            start = end;
        }
        let rounding_errors = self.errors.swap_remove(1);
        // What remains is the first part, or first and last, of which the last one measures.
        let errors = self.errors.pop().unwrap_or_default();
        Ok(Swept {
            scale: self.fitted.scale,
            zero: self.fitted.zero,
            errors,
            rounding_errors,
        })
    }

    /// The weights of a block, column by column.
    fn load(&mut self, start: usize, end: usize) {
        for row in 0..self.rows {
            let weights = self.sweep.weights.row(self.first_row + row);
            let sums = self.sums.row(row);
            for position in start..end {
                let weight = weights[self.sweep.columns.order[position]];
                self.original[[position - start, row]] = weight;
                self.moved[[position - start, row]] = weight + sums[position];
            }
        }
    }

    /// Quantizes the column at a position, and moves the later ones of its block.
    #[inline(always)]
    fn quantize(&mut self, position: usize, start: usize, end: usize) {
        let (sweep, rows) = (self.sweep, self.rows);
        let rule = Rule::of(sweep.scheme());
        let j = position - start;
        let (pivot, diagonal) = (
            sweep.factor.pivots[position],
            sweep.factor.diagonal[position],
        );
        let original = row_of(&self.original, j);
        let deltas = self.deltas.row_mut(j).into_slice().unwrap_or_default();
        let (carried, measured) = deltas.split_at_mut(rows);
        let (rounded, measured) = measured.split_at_mut(rows);
        loops::fake_quantize(original, rounded, self.rounding_lanes.view(), rule, NOTHING);
        for (rounded, weight) in rounded.iter_mut().zip(original) {
            *rounded = weight - *rounded;
        }

        let codes = &mut self.codes[j * rows..(j + 1) * rows];
        let (done, mut later) = self.moved.view_mut().split_at(Axis(0), j + 1);
        let done = done.row(j);
        let moved = done.to_slice().unwrap_or_default();
        loops::quantize(moved, codes, self.lanes.view(), rule, NOTHING);
        loops::dequantize(codes, 0, carried, self.lanes.view(), rule, NOTHING);
        let mut outputs = [0.0; ROWS];
        for ((output, moved), value) in outputs.iter_mut().zip(moved).zip(&*carried) {
            *output = (moved - value) * pivot;
        }
        for (carried, weight) in carried.iter_mut().zip(original) {
            *carried = weight - *carried;
        }
        RowError::count(&mut self.errors[0], carried, &outputs, diagonal);
        // Moved weights are rounded to a part of themselves, however small the displacement.
        for (error, moved) in self.errors[0].iter_mut().zip(moved) {
            let size = f64::from(moved / 128.0);
            error.mass += diagonal.own * size * size;
        }
        if sweep.is_modified() {
            measured.copy_from_slice(carried);
            for ((carried, moved), weight) in carried.iter_mut().zip(moved).zip(original) {
                *carried -= sweep.beta * (moved - weight);
            }
        }

        let couplings = sweep.factor.couplings.row(position);
        let couplings = couplings.to_slice().unwrap_or_default();
        let asymmetry = sweep.factor.asymmetry.as_ref();
        let asymmetry = asymmetry.map(|asymmetry| asymmetry.row(position));
        for (k, mut later) in later
            .rows_mut()
            .into_iter()
            .take(end - position - 1)
            .enumerate()
        {
            let later = later.as_slice_mut().unwrap_or_default();
            let coupling = couplings[position + 1 + k];
            for (later, delta) in later.iter_mut().zip(&*carried) {
                *later += delta * coupling;
            }
            if let Some(asymmetry) = &asymmetry {
                let coupling = asymmetry[position + 1 + k];
                for (later, moved) in later.iter_mut().zip(moved) {
                    *later += moved * coupling;
                }
            }
        }
    }

    /// Carries the displacements of a block to all later columns, and within it for the parts that
    /// measure.
    fn carry(&mut self, start: usize, end: usize) {
        let Self {
            sums, deltas, rows, ..
        } = self;
        let couplings = &self.sweep.factor.couplings;
        let deltas = deltas.slice(s![..end - start, ..]);
        let within = couplings.slice(s![start..end, start..end]);
        let mut own = sums.slice_mut(s![*rows.., start..end]);
        general_mat_mul(
            1.0,
            &deltas.slice(s![.., *rows..]).t(),
            &within,
            1.0,
            &mut own,
        );
        let n = couplings.ncols();
        let mut later = sums.slice_mut(s![.., end..n]);
        let beyond = couplings.slice(s![start..end, end..]);
        general_mat_mul(1.0, &deltas.t(), &beyond, 1.0, &mut later);
        if let Some(asymmetry) = &self.sweep.factor.asymmetry {
            let mut later = sums.slice_mut(s![..*rows, end..n]);
            let moved = self.moved.slice(s![..end - start, ..]);
            let beyond = asymmetry.slice(s![start..end, end..]);
            general_mat_mul(1.0, &moved.t(), &beyond, 1.0, &mut later);
        }
    }

    /// Counts the errors of a part that measures, once its displacements are carried.
    #[inline(always)]
    fn measure(&mut self, part: usize, start: usize, end: usize) {
        let rows = self.rows;
        let lanes = part * rows..(part + 1) * rows;
        let sums = self.sums.slice(s![lanes.clone(), start..end]);
        let mut outputs = [0.0; ROWS];
        for position in start..end {
            let deltas = &row_of(&self.deltas, position - start)[lanes.clone()];
            let pivot = self.sweep.factor.pivots[position];
            let sums = sums.column(position - start);
            for ((output, sum), delta) in outputs.iter_mut().zip(sums).zip(deltas) {
                *output = (sum + delta) * pivot;
            }
            let diagonal = self.sweep.factor.diagonal[position];
            RowError::count(&mut self.errors[part], deltas, &outputs, diagonal);
        }
    }
}

fn row_of(values: &Array2<f32>, row: usize) -> &[f32] {
    values.row(row).to_slice().unwrap_or_default()
}

/// [`State::quantize`] of a position in a block.
struct QuantizeColumn<'s, 'a, 'w, C>(&'s mut State<'a, 'w, C>, usize, Range<usize>);

impl<C: Code> Loops for QuantizeColumn<'_, '_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.quantize(self.1, self.2.start, self.2.end);
    }
}

/// [`State::measure`] of a part and a block.
struct Measure<'s, 'a, 'w, C>(&'s mut State<'a, 'w, C>, usize, Range<usize>);

impl<C: Code> Loops for Measure<'_, '_, '_, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.0.measure(self.1, self.2.start, self.2.end);
    }
}
