//! The law that no row gets worse than by rounding each weight to nearest.

use ndarray::{Array2, Axis, aview1, linalg::general_mat_mul, s};

use super::{
    factor::narrow,
    sweep::{RowError, Sweep, Swept},
};
use crate::{
    affine::{
        Affine,
        loops::{self, SpanParameters},
        scalar::Rule,
    },
    element::Code,
    error::Result,
    observe::{Hessian, InputDeviation},
    parallel::map_pieces,
    simd::NOTHING,
};

/// The rounding error of an output, relative to the displacements that make it: some ulps of f32.
const NOISE: f64 = 1e-5;

/// Compares rows as GPTQ and as round-to-nearest have them.
pub(super) struct Guard<'a, 'w> {
    pub(super) sweep: &'a Sweep<'w>,
    pub(super) hessian: &'a Hessian,
    pub(super) deviation: Option<&'a InputDeviation>,
}

/// What a sweep made of all rows.
pub(super) struct Candidate<C> {
    codes: Vec<C>,
    affine: Affine,
    rows: Vec<Row>,
}

/// The better of GPTQ and round-to-nearest, row by row.
pub(super) struct Kept<C> {
    pub(super) codes: Vec<C>,
    pub(super) affine: Affine,
    pub(super) rounded_rows: usize,
    pub(super) weight_error: f64,
    pub(super) output_error: f64,
    pub(super) rounding_error: f64,
}

/// One row, two ways; errors in real units.
#[derive(Clone, Copy)]
struct Row {
    gptq: f64,
    rounding: f64,
    /// Below this, their difference says nothing.
    noise: f64,
    /// What the deviation of the inputs adds to each.
    linear: [f64; 2],
    /// `δ δᵀ` of each.
    weight: [f64; 2],
}

impl Row {
    fn new(unit: f64, gptq: RowError, rounding: RowError) -> Self {
        let real = |error: RowError| unit * (error.damped - error.added).max(0.0);
        let noise = |RowError { damped, mass, .. }: RowError| {
            unit * (NOISE * damped + 2.0 * NOISE * (damped * mass).sqrt() + NOISE * NOISE * mass)
        };
        Self {
            gptq: real(gptq),
            rounding: real(rounding),
            noise: noise(gptq) + noise(rounding),
            linear: [0.0; 2],
            weight: [gptq.weight, rounding.weight],
        }
    }

    fn gain(&self) -> f64 {
        self.rounding + self.linear[1] - self.gptq - self.linear[0]
    }
}

impl<C: Code> Candidate<C> {
    /// Takes those rows of another that gain more; rows are to have one scale and zero point each.
    pub(super) fn take_better_rows(&mut self, other: &Self) -> Result<()> {
        let n = self.codes.len() / self.rows.len().max(1);
        let mut scale = self.affine.scale().to_vec();
        let mut zero = self.affine.zero_point().to_vec();
        for (index, (own, theirs)) in self.rows.iter_mut().zip(&other.rows).enumerate() {
            // A row that was lost on the way gains nothing that is a number.
            if theirs.gain() > own.gain() || own.gain().is_nan() {
                *own = *theirs;
                scale[index] = other.affine.scale()[index];
                zero[index] = other.affine.zero_point()[index];
                let codes = index * n..(index + 1) * n;
                self.codes[codes.clone()].copy_from_slice(&other.codes[codes]);
            }
        }
        self.affine = Affine::new(*self.affine.scheme(), self.affine.shape(), scale, zero)?;
        Ok(())
    }
}

impl Guard<'_, '_> {
    /// What a sweep left, and how much each row gained.
    pub(super) fn candidate<C: Code>(
        &self,
        codes: Vec<C>,
        swept: &[Swept],
    ) -> Result<Candidate<C>> {
        let (mut scale, mut zero): (Vec<f32>, Vec<f32>) = Default::default();
        let mut rows = Vec::with_capacity(self.sweep.weights.nrows());
        for piece in swept {
            scale.extend(&piece.scale);
            zero.extend(&piece.zero);
            let errors = piece.errors.iter().zip(&piece.rounding_errors);
            rows.extend(
                errors.map(|(&gptq, &rounding)| Row::new(self.sweep.factor.unit, gptq, rounding)),
            );
        }
        let rounding = self.sweep.rounding;
        if scale.is_empty() {
            scale.extend(self.sweep.fixed.scale());
            zero.extend(self.sweep.fixed.zero_point());
        }
        let fitted = Affine::new(*rounding.scheme(), rounding.shape(), scale, zero)?;
        if let Some(deviation) = self.deviation {
            self.count_deviation(deviation, &codes, &fitted, &mut rows)?;
        }
        Ok(Candidate {
            codes,
            affine: fitted,
            rows,
        })
    }

    /// Puts the codes and parameters of round-to-nearest where GPTQ made a row worse.
    pub(super) fn keep_the_better<C: Code>(&self, candidate: Candidate<C>) -> Result<Kept<C>> {
        let Candidate {
            mut codes,
            affine,
            mut rows,
        } = candidate;
        self.count_again(&codes, &affine, &mut rows)?;

        let rounding = self.sweep.rounding;
        let (mut scale, mut zero) = (affine.scale().to_vec(), affine.zero_point().to_vec());
        let mut kept = Kept {
            codes: vec![],
            affine,
            rounded_rows: 0,
            weight_error: 0.0,
            output_error: 0.0,
            rounding_error: 0.0,
        };
        let n = self.sweep.weights.ncols();
        for (index, (row, codes)) in rows.iter().zip(codes.chunks_mut(n)).enumerate() {
            kept.rounding_error += row.rounding;
            // Of a row that was lost on the way, errors are not numbers.
            if row.gain() >= 0.0 {
                kept.output_error += row.gptq;
                kept.weight_error += row.weight[0];
                continue;
            }
            kept.rounded_rows += 1;
            kept.output_error += row.rounding;
            kept.weight_error += row.weight[1];
            self.round(index, codes);
            if self.sweep.columns.rows_own_parameters {
                let groups = scale.len() / rows.len();
                let own = index * groups..(index + 1) * groups;
                scale[own.clone()].copy_from_slice(&rounding.scale()[own.clone()]);
                zero[own.clone()].copy_from_slice(&rounding.zero_point()[own]);
            }
        }
        kept.affine = Affine::new(*rounding.scheme(), rounding.shape(), scale, zero)?;
        kept.codes = codes;
        Ok(kept)
    }

