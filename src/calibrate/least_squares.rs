//! The range whose scale and zero point have the least squared error, by regression.

use super::{Calibrator, points::Points};
use crate::{
    affine::{
        Parameter, Range,
        loops::{self, SpanParameters},
        scalar::Rule,
        store,
    },
    error::Result,
    observe::Statistics,
    scheme::{Format, Mapping, ScaleKind, Scheme},
    simd::{Loops, NOTHING, wide},
};

/// The range whose scale and zero point give the least `Σ ω (x − x̂)²`: the search of ggml's
/// k-quants with an importance matrix (`make_qx_quants`, `make_qkx3_quants`), for any scheme.
///
/// From each of several ranges it rounds to codes, then alternates: the scale and zero point that
/// fit these codes best (a regression with one or two unknowns), and the codes nearest under them,
/// until nothing improves. Both steps lower the error, so the result is no worse than any of the
/// ranges it started from, the full one among them; and the zero point, which a range-shrinking
/// search such as [`MeanSquaredError`](super::MeanSquaredError) leaves where it is, moves too.
/// Integer zero points and scales of 16 bits or powers of two are rounded before an error is
/// believed.
///
/// Values that are at hand count one by one, by their importance if they have one; else the bins of
/// a histogram count. Where all importances are 0, all values count alike.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme};
/// use lowbit::calibrate::{LeastSquares, MeanSquaredError};
/// use ndarray::{Array1, Array2};
///
/// let weights = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin().exp());
/// let importance = Array1::from_shape_fn(64, |i| if i % 16 == 0 { 9.0_f32 } else { 1.0 });
/// let error = |quantized: lowbit::QTensor| {
///     let difference = quantized.dequantize::<f32>() - weights.view().into_dyn();
///     (difference.mapv(|d| d * d) * &importance).sum()
/// };
/// let scheme = Scheme::int(2).asymmetric_float().per_group(32).build()?;
/// let method = RoundToNearest::new(scheme).with_importance(&importance);
/// let searched = method.clone().with_calibrator(MeanSquaredError::default());
/// let fitted = method.with_calibrator(LeastSquares::default());
/// assert!(error(fitted.quantize(&weights)?) < 0.9 * error(searched.quantize(&weights)?));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeastSquares {
    starts: u16,
}

/// Steps of one descent; it seldom takes more than five.
const DESCENT: usize = 20;

impl Default for LeastSquares {
    /// From 20 fractions of the range.
    fn default() -> Self {
        Self { starts: 20 }
    }
}

impl LeastSquares {
    /// Another number of starts beside the full range: fractions of the range, evenly from 1.1 (of
    /// small floats 1.6) down to 0.1. Where there is a zero point to choose, 16 ranges cut unevenly
    /// at their two ends are tried too, unless this number is 0.
    #[must_use]
    pub fn with_starts(mut self, starts: u16) -> Self {
        self.starts = starts;
        self
    }

    /// The ranges to start from, beside the full one.
    fn starts(self, scheme: &Scheme, seen: Range) -> impl Iterator<Item = (f32, f32)> {
        let (min, max) = (seen.min(), seen.max());
        // The steps of small floats widen with the value, so that a larger scale may serve better:
        // 4 instead of 6 as the code of the largest weight.
        let is_float = matches!(scheme.format(), Format::Float(_));
        let widest = if is_float { 1.6 } else { 1.1 };
        let fractions = (0..self.starts).map(move |start| {
            let way = f32::from(start) / f32::from(self.starts.max(2) - 1);
            let fraction = widest + (0.1 - widest) * way;
            (fraction * min, fraction * max)
        });
        // Where both ends can move, they may want to move by different shares.
        let moves_both = !goes_through_zero(scheme) && self.starts > 0;
        let shares = if moves_both { 0..4_u8 } else { 0..0 };
        let cuts = shares.clone().flat_map(move |low| {
            let cut = move |share: u8| 0.12 * f32::from(share) * (max - min);
            shares
                .clone()
                .map(move |high| (min + cut(low), max - cut(high)))
        });
        fractions.chain(cuts)
    }
}

