//! AdaRound: whether each weight rounds up or down, learned with a relaxation that hardens.

mod gate;

use std::sync::Arc;

use ndarray::{Array2, ArrayViewD, Zip};

use super::{
    Quantizer,
    rounding::{Block, fitted, improve_rows},
    sign_round::integers_only,
};
use crate::{
    affine::scalar::limit,
    error::{Error, Result},
    observe::Hessian,
    scheme::{Mapping, Scheme},
    tensor::QTensor,
};
use gate::{gate_at, openness, parts};

/// Learns for each weight whether it goes to the code below or above: Nagel et al. 2020, "Up or
/// Down? Adaptive Rounding for Post-Training Quantization" (arXiv:2004.10568), equations 21 to 25.
///
/// `Ŵ = s (clip(⌊W/s⌋ + h(V) + z) − z)` with `h(V) = clip(σ(V) (ζ − γ) + γ, 0, 1)`, `ζ = 1.1` and
/// `γ = −0.1`, minimises the outputs' error plus `λ Σ(1 − |2h − 1|^β)` by Adam; `β` falls from 20
/// to 2 after a fifth of the steps, before which there is no such term. Weights for which `V >= 0`
/// then round up.
///
/// The error is `tr(Δ H Δᵀ)`, over all inputs at once; nothing is drawn at random. It is counted,
/// row by row, in units of a weight's share of the error of rounding to nearest, so that `λ` means
/// the same in every layer; and each row keeps the best of the roundings that were looked at every
/// twentieth of the way, rounding to nearest among them.
///
/// A step costs as much as multiplying weights and Hessian, and a thousand are needed.
/// [`QuantEase`](super::QuantEase), which may move a weight further than to the next code, takes a
/// hundredth of the time; where some inputs are far larger than others it gets further too.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, observe::Hessian};
/// use lowbit::ptq::{AdaRound, LayerInputs};
/// use ndarray::Array2;
///
/// let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32).sin();
/// let inputs = Array2::from_shape_fn((100, 32), |(t, i)| wave(t, i) + wave(t, i / 8));
/// let weights = Array2::from_shape_fn((4, 32), |(o, i)| wave(i, o));
/// let mut hessian = Hessian::new(32)?;
/// hessian.observe(&inputs)?;
///
/// let scheme = Scheme::int(4).per_axis(0).build()?;
/// let inputs = LayerInputs::hessian(hessian.clone());
/// let error = |quantized: lowbit::QTensor| {
///     inputs.error(&(quantized.dequantize::<f32>() - &weights))
/// };
/// let nearest = error(RoundToNearest::new(scheme).quantize(&weights)?)?;
/// assert!(error(AdaRound::new(scheme, &hessian).quantize(&weights)?)? < 0.6 * nearest);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AdaRound<'a> {
    hessian: &'a Hessian,
    start: Arc<dyn Quantizer + 'a>,
    steps: u16,
    rate: f32,
    penalty: f32,
}

/// How often roundings are looked at.
const LOOKS: u16 = 20;

impl<'a> AdaRound<'a> {
    /// 1000 steps of a learning rate of 0.01, and `λ = 100`. (The paper takes 10,000 steps of 0.001
    /// on batches of 32, and `λ = 0.01` beside errors that are not counted in a unit of their own.)
    /// It starts from the parameters of [`LeastSquares`](crate::calibrate::LeastSquares), with the
    /// diagonal of the Hessian as importance.
    #[must_use]
    pub fn new(scheme: Scheme, hessian: &'a Hessian) -> Self {
        Self {
            hessian,
            start: Arc::new(fitted(scheme, hessian)),
            steps: 1000,
            rate: 0.01,
            penalty: 100.0,
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

    /// Another number of steps and another learning rate.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the rate is positive and finite.
    pub fn with_steps(mut self, steps: u16, rate: f32) -> Result<Self> {
        if !(rate > 0.0 && rate.is_finite()) {
            return Err(Error::option("learning rate", "positive and finite", rate));
        }
        (self.steps, self.rate) = (steps, rate);
        Ok(self)
    }

    /// Another `λ`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if it is negative or not finite.
    pub fn with_penalty(mut self, penalty: f32) -> Result<Self> {
        if !(penalty >= 0.0 && penalty.is_finite()) {
            return Err(Error::option("penalty", "at least 0 and finite", penalty));
        }
        self.penalty = penalty;
        Ok(self)
    }

    fn improve(&self, block: &mut Block<'_>) {
        let mut best = block.clone();
        let mut errors = best.errors();
        let mut learning = Learning::new(block, &errors);
        let look_every = (self.steps / LOOKS).max(1);
        for step in 0..self.steps {
            learning.step(block, self, step);
            if (step + 1) % look_every == 0 || step + 1 == self.steps {
                learning.round(block);
                let rounded = block.errors();
                best.take_better_rows(&mut errors, block, &rounded);
            }
        }
        block.rows.codes = best.rows.codes;
    }

    /// The exponent of the term that hardens, at a step; none before its time.
    fn exponent(&self, step: u16) -> Option<f32> {
        let way = f32::from(step) / f32::from(self.steps);
        let hardening = (way - 0.2) / 0.8;
        (hardening >= 0.0).then(|| {
            let cosine = (hardening * std::f32::consts::PI).cos();
            2.0 + 0.5 * (20.0 - 2.0) * (1.0 + cosine)
        })
    }
}

impl Quantizer for AdaRound<'_> {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let start = self.start.quantize_view(weights.view())?;
        integers_only("AdaRound", start.scheme())?;
        improve_rows(&weights, &start, self.hessian, |block| self.improve(block))
    }
}

