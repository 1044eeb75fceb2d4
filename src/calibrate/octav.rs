//! The optimal clipping of OCTAV.

use super::{Calibrator, points::Points};
use crate::{affine::Range, error::Result, observe::Statistics, scheme::Scheme};

/// Optimally clipped tensors and vectors: Sakr et al. 2022, arXiv:2206.06501, eq. 6.
///
/// The clipping `s` that minimizes `(4⁻ᵇ / 3) s² Σ1[|x| ≤ s] + Σ (|x| − s)² 1[|x| > s]`, rounding
/// noise and clipping error, by the fixed point
/// `s ← Σ|x| 1[|x| > s] / ((4⁻ᵇ / 3) Σ1[|x| ≤ s] + Σ1[|x| > s])` from the mean magnitude (3 is 12
/// where all elements are positive and the scheme is asymmetric, since the step is then half as
/// wide). A few iterations serve; the range never exceeds the one seen.
///
/// ```
/// use lowbit::{Calibrator, Scheme, calibrate::Octav, observe::Statistics};
/// let mut values: Vec<f32> = (0..1000).map(|i| (i as f32).sin()).collect();
/// values.push(50.0);
/// let scheme = Scheme::int(4).build()?;
/// let range = Octav.range(&Statistics::of_values(&values)?, &scheme)?;
/// assert!(range.max() < 30.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Octav;

/// Iterations at most; the fixed point is usually reached within ten.
const ITERATIONS: usize = 50;

impl Calibrator for Octav {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is the end of a range"
    )]
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        let seen = statistics.range();
        let points = Points::of(statistics)?;
        let one_sided = seen.min() >= 0.0 && !scheme.mapping().is_symmetric();
        let divisor = if one_sided { 12.0 } else { 3.0 };
        let noise = 0.25_f64.powi(i32::try_from(scheme.bits()).unwrap_or(16)) / divisor;
        let weight = |index: usize| points.weights.as_ref().map_or(1.0, |w| f64::from(w[index]));
        // Σ w|x|, Σ w beyond s, and Σ w within.
        let sums = |s: f64| {
            let mut sums = (0.0, 0.0, 0.0);
            for (index, &x) in points.values.iter().enumerate() {
                let magnitude = f64::from(x.abs());
                if magnitude > s {
                    sums.0 += weight(index) * magnitude;
                    sums.1 += weight(index);
                } else {
                    sums.2 += weight(index);
                }
            }
            sums
        };
        // Everything that is not 0 lies beyond 0, so that this is the mean magnitude of it.
        let (total, count, _) = sums(0.0);
        if count == 0.0 {
            return Ok(seen);
        }
        let mut s = total / count;
        for _ in 0..ITERATIONS {
            let (beyond, outside, inside) = sums(s);
            if outside == 0.0 {
                break; // nothing is clipped, and the next s would be 0
            }
            let next = beyond / (noise * inside + outside);
            let moved = (next - s).abs();
            s = next;
            if moved <= 1e-6 * s {
                break;
            }
        }
        let s = s as f32;
        Range::new(
            seen.min().max(-s).min(seen.max()),
            seen.max().min(s).max(seen.min()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fixed_point_is_one_and_about_minimizes_noise_and_clipping() {
        let values: Vec<f32> = (1..5000)
            .map(|i| {
                let u = i as f32 / 5000.0;
                (if i % 2 == 0 { 1.0 } else { -1.0 }) * -(1.0 - u).ln()
            })
            .collect();
        for bits in [2, 3, 4, 6, 8] {
            let scheme = Scheme::int(bits).build().unwrap();
            let statistics = Statistics::of_values(&values).unwrap();
            let chosen = Octav.range(&statistics, &scheme).unwrap().magnitude();
            let objective = |s: f32| -> f64 {
                let noise = 0.25_f64.powi(bits as i32) / 3.0 * f64::from(s * s);
                let one = |x: &f32| match x.abs() {
                    magnitude if magnitude > s => f64::from(magnitude - s).powi(2),
                    _ => noise,
                };
                values.iter().map(one).sum()
            };
            let least = (1..2000)
                .map(|i| objective(i as f32 * 0.005))
                .fold(f64::INFINITY, f64::min);
            // The fixed point leaves out that elements change sides as s moves, which matters where
            // many lie about it: at few bits.
            let slack = if bits < 4 { 1.05 } else { 1.002 };
            assert!(objective(chosen) <= slack * least, "{bits} bits, {chosen}");
            let beyond = values.iter().map(|x| x.abs()).filter(|x| *x > chosen);
            let (sum, outside) = beyond.fold((0.0, 0.0), |(s, n), x| (s + f64::from(x), n + 1.0));
            let noise = 0.25_f64.powi(bits as i32) / 3.0;
            let image = sum / (noise * (values.len() as f64 - outside) + outside);
            approx::assert_relative_eq!(image, f64::from(chosen), max_relative = 1e-3);
        }
    }

    #[test]
    fn degenerate_values_have_a_range() {
        let scheme = Scheme::int(8).asymmetric().build().unwrap();
        for values in [&[0.0_f32][..], &[2.5; 9], &[0.0, 1e-40], &[-3.0, -2.0]] {
            let statistics = Statistics::of_values(values).unwrap();
            Octav.range(&statistics, &scheme).unwrap();
        }
    }
}