impl Calibrator for LeastSquares {
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        let points = Points::of(statistics)?;
        let weights = points.weights.as_deref();
        let weights = weights.filter(|all| all.iter().any(|&one| one > 0.0));
        let seen = match weights {
            None => statistics.range(),
            Some(weights) => range_that_counts(&points.values, weights)?,
        };
        let fit = Fit::new(&points.values, weights, scheme);
        let full = Parameter::from_range(scheme, seen)?;
        let at_full = fit.sums(full).error;
        let mut best = fit.descend(full);
        for (min, max) in self.starts(scheme, seen) {
            // Beyond the largest float there is no wider range to start from.
            let range = Range::new(min, max);
            let parameter = range.and_then(|range| Parameter::from_range(scheme, range));
            let Ok(parameter) = parameter else {
                continue;
            };
            let found = fit.descend(parameter);
            if found.0 < best.0 {
                best = found;
            }
        }
        // The parameters that the range will give may differ in their last bits.
        let range = range_of(best.1, scheme)?;
        let again = Parameter::from_range(scheme, range)?;
        Ok(if fit.sums(again).error < at_full {
            range
        } else {
            seen
        })
    }
}

/// The range of the values that count.
fn range_that_counts(values: &[f32], weights: &[f32]) -> Result<Range> {
    let counting = values.iter().zip(weights).filter(|(_, one)| **one > 0.0);
    let ends = counting.fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), (&x, _)| {
        (min.min(x), max.max(x))
    });
    Range::new(ends.0, ends.1)
}

/// Whether the scale alone is free.
fn goes_through_zero(scheme: &Scheme) -> bool {
    matches!(scheme.format(), Format::Float(_)) || scheme.mapping().is_symmetric()
}

/// A range that is laid onto the codes by these parameters, to rounding: the inverse of
/// [`Parameter::from_range`].
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
fn range_of(parameter: Parameter, scheme: &Scheme) -> Result<Range> {
    let Parameter {
        mut scale,
        zero_point,
    } = parameter;
    if scheme.scale_kind() == ScaleKind::PowerOfTwo {
        // A scale above the power by one bit would be rounded up to the next one.
        scale *= 1.0 - 1e-5;
    }
    let (low, high) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
    let middle = scheme.middle() as f32;
    let around_zero = |codes: f32| (-codes * scale, codes * scale);
    let (min, max) = match (scheme.format(), scheme.mapping()) {
        (Format::Float(float), _) => around_zero(float.max_value()),
        (_, Mapping::Symmetric) => around_zero(high - middle),
        (_, Mapping::SymmetricHalfRange) => around_zero((high - low) / 2.0),
        _ => ((low - zero_point) * scale, (high - zero_point) * scale),
    };
    Range::new(min.max(f32::MIN), max.min(f32::MAX))
}

/// One group being fitted.
struct Fit<'a> {
    values: &'a [f32],
    weights: Option<&'a [f32]>,
    scheme: &'a Scheme,
    rule: Rule<f32>,
}

/// `Σω`, `Σωu`, `Σωu²`, `Σωx`, `Σωxu` and `Σω(x − x̂)²`, where `u` is how many steps a code is from
/// the zero point.
struct Sums {
    w: f64,
    u: f64,
    uu: f64,
    x: f64,
    xu: f64,
    error: f64,
}

/// [`Sums`] under a parameter.
struct Count<'a> {
    values: &'a [f32],
    weights: Option<&'a [f32]>,
    parameter: Parameter,
    rule: Rule<f32>,
}

