//! A moving average of the extremes of batches.

use ndarray::ArrayViewD;

use super::{
    Observer, Statistics,
    min_max::Extremes,
    tally::{State, Tally, nothing_seen, same_kind},
};
use crate::{
    affine::Range,
    error::{Error, Result},
    scheme::Granularity,
};

/// An exponential moving average of the least and of the greatest element of each batch,
/// `m ← m + c · (x − m)`, as torch's `MovingAverageMinMaxObserver` has it; the first batch sets it.
///
/// It depends on the order of the batches. Merging weighs the two averages by their numbers of
/// batches, which is a choice: the average over both in sequence cannot be had from two shards.
///
/// ```
/// use lowbit::{Granularity, Observer, ObserverExt, observe::MovingAverageMinMax};
/// use ndarray::array;
///
/// let mut observer =
///     MovingAverageMinMax::new(Granularity::PerTensor).with_averaging_constant(0.5)?;
/// observer.observe(&array![0.0_f32, 4.0])?;
/// observer.observe(&array![0.0_f32, 8.0])?;
/// assert_eq!(observer.statistics(0)?.range().max(), 6.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct MovingAverageMinMax {
    averaging_constant: f32,
    tally: Tally<Average>,
}

impl MovingAverageMinMax {
    /// An observer that has seen nothing, with torch's averaging constant, 0.01.
    #[must_use]
    pub fn new(granularity: Granularity) -> Self {
        Self {
            averaging_constant: 0.01,
            tally: Tally::new(granularity),
        }
    }

    /// The weight `c` of a new batch.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless `0 < c <= 1`.
    pub fn with_averaging_constant(mut self, constant: f32) -> Result<Self> {
        if !(constant > 0.0 && constant <= 1.0) {
            return Err(Error::option(
                "averaging constant",
                "more than 0 and at most 1",
                constant,
            ));
        }
        self.averaging_constant = constant;
        Ok(self)
    }
}

impl Observer for MovingAverageMinMax {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        // The extremes of the whole batch first, since a parameter may have several runs.
        let batch = self.tally.admit(batch)?;
        let mut extremes = vec![Extremes::default(); batch.groups.parameters()];
        batch.for_each_state(&mut extremes, Extremes::take);
        let constant = self.averaging_constant;
        let states = self.tally.states_mut(&batch.groups);
        for (state, batch) in states.iter_mut().zip(&extremes) {
            state.include(batch, constant);
        }
        Ok(())
    }

    fn granularity(&self) -> Granularity {
        self.tally.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.tally.shape()
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        let state = self.tally.state(parameter)?;
        if state.batches == 0 {
            return Err(nothing_seen("moving average"));
        }
        let range = Range::new(state.min, state.max)?;
        Ok(Statistics::new("moving average", state.count, range))
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        let other = same_kind::<Self>(other)?;
        if self.averaging_constant != other.averaging_constant {
            return Err(Error::Mismatch {
                what: "averaging constant",
                expected: self.averaging_constant.to_string(),
                got: other.averaging_constant.to_string(),
            });
        }
        self.tally.merge(&other.tally, Average::merge)
    }

    fn reset(&mut self) {
        self.tally.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self {
            averaging_constant: self.averaging_constant,
            tally: Tally::new(self.granularity()),
        })
    }
}

/// The averages of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Average {
    batches: u64,
    count: u64,
    min: f32,
    max: f32,
}

impl State for Average {
    fn count(&self) -> u64 {
        self.count
    }
}

impl Average {
    fn include(&mut self, batch: &Extremes, constant: f32) {
        let Some(range) = batch.range() else {
            return;
        };
        if self.batches == 0 {
            (self.min, self.max) = (range.min(), range.max());
        } else {
            self.go_toward(range.min(), range.max(), constant);
        }
        self.batches += 1;
        self.count += batch.count;
    }

    fn go_toward(&mut self, min: f32, max: f32, weight: f32) {
        self.min = toward(self.min, min, weight);
        // Each is rounded by itself, which may cross them where they are neighbours.
        self.max = toward(self.max, max, weight).max(self.min);
    }
}

/// `from + weight · (to − from)`, where the difference might not be finite; between the two, whatever
/// rounding makes of it where one is far larger than the other.
fn toward(from: f32, to: f32, weight: f32) -> f32 {
    let difference = to - from;
    let between = if difference.is_finite() {
        from + weight * difference
    } else {
        (1.0 - weight) * from + weight * to
    };
    between.clamp(from.min(to), from.max(to))
}

impl Average {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a ratio of counts"
    )]
    fn merge(&mut self, other: &Self) {
        if self.batches == 0 {
            *self = *other;
        } else if other.batches > 0 {
            let batches = self.batches + other.batches;
            let weight = (other.batches as f64 / batches as f64) as f32;
            self.go_toward(other.min, other.max, weight);
            self.batches = batches;
            self.count += other.count;
        }
    }
}

/// What a stored observer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "MovingAverageMinMax")]
struct Unchecked {
    averaging_constant: f32,
    tally: Tally<Average>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for MovingAverageMinMax {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let tally = stored.tally;
        tally.check(|state| {
            state.count >= state.batches && Range::new(state.min, state.max).is_ok()
        })?;
        let averaging_constant = 1.0;
        Self {
            averaging_constant,
            tally,
        }
        .with_averaging_constant(stored.averaging_constant)
    }
}
