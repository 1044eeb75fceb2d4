//! A few standard deviations about the mean.

use super::Calibrator;
use crate::{
    affine::Range,
    error::{Error, Result},
    observe::{Moments, Statistics},
    scheme::Scheme,
};

/// The mean and `k` standard deviations on each side, as far as it was seen: it clips, and never
/// widens.
///
/// Reads the moments that [`MeanDeviation`](crate::observe::MeanDeviation) gathers, or values at hand.
/// The usual `k` of 2.6 is MQBench's.
///
/// ```
/// use lowbit::{Granularity, ObserverExt, Scheme};
/// use lowbit::{calibrate::{StandardDeviations, ranges}, observe::MeanDeviation};
/// use ndarray::array;
///
/// let mut observer = MeanDeviation::new(Granularity::PerTensor);
/// observer.observe(&array![-1.0_f32, 1.0, -1.0, 1.0])?;
/// let scheme = Scheme::int(8).build()?;
/// let chosen = ranges(&StandardDeviations::new(0.5)?, &observer, &scheme)?;
/// assert_eq!(chosen.as_slice()[0].max(), 0.5);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StandardDeviations {
    deviations: f64,
}

impl Default for StandardDeviations {
    /// 2.6 standard deviations.
    fn default() -> Self {
        Self { deviations: 2.6 }
    }
}

impl StandardDeviations {
    /// So many standard deviations on each side of the mean.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is finite and more than 0.
    pub fn new(deviations: f64) -> Result<Self> {
        if deviations > 0.0 && deviations.is_finite() {
            Ok(Self { deviations })
        } else {
            Err(Error::option(
                "standard deviations",
                "a finite number above 0",
                deviations,
            ))
        }
    }
}

impl Calibrator for StandardDeviations {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a count below 2^53, and the nearest f32 is the end of a range"
    )]
    fn range(&self, statistics: &Statistics<'_>, _scheme: &Scheme) -> Result<Range> {
        let seen = statistics.range();
        let moments = match statistics.values() {
            None => statistics.moments()?,
            Some(values) => {
                let count = values.len() as f64;
                let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
                let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
                Moments {
                    mean,
                    variance: squares.sum::<f64>() / count,
                }
            }
        };
        let deviation = moments.deviation();
        if !(moments.mean.is_finite() && deviation.is_finite()) {
            let bad_mean = !moments.mean.is_finite();
            return Err(Error::NonFinite {
                what: "mean and variance",
                expected: "finite numbers, a variance of at least 0",
                position: vec![usize::from(!bad_mean)],
                value: if bad_mean {
                    moments.mean
                } else {
                    moments.variance
                },
            });
        }
        let reach = self.deviations * deviation;
        let low = ((moments.mean - reach) as f32).clamp(seen.min(), seen.max());
        let high = ((moments.mean + reach) as f32).clamp(low, seen.max());
        Range::new(low, high)
    }
}
