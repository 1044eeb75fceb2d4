//! Which inputs a layer weighs most: the sum of their squares.

use ndarray::{ArrayD, ArrayViewD};

use super::{
    Observer, Statistics,
    min_max::Extremes,
    tally::{State, Tally, nothing_seen, same_kind},
};
use crate::{
    error::{Error, Result},
    scheme::Granularity,
};

/// The mean of the squares of each group of elements, usually of each input channel: how much an
/// error in the weights that meet it matters (the importance matrix of llama.cpp; to first order the
/// diagonal of the layer's Hessian).
///
/// Sums and counts add up, so that shards merge; the order of batches changes the last bits alone.
///
/// ```
/// use lowbit::{Granularity, ObserverExt, QuantizerExt, RoundToNearest, Scheme};
/// use lowbit::{calibrate::MeanSquaredError, observe::Importance};
/// use ndarray::array;
///
/// // activations [tokens, in]: one value for each input
/// let mut observer = Importance::new(Granularity::PerAxis(1));
/// observer.observe(&array![[1.0_f32, 10.0], [3.0, 0.0]])?;
/// let importance = observer.importance()?;
/// assert_eq!(importance, array![5.0, 50.0].into_dyn());
///
/// // weights [out, in] whose clipping range heeds it
/// let quantized = RoundToNearest::new(Scheme::int(2).per_axis(0).build()?)
///     .with_calibrator(MeanSquaredError::default())
///     .with_importance(&importance)
///     .quantize(&array![[1.0_f32, 0.3]])?;
/// # assert_eq!(quantized.shape(), [1, 2]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct Importance {
    tally: Tally<Squares>,
}

impl Importance {
    /// An observer that has seen nothing.
    #[must_use]
    pub fn new(granularity: Granularity) -> Self {
        Self {
            tally: Tally::new(granularity),
        }
    }

    /// The mean square of each group, in the shape of the parameters, at most `f32::MAX`; 0 for a
    /// group that has seen no element.
    ///
    /// # Errors
    /// [`Error::Empty`] before the first batch.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is asked for"
    )]
    pub fn importance(&self) -> Result<ArrayD<f32>> {
        let shape = self
            .tally
            .shape()
            .ok_or_else(|| nothing_seen("importance"))?;
        let means = self.tally.states().iter();
        let means = means.map(|squares| squares.mean().min(f32::MAX.into()) as f32);
        ArrayD::from_shape_vec(shape, means.collect()).map_err(Error::other)
    }
}

impl Observer for Importance {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        self.tally.observe(batch, Squares::take)
    }

    fn granularity(&self) -> Granularity {
        self.tally.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.tally.shape()
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        let squares = self.tally.state(parameter)?;
        let range = squares.extremes.range();
        let range = range.ok_or_else(|| nothing_seen("importance"))?;
        Ok(Statistics::new("importance", squares.extremes.count, range))
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        self.tally
            .merge(&same_kind::<Self>(other)?.tally, Squares::merge)
    }

    fn reset(&mut self) {
        self.tally.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self::new(self.granularity()))
    }
}

/// The sum of squares of one group.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Squares {
    extremes: Extremes,
    sum: f64,
}

impl State for Squares {
    fn count(&self) -> u64 {
        self.extremes.count
    }
}

impl Squares {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn mean(&self) -> f64 {
        self.sum / self.extremes.count.max(1) as f64
    }

    fn take(&mut self, values: &[f32]) {
        self.extremes.take(values);
        self.sum += values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    }

    fn merge(&mut self, other: &Self) {
        self.extremes.merge(&other.extremes);
        self.sum += other.sum;
    }
}

/// What a stored observer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Importance")]
struct Unchecked {
    tally: Tally<Squares>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Importance {
    type Error = Error;

    fn try_from(Unchecked { tally }: Unchecked) -> Result<Self> {
        tally.check(|squares| {
            squares.extremes.is_valid() && squares.sum.is_finite() && squares.sum >= 0.0
        })?;
        Ok(Self { tally })
    }
}
