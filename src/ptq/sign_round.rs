//! SignRound: rounding and clipping learned by the sign of the gradient.

mod learner;
mod learning;

pub use learner::RoundingLearner;

use std::sync::Arc;

use ndarray::ArrayViewD;

use super::{
    Quantizer,
    rounding::{Block, fitted, improve_rows, row_products},
};
use crate::{
    error::{Error, Result},
    observe::Hessian,
    scheme::{Format, Scheme},
    tensor::QTensor,
};
use learning::Learning;

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
        let mut learning = Learning::new(&block.rows);
        let hurries = self.steps >= 1000 && block.rows.scheme.bits() <= 3;
        let first_rate = if hurries { 2.0 } else { 1.0 } / f32::from(self.steps.max(1));
        for step in 0..self.steps {
            learning.round(&mut block.rows);
            let change = block.rows.change();
            let gradient = block.gradient(&change);
            best.take_better_rows(&mut errors, block, &row_products(&change, &gradient));
            let rate = first_rate * (1.0 - f32::from(step) / f32::from(self.steps));
            learning.step(&block.rows, &gradient, rate);
        }
        learning.round(&mut block.rows);
        let last = block.errors();
        best.take_better_rows(&mut errors, block, &last);
        *block = best;
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