    /// Adds `2 δ (w C)ᵀ`: what a displacement costs more, or less, because the inputs deviate.
    fn count_deviation<C: Code>(
        &self,
        deviation: &InputDeviation,
        codes: &[C],
        affine: &Affine,
        rows: &mut [Row],
    ) -> Result<()> {
        const ROWS: usize = 128;
        let unit = self.sweep.factor.unit;
        let cross = deviation.cross()?.mapv(|value| narrow(value / unit));
        let weights = &self.sweep.weights;
        let pieces = map_pieces(rows.len(), ROWS, |rows| {
            let weights = weights.slice(s![rows.clone(), ..]);
            let mut outputs = Array2::<f32>::zeros(weights.raw_dim());
            general_mat_mul(1.0, &weights, &cross, 0.0, &mut outputs);
            let both = rows.zip(outputs.rows());
            both.map(|(row, outputs)| {
                [self.moved(row, codes, affine), self.rounded(row)].map(|delta| {
                    let products = delta.iter().zip(outputs);
                    let terms = products.map(|(&d, &y)| f64::from(d) * f64::from(y));
                    2.0 * unit * terms.sum::<f64>()
                })
            })
            .collect::<Vec<_>>()
        });
        for (row, linear) in rows.iter_mut().zip(pieces.into_iter().flatten()) {
            row.linear = linear;
        }
        Ok(())
    }

    /// Counts errors again, with the Hessian itself, where they are too close to tell.
    fn count_again<C: Code>(&self, codes: &[C], affine: &Affine, rows: &mut [Row]) -> Result<()> {
        let close = |(index, row): (usize, &Row)| {
            (row.gain().abs() <= row.noise && row.noise > 0.0).then_some(index)
        };
        let close: Vec<usize> = rows.iter().enumerate().filter_map(close).collect();
        for close in close.chunks(256) {
            let mut deltas = Array2::zeros((2 * close.len(), self.sweep.weights.ncols()));
            for (&row, mut pair) in close.iter().zip(deltas.axis_chunks_iter_mut(Axis(0), 2)) {
                let both = [self.moved(row, codes, affine), self.rounded(row)];
                for (mut out, delta) in pair.rows_mut().into_iter().zip(both) {
                    out.assign(&aview1(&delta));
                }
            }
            let errors = self.hessian.row_errors(&deltas)?;
            for (&row, pair) in close.iter().zip(errors.exact_chunks(2)) {
                (rows[row].gptq, rows[row].rounding) = (pair[0], pair[1]);
            }
        }
        Ok(())
    }

    /// The displacements of a row under its codes.
    fn moved<C: Code>(&self, row: usize, codes: &[C], affine: &Affine) -> Vec<f32> {
        let n = self.sweep.weights.ncols();
        let codes = &codes[row * n..(row + 1) * n];
        self.displacements(row, affine, |at, _, values, parameters, rule| {
            loops::dequantize(
                &codes[at..at + values.len()],
                0,
                values,
                parameters,
                rule,
                NOTHING,
            );
        })
    }

    /// The displacements of a row that is rounded to nearest.
    fn rounded(&self, row: usize) -> Vec<f32> {
        self.displacements(
            row,
            self.sweep.rounding,
            |_, weights, values, parameters, rule| {
                loops::fake_quantize(weights, values, parameters, rule, NOTHING);
            },
        )
    }

    fn displacements(
        &self,
        row: usize,
        affine: &Affine,
        value: impl Fn(usize, &[f32], &mut [f32], SpanParameters<'_>, Rule<f32>),
    ) -> Vec<f32> {
        let rule = Rule::of(affine.scheme());
        let weights = self.sweep.weights.row(row).to_vec();
        let start = row * weights.len();
        let mut values = vec![0.0; weights.len()];
        let mut spans = self.sweep.groups.spans(start..start + weights.len());
        while let Some(span) = spans.next_within(usize::MAX) {
            let own = span.start - start..span.start - start + span.len;
            let parameters = SpanParameters::of(affine, &span);
            value(
                own.start,
                &weights[own.clone()],
                &mut values[own],
                parameters,
                rule,
            );
        }
        for (value, weight) in values.iter_mut().zip(weights) {
            *value = weight - *value;
        }
        values
    }

    /// The codes of a row that is rounded to nearest.
    fn round<C: Code>(&self, row: usize, codes: &mut [C]) {
        let rounding = self.sweep.rounding;
        let rule = Rule::<f32>::of(rounding.scheme());
        let weights = self.sweep.weights.row(row).to_vec();
        let start = row * weights.len();
        let mut spans = self.sweep.groups.spans(start..start + weights.len());
        while let Some(span) = spans.next_within(usize::MAX) {
            let own = span.start - start..span.start - start + span.len;
            let parameters = SpanParameters::of(rounding, &span);
            loops::quantize(
                &weights[own.clone()],
                &mut codes[own],
                parameters,
                rule,
                NOTHING,
            );
        }
    }
}
