//! SignRound: rounding and clipping learned by the sign of the gradient.

use std::sync::Arc;

use ndarray::{Array2, ArrayViewD, s};

use super::{
    Quantizer,
    rounding::{Block, Segment, fitted, improve_rows, row_products},
};
use crate::{
    affine::{Parameter, scalar::limit, store},
    error::{Error, Result},
    observe::Hessian,
    scheme::{Format, Mapping, Scheme},
    tensor::QTensor,
};

/// Learns an offset `V ∈ [−½, ½]` for the rounding of each weight, and factors `α, β ∈ [0, 1]` for
/// the ends of each group's range, by signed gradient descent: Cheng et al. 2023, "Optimize Weight
/// Rounding via Signed Gradient Descent" (SignRound, AutoRound; arXiv:2309.05516), equations 3 to
/// 6.
///
/// `Ŵ = s (clip(round(W/s + V) + z) − z)`, with `s` and `z` of the range `[β min, α max]` (under a
/// symmetric mapping `α` scales both ends). Each step moves everything by the learning rate, which
/// falls linearly to 0, against the sign of its gradient; rounding counts as the identity there.
///
/// The paper takes the error of a block's outputs over batches of inputs; here it is the error of
/// the layer's own outputs over all of them, `tr(Δ H Δᵀ)`, so that each step sees all data, nothing
/// is drawn at random, and each row keeps the best of all its steps, plain rounding among them.
///
/// A step costs as much as multiplying weights and Hessian; [`QuantEase`](super::QuantEase) usually
/// gets further on the same measure in a tenth of the time.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, observe::Hessian};
/// use lowbit::ptq::{LayerInputs, SignRound};
/// use ndarray::Array2;
///
/// let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32).sin();
/// let inputs = Array2::from_shape_fn((300, 64), |(t, i)| wave(t, i) + wave(t, i / 8));
/// let weights = Array2::from_shape_fn((32, 64), |(o, i)| wave(i, o));
/// let mut hessian = Hessian::new(64)?;
/// hessian.observe(&inputs)?;
///
/// let scheme = Scheme::int(3).per_group(32).build()?;
/// let inputs = LayerInputs::hessian(hessian.clone());
/// let error = |quantized: lowbit::QTensor| {
///     inputs.error(&(quantized.dequantize::<f32>() - &weights))
/// };
/// let nearest = error(RoundToNearest::new(scheme).quantize(&weights)?)?;
/// assert!(error(SignRound::new(scheme, &hessian).quantize(&weights)?)? < 0.6 * nearest);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SignRound<'a> {
    hessian: &'a Hessian,
    start: Arc<dyn Quantizer + 'a>,
    steps: u16,
}

impl<'a> SignRound<'a> {
    /// The published settings: 200 steps, with a learning rate of 1/200 to begin with. It starts
    /// from the parameters of [`LeastSquares`](crate::calibrate::LeastSquares), with the diagonal
    /// of the Hessian as importance (the published program: from the full ranges).
    #[must_use]
    pub fn new(scheme: Scheme, hessian: &'a Hessian) -> Self {
        Self {
            hessian,
            start: Arc::new(fitted(scheme, hessian)),
            steps: 200,
        }
    }

    /// Starts from the parameters of another method, and the errors of its codes are those to be
    /// improved on.
    ///
    /// Small floats, whose steps are not even, are refused when weights are quantized.
    #[must_use]
    pub fn with_start(mut self, start: impl Quantizer + 'a) -> Self {
        self.start = Arc::new(start);
        self
    }

    /// Another number of steps, with a learning rate of one over it to begin with, or twice that
    /// for 1000 steps and more at 3 bits and less.
    #[must_use]
    pub fn with_steps(mut self, steps: u16) -> Self {
        self.steps = steps;
        self
    }

