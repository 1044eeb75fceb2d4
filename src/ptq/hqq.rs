//! HQQ: half-quadratic quantization, which needs no data.

use std::sync::Arc;

use ndarray::ArrayViewD;

use super::{Quantizer, affine_of_groups};
use crate::{
    affine::{Parameter, loops, scalar::Rule, store},
    calibrate::{Calibrator, FullRange},
    error::{Error, Result},
    observe::Statistics,
    scheme::{Format, Mapping, Scheme},
    tensor::QTensor,
};

/// Moves the zero point of each group so that its errors are small in the `p < 1` norm, which
/// forgives outliers.
///
/// Half-quadratic splitting of `min ‖W − Q⁻¹(Q(W))‖_p` (Badri and Shaji 2023, "Half-Quadratic
/// Quantization of Large Machine Learning Models", equations 3 to 6, and its published code): with
/// `E = W − Q⁻¹(Q(W))` it alternates the shrinkage `Wₑ = sign(E) · max(0, |E| − |E|^(p−1) / β)` and
/// `z ← mean(Q(W) − (W − Wₑ) / s)`, and `β` grows by `κ`. The scale stays the one of the
/// calibrator's range.
///
/// The published code may return the zero point of a step that made things worse; this one keeps,
/// for each group, the parameters of the least `Σ|E|` it has seen, those it began with among them.
/// Where the zero point is fixed, the scale moves instead, `s ← Σ(W − Wₑ)·q / Σq²`; where it is an
/// integer, zero point, rounded, and scale take turns.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, ptq::Hqq};
/// use ndarray::Array2;
///
/// let weights = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin().exp());
/// let scheme = Scheme::int(2).unsigned().asymmetric_float().per_group(32).build()?;
/// let error = |quantized: lowbit::QTensor| {
///     (quantized.dequantize::<f32>() - weights.view().into_dyn()).mapv(f32::abs).sum()
/// };
/// let hqq = error(Hqq::new(scheme).quantize(&weights)?);
/// assert!(hqq < error(RoundToNearest::new(scheme).quantize(&weights)?));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Hqq {
    scheme: Scheme,
    calibrator: Arc<dyn Calibrator>,
    norm: f32,
    penalty: f32,
    growth: f32,
    iterations: u16,
}

impl Hqq {
    /// The published settings: the full range of each group, `p = 0.7`, `β = 10`, `κ = 1.01`, 20
    /// iterations.
    #[must_use]
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            calibrator: Arc::new(FullRange),
            norm: 0.7,
            penalty: 10.0,
            growth: 1.01,
            iterations: 20,
        }
    }

    /// Starts from the range that a calibrator chooses: below 4 bits
    /// [`MeanSquaredError`](crate::calibrate::MeanSquaredError) is much better than the full range.
    #[must_use]
    pub fn with_calibrator(mut self, calibrator: impl Calibrator + 'static) -> Self {
        self.calibrator = Arc::new(calibrator);
        self
    }

    /// Another `p`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is more than 0 and at most 1.
    pub fn with_norm(mut self, norm: f32) -> Result<Self> {
        if !(norm > 0.0 && norm <= 1.0) {
            return Err(Error::option("norm", "more than 0 and at most 1", norm));
        }
        self.norm = norm;
        Ok(self)
    }

    /// Another `β` to begin with, and another `κ`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless `0 < β` and `κ >= 1`, both finite.
    pub fn with_penalty(mut self, penalty: f32, growth: f32) -> Result<Self> {
        let valid = penalty > 0.0 && growth >= 1.0 && penalty.is_finite() && growth.is_finite();
        if !valid {
            return Err(Error::option(
                "penalty",
                "more than 0, growing by at least 1",
                format!("{penalty}, growing by {growth}"),
            ));
        }
        (self.penalty, self.growth) = (penalty, growth);
        Ok(self)
    }

    /// Another number of iterations; none leaves round-to-nearest.
    #[must_use]
    pub fn with_iterations(mut self, iterations: u16) -> Self {
        self.iterations = iterations;
        self
    }

    fn moving(&self) -> Moving {
        match (self.scheme.format(), self.scheme.mapping()) {
            (Format::Int(_), Mapping::AsymmetricFloat) => Moving::ZeroPoint,
            (Format::Int(_), Mapping::Asymmetric) => Moving::Both,
            _ => Moving::Scale,
        }
    }

    fn parameter(&self, values: &[f32]) -> Result<Parameter> {
        let range = self
            .calibrator
            .range(&Statistics::of_values(values)?, &self.scheme)?;
        let start = Parameter::from_range(&self.scheme, range)?;
        let mut group = Group::new(values, &self.scheme);
        let mut best = (group.absolute_error(start), start);
        let mut moving = start;
        let mut penalty = self.penalty;
        let mut still = 0;
        for iteration in 0..self.iterations {
            let moves_zero = match self.moving() {
                Moving::ZeroPoint => true,
                Moving::Scale => false,
                Moving::Both => iteration % 2 == 0,
            };
            let next = group.step(moving, moves_zero, self.norm, penalty);
            let Some(next) = storable(next, &self.scheme) else {
                break;
            };
            let error = group.absolute_error(next);
            if error < best.0 {
                best = (error, next);
            }
            still = if next == moving { still + 1 } else { 0 };
            if still == 2 {
                break;
            }
            moving = next;
            penalty *= self.growth;
        }
        Ok(best.1)
    }
}

