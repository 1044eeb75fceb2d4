//! What SignRound learns of some rows: offsets of the rounding, and factors of the ranges.

use ndarray::{Array2, ArrayRef2, s};

use crate::{
    affine::{Parameter, scalar::limit, store},
    ptq::rounding::{Rows, Segment},
    scheme::{Mapping, Scheme},
};

/// What is learned of some rows.
#[derive(Debug, Clone)]
pub(super) struct Learning {
    /// Where each weight begins, in steps from `W/s`: 0 where that rounds to the code it starts from;
    /// else what brings it just into the cell of that code. `[rows, in]`.
    shifts: Array2<f32>,
    /// `V`, `[rows, in]`.
    offsets: Array2<f32>,
    /// `α` and `β` of each parameter.
    factors: Vec<[f32; 2]>,
    /// The parameters at factors of 1.
    start: Vec<Parameter>,
    least: f32,
    greatest: f32,
    middle: f32,
}

/// The least a range is shrunk to, so that it stays one.
const LEAST_FACTOR: f32 = 0.01;
/// How far from the middle of its cell a weight begins at most, in steps.
const WITHIN: f32 = 0.49;

impl Learning {
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub(super) fn new(rows: &Rows<'_>) -> Self {
        let mut learning = Self {
            shifts: Array2::zeros(rows.weights.raw_dim()),
            offsets: Array2::zeros(rows.weights.raw_dim()),
            factors: vec![[1.0; 2]; rows.parameters.len()],
            start: rows.parameters.clone(),
            least: rows.scheme.quant_min() as f32,
            greatest: rows.scheme.quant_max() as f32,
            middle: rows.scheme.middle() as f32,
        };
        for (row, segments) in rows.segments.iter().enumerate() {
            for segment in segments {
                let parameter = rows.parameters[segment.parameter];
                for column in segment.columns() {
                    let position = learning.position(rows, row, column, parameter);
                    let code = rows.codes[[row, column]] as f32;
                    let cell = (code - WITHIN, code + WITHIN);
                    // The cells of the first and the last code have one end only.
                    let least = if code <= learning.least {
                        f32::MIN
                    } else {
                        cell.0
                    };
                    let most = if code >= learning.greatest {
                        f32::MAX
                    } else {
                        cell.1
                    };
                    learning.shifts[[row, column]] = limit(position, least, most) - position;
                }
            }
        }
        learning
    }

    /// The ends of the range of a parameter: what the least and the greatest code stood for.
    fn ends(&self, parameter: usize) -> (f32, f32) {
        let Parameter { scale, zero_point } = self.start[parameter];
        (
            scale * (self.least - zero_point),
            scale * (self.greatest - zero_point),
        )
    }

    /// The parameter at the present factors; as it is where they cannot be stored.
    fn parameter(&self, scheme: &Scheme, index: usize) -> Parameter {
        let start = self.start[index];
        let [alpha, beta] = self.factors[index];
        if alpha == 1.0 && beta == 1.0 {
            return start;
        }
        let (min, max) = self.ends(index);
        let scale = if scheme.mapping().is_symmetric() {
            alpha * start.scale
        } else {
            (alpha * max - beta * min) / (self.greatest - self.least)
        };
        let scale = store(scheme.scale_kind(), scale);
        let exact = self.least - beta * min / scale;
        let zero_point = match scheme.mapping() {
            Mapping::Asymmetric => exact.round_ties_even().clamp(self.least, self.greatest),
            Mapping::AsymmetricFloat => exact,
            _ => self.middle,
        };
        if scale.is_normal() && scale > 0.0 && zero_point.is_finite() {
            Parameter { scale, zero_point }
        } else {
            start
        }
    }

    /// Sets codes and parameters to what is learned.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer between the least and the greatest code"
    )]
    pub(super) fn round(&self, rows: &mut Rows<'_>) {
        if rows.owns_parameters {
            for index in 0..rows.parameters.len() {
                rows.parameters[index] = self.parameter(&rows.scheme, index);
            }
        }
        for (row, segments) in rows.segments.iter().enumerate() {
            for segment in segments {
                let parameter = rows.parameters[segment.parameter];
                for column in segment.columns() {
                    let position = self.position(rows, row, column, parameter);
                    let code = limit(position.round_ties_even(), self.least, self.greatest);
                    rows.codes[[row, column]] = code as i32;
                }
            }
        }
    }

    /// `W/s + V + z`, which is rounded to the code.
    #[inline(always)]
    fn position(&self, rows: &Rows<'_>, row: usize, column: usize, at: Parameter) -> f32 {
        rows.weights[[row, column]] / at.scale
            + self.shifts[[row, column]]
            + self.offsets[[row, column]]
            + at.zero_point
    }

    /// Moves what is learned against the sign of its gradient; `gradient` is `ΔH`.
    pub(super) fn step(&mut self, rows: &Rows<'_>, gradient: &ArrayRef2<f32>, rate: f32) {
        for (row, segments) in rows.segments.iter().enumerate() {
            for &segment in segments {
                let ends = self.step_offsets(rows, gradient, (row, segment), rate);
                if rows.owns_parameters {
                    for (factor, slope) in self.factors[segment.parameter].iter_mut().zip(ends) {
                        *factor = (*factor - rate * sign(slope)).clamp(LEAST_FACTOR, 1.0);
                    }
                }
            }
        }
    }

    /// Moves the offsets of a segment; returns the slopes along `α` and `β`.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    fn step_offsets(
        &mut self,
        rows: &Rows<'_>,
        gradient: &ArrayRef2<f32>,
        (row, segment): (usize, Segment),
        rate: f32,
    ) -> [f64; 2] {
        let parameter = rows.parameters[segment.parameter];
        let (min, max) = self.ends(segment.parameter);
        let steps = f64::from(self.greatest - self.least);
        let symmetric = rows.scheme.mapping().is_symmetric();
        let (mut along_max, mut along_min, mut along_scale) = (0.0_f64, 0.0_f64, 0.0_f64);
        let slopes = gradient.slice(s![row, segment.columns()]);
        for (column, &slope) in segment.columns().zip(slopes) {
            let position = self.position(rows, row, column, parameter);
            let code = rows.codes[[row, column]] as f32;
            let distance = f64::from(code - parameter.zero_point);
            let slope_wide = f64::from(slope);
            let rounded = position.round_ties_even();
            if rounded < self.least {
                along_min += slope_wide;
                along_scale += slope_wide * distance;
            } else if rounded > self.greatest {
                along_max += slope_wide;
                along_scale += slope_wide * distance;
            } else {
                let exact = f64::from(rows.weights[[row, column]] / parameter.scale);
                let by_scale = slope_wide * (distance - exact);
                along_max += by_scale / steps;
                along_min -= by_scale / steps;
                along_scale += by_scale;
                // What is clipped does not depend on its offset.
                let offset = &mut self.offsets[[row, column]];
                *offset = (*offset - rate * sign(slope_wide)).clamp(-0.5, 0.5);
            }
        }
        if symmetric {
            [along_scale, 0.0]
        } else {
            [along_max * f64::from(max), along_min * f64::from(min)]
        }
    }
}

/// The sign, 0 for 0.
#[inline(always)]
fn sign(slope: f64) -> f32 {
    if slope > 0.0 {
        1.0
    } else if slope < 0.0 {
        -1.0
    } else {
        0.0
    }
}
