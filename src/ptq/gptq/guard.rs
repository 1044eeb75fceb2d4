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
pub(super) struct Guard<'a> {
    pub(super) sweep: &'a Sweep<'a>,
    pub(super) hessian: &'a Hessian,
    pub(super) deviation: Option<&'a InputDeviation>,
}

/// The better of both, row by row.
pub(super) struct Kept {
    pub(super) affine: Affine,
    pub(super) rounded_rows: usize,
    pub(super) weight_error: f64,
    pub(super) output_error: f64,
    pub(super) rounding_error: f64,
}

/// One row, two ways; errors in real units.
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

impl Guard<'_> {
    /// Puts the codes and parameters of round-to-nearest where GPTQ made a row worse.
    pub(super) fn keep_the_better<C: Code>(
        &self,
        codes: &mut [C],
        swept: &[Swept],
    ) -> Result<Kept> {
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
            self.count_deviation(deviation, codes, &fitted, &mut rows)?;
        }
        self.count_again(codes, &fitted, &mut rows)?;

        let (mut scale, mut zero) = (fitted.scale().to_vec(), fitted.zero_point().to_vec());
        let mut kept = Kept {
            affine: fitted,
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
