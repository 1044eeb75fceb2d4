//! The range of least error, by search.

use super::{Calibrator, points::Points};
use crate::{
    affine::{
        Parameter, Range,
        loops::{self, SpanParameters},
        scalar::Rule,
    },
    error::{Error, Result},
    observe::Statistics,
    scheme::Scheme,
    simd::{Loops, NOTHING, wide},
};

/// The range, among fractions of the one seen, whose quantization errors `Σ w |x − x̂|^p` are the
/// least.
///
/// The search of GPTQ's quantizer (Frantar et al. 2022, arXiv:2210.17323, and its published code):
/// both ends shrink together by `1 − i / steps`, for `i` up to `max_shrink · steps`, but an end that
/// would leave the range seen, where all of that lies on one side of 0, stays. That code has
/// `p = 2.4`; here it is 2, the squared error, unless set. Values that are at hand count one by one,
/// by their importance if they have one; else the bins of a histogram count.
///
/// ```
/// use lowbit::{Calibrator, Scheme, calibrate::MeanSquaredError, observe::Statistics};
/// let mut values = vec![2.0_f32; 100];
/// values.push(9.0); // an outlier, which a 2-bit code cannot afford
/// let scheme = Scheme::int(2).build()?;
/// let range = MeanSquaredError::default().range(&Statistics::of_values(&values)?, &scheme)?;
/// assert!(range.max() < 9.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanSquaredError {
    norm: f32,
    steps: u16,
    max_shrink: f32,
}

impl Default for MeanSquaredError {
    /// The squared error, over 80 steps of a hundredth.
    fn default() -> Self {
        Self {
            norm: 2.0,
            steps: 100,
            max_shrink: 0.8,
        }
    }
}

impl MeanSquaredError {
    /// Another exponent `p` of the errors: 2.4 in GPTQ's code.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is more than 0 and at most 16.
    pub fn with_norm(mut self, norm: f32) -> Result<Self> {
        if !(norm > 0.0 && norm <= 16.0) {
            return Err(Error::option("norm", "more than 0 and at most 16", norm));
        }
        self.norm = norm;
        Ok(self)
    }

    /// Another grid: fractions from 1 down to `1 − max_shrink`, in steps of `1 / steps`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no step, or unless `0 <= max_shrink < 1`.
    pub fn with_grid(mut self, steps: u16, max_shrink: f32) -> Result<Self> {
        if steps == 0 || !(0.0..1.0).contains(&max_shrink) {
            return Err(Error::option(
                "grid",
                "at least 1 step and 0 <= max_shrink < 1",
                format!("{steps} steps and {max_shrink}"),
            ));
        }
        (self.steps, self.max_shrink) = (steps, max_shrink);
        Ok(self)
    }
}

/// The distances of all points from what rounding makes of them, in units of `1 / unit`, added up.
struct Distances<'a> {
    points: &'a Points<'a>,
    parameter: Parameter,
    rule: Rule<f32>,
    unit: f32,
    norm: f32,
}

impl Loops for Distances<'_> {
    type Output = f64;

    #[inline(always)]
    fn run(self) -> f64 {
        const BUFFER: usize = 256;
        let Self { points, unit, .. } = self;
        let mut buffer = [0.0_f32; BUFFER];
        let mut total = 0.0;
        for (index, values) in points.values.chunks(BUFFER).enumerate() {
            let errors = &mut buffer[..values.len()];
            let parameters = SpanParameters::shared(&self.parameter, values.len());
            loops::fake_quantize(values, errors, parameters, self.rule, NOTHING);
            for (error, x) in errors.iter_mut().zip(values) {
                *error = (x - *error) * unit;
            }
            if self.norm == 2.0 {
                for error in &mut *errors {
                    *error *= *error;
                }
            } else {
                for error in &mut *errors {
                    *error = error.abs().powf(self.norm);
                }
            }
            if let Some(weights) = &points.weights {
                for (error, weight) in errors.iter_mut().zip(&weights[index * BUFFER..]) {
                    *error *= weight;
                }
            }
            total += sum(errors);
        }
        total
    }
}

/// The power of two that brings a magnitude to about 1, so that squares neither under- nor overflow.
fn unit_of(magnitude: f32) -> f32 {
    let biased = (magnitude.to_bits() >> 23).clamp(1, 253);
    f32::from_bits((254 - biased) << 23)
}

/// The sum in f64, eight lanes at a time.
#[inline(always)]
fn sum(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    for chunk in values.chunks(8) {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value);
        }
    }
    lanes.iter().sum()
}

impl Calibrator for MeanSquaredError {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of steps, not negative"
    )]
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        let seen = statistics.range();
        let points = Points::of(statistics)?;
        let rule = Rule::of(scheme);
        let unit = unit_of(seen.magnitude());
        let mut best = (f64::INFINITY, seen);
        for step in 0..=(f32::from(self.steps) * self.max_shrink) as u16 {
            let fraction = 1.0 - f32::from(step) / f32::from(self.steps);
            let range = Range::new(
                (fraction * seen.min()).min(seen.max()).max(seen.min()),
                (fraction * seen.max()).max(seen.min()).min(seen.max()),
            )?;
            let parameter = Parameter::from_range(scheme, range)?;
            let error = wide(Distances {
                points: &points,
                parameter,
                rule,
                unit,
                norm: self.norm,
            });
            if error < best.0 {
                best = (error, range);
            }
        }
        Ok(best.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::affine::scalar;

    fn values() -> Vec<f32> {
        (0..700)
            .map(|i| {
                let x = (i as f32 * 0.31).sin();
                x * x * x * if i % 97 == 0 { 6.0 } else { 1.0 } + 0.1
            })
            .collect()
    }

    #[test]
    fn no_fraction_of_the_grid_has_a_smaller_error() {
        let values = values();
        let weights: Vec<f32> = (0..values.len()).map(|i| (i % 5) as f32).collect();
        for (scheme, norm) in [
            (Scheme::int(4), 2.0),
            (Scheme::int(3).narrow_range(), 2.4),
            (Scheme::int(2).unsigned().asymmetric(), 2.0),
            (Scheme::int(2).asymmetric_float(), 3.0),
            (Scheme::float(crate::FloatFormat::E2M1), 2.0),
        ] {
            let scheme = scheme.build().unwrap();
            let statistics = Statistics::of_values(&values).unwrap();
            let statistics = statistics.with_importance(&weights).unwrap();
            let calibrator = MeanSquaredError::default().with_norm(norm).unwrap();
            let chosen = calibrator.range(&statistics, &scheme).unwrap();
            // The definition, number by number, in f64.
            let error = |range: Range| -> f64 {
                let p = Parameter::from_range(&scheme, range).unwrap();
                let one = |(&x, &w): (&f32, &f32)| {
                    let code = scalar::quantize(x, p.scale, p.zero_point, &scheme);
                    let y: f32 = scalar::dequantize(code, p.scale, p.zero_point, &scheme);
                    f64::from(w) * f64::from((x - y).abs()).powf(norm.into())
                };
                values.iter().zip(&weights).map(one).sum()
            };
            let seen = statistics.range();
            let least = (0..=80)
                .map(|i| 1.0 - i as f32 / 100.0)
                .map(|f| error(Range::new(f * seen.min(), f * seen.max()).unwrap()))
                .fold(f64::INFINITY, f64::min);
            approx::assert_relative_eq!(error(chosen), least, max_relative = 1e-5);
        }
    }
}