    fn improve(&self, block: &mut Block<'_>) {
        let mut best = block.clone();
        let mut errors = best.errors();
        let mut learning = Learning::new(block);
        let hurries = self.steps >= 1000 && block.scheme.bits() <= 3;
        let first_rate = if hurries { 2.0 } else { 1.0 } / f32::from(self.steps.max(1));
        for step in 0..self.steps {
            learning.round(block);
            let change = block.change();
            let gradient = block.gradient(&change);
            best.take_better_rows(&mut errors, block, &row_products(&change, &gradient));
            let rate = first_rate * (1.0 - f32::from(step) / f32::from(self.steps));
            learning.step(block, &gradient, rate);
        }
        learning.round(block);
        let last = block.errors();
        best.take_better_rows(&mut errors, block, &last);
        block.codes = best.codes;
        block.parameters = best.parameters;
    }
}

impl Quantizer for SignRound<'_> {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let start = self.start.quantize_view(weights.view())?;
        integers_only("SignRound", start.scheme())?;
        improve_rows(&weights, &start, self.hessian, |block| self.improve(block))
    }
}

/// Offsets that are learned add up in steps of one size.
pub(super) fn integers_only(operation: &'static str, scheme: &Scheme) -> Result<()> {
    match scheme.format() {
        Format::Int(_) => Ok(()),
        Format::Float(_) => Err(Error::Unsupported {
            operation,
            expected: "codes that are integers",
            got: scheme.to_string(),
        }),
    }
}

/// What is learned of a block.
struct Learning {
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

impl Learning {
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    fn new(block: &Block<'_>) -> Self {
        Self {
            offsets: Array2::zeros(block.weights.raw_dim()),
            factors: vec![[1.0; 2]; block.parameters.len()],
            start: block.parameters.clone(),
            least: block.scheme.quant_min() as f32,
            greatest: block.scheme.quant_max() as f32,
            middle: block.scheme.middle() as f32,
        }
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
    fn round(&self, block: &mut Block<'_>) {
        if block.owns_parameters {
            for index in 0..block.parameters.len() {
                block.parameters[index] = self.parameter(block.scheme, index);
            }
        }
        for (row, segments) in block.segments.iter().enumerate() {
            for segment in segments {
                let parameter = block.parameters[segment.parameter];
                for column in segment.columns() {
                    let position = self.position(block, row, column, parameter);
                    let code = limit(position.round_ties_even(), self.least, self.greatest);
                    block.codes[[row, column]] = code as i32;
                }
            }
        }
    }

    /// `W/s + V + z`, which is rounded to the code.
    #[inline(always)]
    fn position(&self, block: &Block<'_>, row: usize, column: usize, at: Parameter) -> f32 {
        block.weights[[row, column]] / at.scale + self.offsets[[row, column]] + at.zero_point
    }

    /// Moves what is learned against the sign of its gradient; `gradient` is `ΔH`.
    fn step(&mut self, block: &Block<'_>, gradient: &Array2<f32>, rate: f32) {
        for (row, segments) in block.segments.iter().enumerate() {
            for &segment in segments {
                let ends = self.step_offsets(block, gradient, (row, segment), rate);
                if block.owns_parameters {
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
        block: &Block<'_>,
        gradient: &Array2<f32>,
        (row, segment): (usize, Segment),
        rate: f32,
    ) -> [f64; 2] {
        let parameter = block.parameters[segment.parameter];
        let (min, max) = self.ends(segment.parameter);
        let steps = f64::from(self.greatest - self.least);
        let symmetric = block.scheme.mapping().is_symmetric();
        let (mut along_max, mut along_min, mut along_scale) = (0.0_f64, 0.0_f64, 0.0_f64);
        let slopes = gradient.slice(s![row, segment.columns()]);
        for (column, &slope) in segment.columns().zip(slopes) {
            let position = self.position(block, row, column, parameter);
            let code = block.codes[[row, column]] as f32;
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
                let exact = f64::from(block.weights[[row, column]] / parameter.scale);
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
