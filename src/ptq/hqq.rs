//! HQQ: half-quadratic quantization, which needs no data.

use std::sync::Arc;

use ndarray::ArrayViewD;

use super::{Quantizer, affine_of_groups};
use crate::{
    affine::{
        Parameter,
        loops::{self, RunParameters},
        scalar::Rule,
        store,
    },
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
/// `E = W − Q⁻¹(Q(W))` it alternates the shrinkage
/// `Wₑ = sign(E) · max(0, |E| − |E|^(p−1) / β)` and `z ← mean(Q(W) − (W − Wₑ) / s)`, and `β` grows by
/// `κ`. The scale stays the one of the calibrator's range.
///
/// The published code may return the zero point of a step that made things worse; this one keeps,
/// for each group, the parameters of the least `Σ|E|` it has seen, those it began with among them.
/// Under a mapping with integer zero points each zero point that is tried is rounded first; where
/// the zero point is fixed, the scale moves instead: `s ← Σ(W − Wₑ)·q / Σq²`.
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

    fn parameter(&self, values: &[f32]) -> Result<Parameter> {
        let range = self
            .calibrator
            .range(&Statistics::of_values(values)?, &self.scheme)?;
        let start = Parameter::from_range(&self.scheme, range)?;
        let mut group = Group::new(values, &self.scheme);
        let mut best = (group.absolute_error(start), start);
        let mut moving = start;
        let mut penalty = self.penalty;
        for _ in 0..self.iterations {
            let next = group.step(moving, self.norm, penalty);
            // The step is taken on a real zero point; what counts is the one that can be stored.
            let Some(candidate) = storable(next, &self.scheme) else {
                break;
            };
            let error = group.absolute_error(candidate);
            if error < best.0 {
                best = (error, candidate);
            }
            if next == moving {
                break;
            }
            moving = next;
            penalty *= self.growth;
        }
        Ok(best.1)
    }
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
    /// How the scheme computes codes.
    rule: Rule<f32>,
    /// The same with a real zero point, on which the iteration works.
    real: Rule<f32>,
    /// Whether the zero point is what moves.
    moves_zero: bool,
}

impl<'a> Group<'a> {
    fn new(values: &'a [f32], scheme: &Scheme) -> Self {
        let rule = Rule::of(scheme);
        let real = match rule {
            Rule::Integer {
                quant_min,
                quant_max,
            } => Rule::FloatZero {
                quant_min,
                quant_max,
            },
            other => other,
        };
        let is_float = matches!(scheme.format(), Format::Float(_));
        Self {
            values,
            image: vec![0.0; values.len()],
            rule,
            real,
            moves_zero: !is_float && !scheme.mapping().is_symmetric(),
        }
    }

    fn requantize(&mut self, parameter: Parameter, rule: Rule<f32>) {
        let parameters = RunParameters::One {
            scale: parameter.scale,
            zero: parameter.zero_point,
        };
        loops::fake_quantize(self.values, &mut self.image, parameters, rule);
    }

    /// `Σ|W − Q⁻¹(Q(W))|`.
    fn absolute_error(&mut self, parameter: Parameter) -> f64 {
        self.requantize(parameter, self.rule);
        let pairs = self.values.iter().zip(&self.image);
        pairs.map(|(&w, &image)| f64::from((w - image).abs())).sum()
    }