/// What an iteration changes.
#[derive(Debug, Clone, Copy)]
enum Moving {
    ZeroPoint,
    Scale,
    Both,
}

/// The parameter as the scheme can hold it; none if it cannot.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
fn storable(parameter: Parameter, scheme: &Scheme) -> Option<Parameter> {
    let scale = store(scheme.scale_kind(), parameter.scale);
    let (low, high) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
    let zero_point = match scheme.mapping() {
        Mapping::Asymmetric => parameter.zero_point.round_ties_even().clamp(low, high),
        _ => parameter.zero_point,
    };
    let valid = scale.is_normal() && scale > 0.0 && zero_point.is_finite();
    valid.then_some(Parameter { scale, zero_point })
}

/// The values of one group and room for their images.
struct Group<'a> {
    values: &'a [f32],
    image: Vec<f32>,
    rule: Rule<f32>,
}

impl<'a> Group<'a> {
    fn new(values: &'a [f32], scheme: &Scheme) -> Self {
        Self {
            values,
            image: vec![0.0; values.len()],
            rule: Rule::of(scheme),
        }
    }

    fn requantize(&mut self, parameter: Parameter) {
        loops::images(self.values, &mut self.image, &parameter, self.rule);
    }

    /// `Σ|W − Q⁻¹(Q(W))|`.
    fn absolute_error(&mut self, parameter: Parameter) -> f64 {
        self.requantize(parameter);
        let pairs = self.values.iter().zip(&self.image);
        pairs.map(|(&w, &image)| f64::from((w - image).abs())).sum()
    }

    /// One half-quadratic step, of the zero point or of the scale.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "sums in f64, results in the type of the parameters"
    )]
    fn step(&mut self, at: Parameter, moves_zero: bool, norm: f32, penalty: f32) -> Parameter {
        self.requantize(at);
        // Below this |E|, |E|^(p−1) / β is the larger: most errors need no power.
        let threshold = penalty.powf(-1.0 / (2.0 - norm));
        let shrink = |error: f32| {
            let size = error.abs();
            if size <= threshold {
                0.0
            } else {
                (size - size.powf(norm - 1.0) / penalty).copysign(error)
            }
        };
        let pairs = self.values.iter().zip(&self.image);
        if moves_zero {
            // mean(q − (W − Wₑ) / s) with q = Q⁻¹ / s + z.
            let kept = pairs.map(|(&w, &image)| {
                let error = w - image;
                f64::from(error - shrink(error))
            });
            let mean = kept.sum::<f64>() / self.values.len() as f64;
            return Parameter {
                zero_point: (f64::from(at.zero_point) - mean / f64::from(at.scale)) as f32,
                ..at
            };
        }
        let (mut with_target, mut with_itself) = (0.0_f64, 0.0_f64);
        for (&w, &image) in pairs {
            let step = f64::from(image) / f64::from(at.scale);
            with_target += f64::from(w - shrink(w - image)) * step;
            with_itself += step * step;
        }
        if with_target > 0.0 && with_itself > 0.0 {
            Parameter {
                scale: (with_target / with_itself) as f32,
                ..at
            }
        } else {
            at
        }
    }
}

impl Quantizer for Hqq {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let affine = affine_of_groups(&weights, &self.scheme, |values| self.parameter(values))?;
        QTensor::quantize(&weights, &affine)
    }
}