/// What is learned of a block, and Adam's averages.
struct Learning {
    /// `⌊W/s⌋ + z`.
    floors: Array2<f32>,
    scales: Array2<f32>,
    zero_points: Array2<f32>,
    /// `V`.
    gates: Array2<f32>,
    mean: Array2<f32>,
    square: Array2<f32>,
    /// What an error counts in each row.
    weight_of_row: Vec<f32>,
    least: f32,
    greatest: f32,
}

impl Learning {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "codes have at most 16 bits; the nearest f32 is asked for"
    )]
    fn new(block: &Block<'_>, errors: &[f64]) -> Self {
        let shape = block.rows.weights.raw_dim();
        let zeros = || Array2::<f32>::zeros(shape);
        let columns = block.rows.weights.ncols() as f64;
        let share = |&error: &f64| if error > 0.0 { columns / error } else { 0.0 };
        let mut learning = Self {
            floors: zeros(),
            scales: zeros(),
            zero_points: zeros(),
            gates: zeros(),
            mean: zeros(),
            square: zeros(),
            weight_of_row: errors
                .iter()
                .map(|error| limit(share(error) as f32, 0.0, f32::MAX))
                .collect(),
            least: block.rows.scheme.quant_min() as f32,
            greatest: block.rows.scheme.quant_max() as f32,
        };
        for (row, segments) in block.rows.segments.iter().enumerate() {
            for segment in segments {
                let at = block.rows.parameters[segment.parameter];
                for column in segment.columns() {
                    let exact = block.rows.weights[[row, column]] / at.scale;
                    let (floor, fraction) = match block.rows.scheme.mapping() {
                        Mapping::AsymmetricFloat => parts(exact + at.zero_point),
                        _ => {
                            let (floor, fraction) = parts(exact);
                            (floor + at.zero_point, fraction)
                        }
                    };
                    learning.floors[[row, column]] = floor;
                    learning.scales[[row, column]] = at.scale;
                    learning.zero_points[[row, column]] = at.zero_point;
                    learning.gates[[row, column]] = gate_at(fraction);
                }
            }
        }
        learning
    }

    /// One step of Adam.
    fn step(&mut self, block: &Block<'_>, settings: &AdaRound<'_>, step: u16) {
        let mut change = Array2::<f32>::zeros(self.gates.raw_dim());
        let (least, greatest) = (self.least, self.greatest);
        Zip::from(&mut change)
            .and(&self.gates)
            .and(&self.floors)
            .and(&self.scales)
            .and(&self.zero_points)
            .for_each(|change, &gate, &floor, &scale, &zero| {
                let code = limit(floor + openness(gate).0, least, greatest);
                *change = (code - zero) * scale;
            });
        change -= &block.rows.weights;
        let mut slopes = block.gradient(&change);
        for (mut row, &weight) in slopes.rows_mut().into_iter().zip(&self.weight_of_row) {
            row *= 2.0 * weight;
        }
        let exponent = settings.exponent(step);
        let penalty = settings.penalty;
        // The slope along each gate.
        Zip::from(&mut slopes)
            .and(&self.gates)
            .and(&self.floors)
            .and(&self.scales)
            .for_each(|slope, &gate, &floor, &scale| {
                let (open, along) = openness(gate);
                let code = floor + open;
                let inside = code >= least && code <= greatest;
                let of_error = if inside { *slope * scale } else { 0.0 };
                let of_penalty = exponent.map_or(0.0, |exponent| {
                    let distance = 2.0 * open - 1.0;
                    let power = distance.abs().powf(exponent - 1.0);
                    -2.0 * penalty * exponent * power.copysign(distance)
                });
                *slope = (of_error + of_penalty) * along;
            });
        let count = i32::from(step) + 1;
        let (first, second) = (1.0 - 0.9_f32.powi(count), 1.0 - 0.999_f32.powi(count));
        let rate = settings.rate;
        Zip::from(&mut self.gates)
            .and(&mut self.mean)
            .and(&mut self.square)
            .and(&slopes)
            .for_each(|gate, mean, square, &slope| {
                *mean += 0.1 * (slope - *mean);
                *square += 0.001 * (slope * slope - *square);
                let step = rate * (*mean / first) / ((*square / second).sqrt() + 1e-8);
                if step.is_finite() {
                    *gate -= step;
                }
            });
    }

    /// Sets the codes to what is learned.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer between the least and the greatest code"
    )]
    fn round(&self, block: &mut Block<'_>) {
        Zip::from(&mut block.rows.codes)
            .and(&self.gates)
            .and(&self.floors)
            .for_each(|code, &gate, &floor| {
                let up = if gate >= 0.0 { 1.0 } else { 0.0 };
                *code = limit(floor + up, self.least, self.greatest) as i32;
            });
    }
}