    /// One half-quadratic step.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "sums in f64, results in the type of the parameters"
    )]
    fn step(&mut self, at: Parameter, norm: f32, penalty: f32) -> Parameter {
        self.requantize(at, self.real);
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
        if self.moves_zero {
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
        let affine = affine_of_groups(&weights, &self.scheme, None, |values, _| {
            self.parameter(values)
        })?;
        QTensor::quantize(&weights, &affine)
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;
    use crate::{
        calibrate::MeanSquaredError,
        ptq::{QuantizerExt, RoundToNearest},
    };

    fn weights(rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_fn((rows, columns), |(o, i)| {
            let x = ((o * columns + i) as f32 * 0.618).sin();
            let outlier = if (o * 31 + i) % 41 == 0 { 7.0 } else { 1.0 };
            outlier * x * x * x + 0.05 * o as f32
        })
    }

    /// The published loop (`optimize_weights_proximal_legacy`), value by value in f64, keeping the
    /// best zero point that it visits.
    fn published(values: &[f64], levels: f64) -> f64 {
        let (min, max) = values
            .iter()
            .fold((f64::MAX, f64::MIN), |(a, b), &x| (a.min(x), b.max(x)));
        let inverse = levels / (max - min);
        let mut zero = -min * inverse;
        let (mut beta, p) = (10.0_f64, 0.7_f64);
        let mut best = f64::INFINITY;
        for _ in 0..=20 {
            let codes: Vec<f64> = values
                .iter()
                .map(|&w| (w * inverse + zero).round_ties_even().clamp(0.0, levels))
                .collect();
            let errors = values.iter().zip(&codes);
            let errors: Vec<f64> = errors.map(|(&w, &q)| w - (q - zero) / inverse).collect();
            best = best.min(errors.iter().map(|e| e.abs()).sum());
            let shrunk = |e: f64| e.signum() * (e.abs() - e.abs().powf(p - 1.0) / beta).max(0.0);
            let total: f64 = (0..values.len())
                .map(|i| codes[i] - (values[i] - shrunk(errors[i])) * inverse)
                .sum();
            zero = total / values.len() as f64;
            beta *= 1.01;
        }
        best
    }

    #[test]
    fn the_errors_are_those_of_the_published_loop_with_its_best_zero_point() {
        // Large weights, so that the shrinkage has work to do, and small ones.
        for unit in [8.0, 1.0, 0.03] {
            let weights = weights(6, 50) * unit;
            let scheme = Scheme::int(2).unsigned().asymmetric_float().per_axis(0);
            let quantized = Hqq::new(scheme.build().unwrap())
                .quantize(&weights)
                .unwrap();
            let image = quantized.dequantize::<f32>();
            for (row, image) in weights.rows().into_iter().zip(image.outer_iter()) {
                let pairs = row.iter().zip(&image);
                let ours: f64 = pairs.map(|(&w, &x)| f64::from((w - x).abs())).sum();
                let values: Vec<f64> = row.iter().map(|&w| w.into()).collect();
                approx::assert_relative_eq!(ours, published(&values, 3.0), max_relative = 1e-4);
            }
        }
    }

    #[test]
    fn no_group_has_a_larger_absolute_error_than_rounding_to_nearest() {
        let weights = weights(5, 70);
        for scheme in [
            Scheme::int(2).asymmetric_float().per_group(32),
            Scheme::int(3).unsigned().asymmetric().per_group(32),
            Scheme::int(2).per_axis(0),
            Scheme::int(4).narrow_range().per_tensor(),
            Scheme::int(3).asymmetric().per_block(2, 16),
            Scheme::int(1).unsigned().asymmetric_float().per_axis(1),
            Scheme::int(4)
                .asymmetric_float()
                .per_axis(0)
                .scale_kind(crate::ScaleKind::PowerOfTwo),
            Scheme::int(3)
                .per_group(32)
                .scale_kind(crate::ScaleKind::F16),
            Scheme::float(crate::FloatFormat::E2M1).per_group(16),
        ] {
            let scheme = scheme.build().unwrap();
            let groups = crate::Groups::new(&[5, 70], scheme.granularity()).unwrap();
            let errors = |quantizer: &dyn Quantizer| {
                let image = quantizer.quantize(&weights).unwrap().dequantize::<f32>();
                let mut errors = vec![0.0_f64; groups.parameters()];
                for (index, (&w, &x)) in weights.iter().zip(&image).enumerate() {
                    errors[groups.parameter_of(index)] += f64::from((w - x).abs());
                }
                errors
            };
            let nearest = errors(&RoundToNearest::new(scheme));
            let hqq = errors(&Hqq::new(scheme));
            for (hqq, nearest) in hqq.iter().zip(&nearest) {
                assert!(*hqq <= nearest * (1.0 + 1e-6), "{scheme}: {hqq} {nearest}");
            }
            // Where the zero point is rounded or fixed there may be nowhere to go.
            if scheme.mapping() == Mapping::AsymmetricFloat {
                assert!(hqq.iter().sum::<f64>() < nearest.iter().sum(), "{scheme}");
            }
        }
    }

    #[test]
    fn bad_options_and_bad_weights_are_refused() {
        let scheme = Scheme::int(4).asymmetric_float().build().unwrap();
        let hqq = Hqq::new(scheme);
        for norm in [0.0, -1.0, 1.5, f32::NAN] {
            assert!(hqq.clone().with_norm(norm).is_err());
        }
        for (penalty, growth) in [
            (0.0, 1.0),
            (1.0, 0.5),
            (f32::INFINITY, 1.0),
            (f32::NAN, 1.0),
        ] {
            assert!(hqq.clone().with_penalty(penalty, growth).is_err());
        }
        let nan = array![[0.0_f32, 1.0], [f32::NAN, 2.0]];
        let error = hqq.quantize(&nan).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position, .. } if position == [1, 0]));
        // Nothing, one value, equal values, the ends of the number line.
        for extreme in [
            Array2::zeros((0, 4)),
            Array2::zeros((2, 3)),
            Array2::from_elem((2, 3), -0.7),
            Array2::from_elem((1, 1), f32::MIN_POSITIVE / 4.0),
            array![[f32::MAX / 4.0, -f32::MAX / 4.0, 1.0]],
        ] {
            for scheme in [
                scheme,
                Scheme::int(2).build().unwrap(),
                Scheme::int(3).asymmetric().per_group(2).build().unwrap(),
            ] {
                let hqq = Hqq::new(scheme).with_calibrator(MeanSquaredError::default());
                let image = hqq.quantize(&extreme).unwrap().dequantize::<f32>();
                assert!(image.iter().all(|x| x.is_finite()));
            }
        }
    }
}