impl Loops for Count<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run(self) -> Sums {
        const LANES: usize = 8;
        const BUFFER: usize = 256;
        let scale = f64::from(self.parameter.scale);
        let (mut x, mut image, mut w) = ([0.0_f32; BUFFER], [0.0_f32; BUFFER], [1.0_f32; BUFFER]);
        let mut sums = [[0.0_f64; LANES]; 6];
        for (index, values) in self.values.chunks(BUFFER).enumerate() {
            let len = values.len();
            let parameters = SpanParameters::shared(&self.parameter, len);
            x[..len].copy_from_slice(values);
            loops::fake_quantize(values, &mut image[..len], parameters, self.rule, NOTHING);
            if let Some(weights) = self.weights {
                w[..len].copy_from_slice(&weights[index * BUFFER..index * BUFFER + len]);
            }
            // What earlier values have left in the last lanes counts for nothing.
            let whole = len.next_multiple_of(LANES);
            w[len..whole].fill(0.0);
            let (x, image, w) = (x.as_chunks().0, image.as_chunks().0, w.as_chunks().0);
            for ((x, image), w) in x.iter().zip(image).zip(w).take(whole / LANES) {
                let (x, image, w): (&[f32; LANES], &[f32; LANES], &[f32; LANES]) = (x, image, w);
                for lane in 0..LANES {
                    let (x, w) = (f64::from(x[lane]), f64::from(w[lane]));
                    let image = f64::from(image[lane]);
                    let (u, wx) = (image / scale, w * x);
                    let wu = w * u;
                    sums[0][lane] += w;
                    sums[1][lane] += wu;
                    sums[2][lane] += wu * u;
                    sums[3][lane] += wx;
                    sums[4][lane] += wx * u;
                    sums[5][lane] += w * (x - image) * (x - image);
                }
            }
        }
        let [w, u, uu, x, xu, error] = sums.map(|lanes| lanes.iter().sum());
        Sums {
            w,
            u,
            uu,
            x,
            xu,
            error,
        }
    }
}

impl<'a> Fit<'a> {
    fn new(values: &'a [f32], weights: Option<&'a [f32]>, scheme: &'a Scheme) -> Self {
        Self {
            values,
            weights,
            scheme,
            rule: Rule::of(scheme),
        }
    }

    fn sums(&self, parameter: Parameter) -> Sums {
        wide(Count {
            values: self.values,
            weights: self.weights,
            parameter,
            rule: self.rule,
        })
    }

    /// The least error, and where, of a descent from `parameter`.
    fn descend(&self, parameter: Parameter) -> (f64, Parameter) {
        let mut sums = self.sums(parameter);
        let mut best = (sums.error, parameter);
        for _ in 0..DESCENT {
            let Some(next) = self.regress(best.1, &sums) else {
                break;
            };
            sums = self.sums(next);
            // Not so for an error that is not a number, either.
            let improves = sums.error < best.0;
            if !improves {
                break;
            }
            best = (sums.error, next);
        }
        best
    }

    /// The parameter that fits best the codes that have these sums at `at`, as the scheme stores
    /// it; none if the codes do not determine one.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is asked for"
    )]
    fn regress(&self, at: Parameter, sums: &Sums) -> Option<Parameter> {
        let (mut scale, mut zero_point) = (sums.xu / sums.uu, at.zero_point);
        if !goes_through_zero(self.scheme) {
            // x ≈ s·u + m, which is s·(u − shift).
            let determinant = sums.w * sums.uu - sums.u * sums.u;
            let slope = (sums.w * sums.xu - sums.x * sums.u) / determinant;
            let offset = (sums.uu * sums.x - sums.u * sums.xu) / determinant;
            let shift = -offset / slope;
            let exact = f64::from(at.zero_point) + shift;
            if self.scheme.mapping() == Mapping::Asymmetric {
                let low = f64::from(self.scheme.quant_min());
                let high = f64::from(self.scheme.quant_max());
                let rounded = exact.round_ties_even().clamp(low, high);
                // The scale that is best with the zero point as it is stored.
                let shift = rounded - f64::from(at.zero_point);
                let with_target = sums.xu - shift * sums.x;
                let with_itself = sums.uu - 2.0 * shift * sums.u + shift * shift * sums.w;
                scale = with_target / with_itself;
                zero_point = rounded as f32;
            } else {
                scale = slope;
                zero_point = exact as f32;
            }
        }
        let scale = scale as f32;
        let stored = if scale.is_finite() && scale > 0.0 {
            store(self.scheme.scale_kind(), scale)
        } else {
            return None;
        };
        (stored.is_normal() && zero_point.is_finite()).then_some(Parameter {
            scale: stored,
            zero_point,
        })
    }
}
