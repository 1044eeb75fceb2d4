//! Observers accumulate statistics of the tensors that pass by.

mod fixed;
mod hessian;
mod histogram;
mod histogram_observer;
mod importance;
mod input_deviation;
mod mean_deviation;
mod min_max;
mod moving_average;
mod products;
mod statistics;
mod tally;

pub use fixed::Fixed;
pub use hessian::Hessian;
pub use histogram::{Bin, Histogram};
pub use histogram_observer::HistogramObserver;
pub use importance::Importance;
pub use input_deviation::InputDeviation;
pub use mean_deviation::MeanDeviation;
pub use min_max::MinMax;
pub use moving_average::MovingAverageMinMax;
pub use statistics::{Moments, Statistics};

use std::{any::Any, fmt::Debug};

use ndarray::{ArrayRef, ArrayViewD, Dimension};

use crate::{error::Result, scheme::Granularity};

/// Accumulates statistics of tensors, for each group of elements that shares a scale.
///
/// The first batch fixes the shape of the parameters; later batches must have the same number of
/// channels, groups or rows where the granularity counts them. Shapes may otherwise differ.
///
/// The trait is object-safe: implementors write [`observe_view`](Self::observe_view), callers use
/// [`ObserverExt::observe`], on a type or on `dyn Observer` alike.
///
/// ```
/// use std::any::Any;
/// use lowbit::{Error, Granularity, Observer, ObserverExt, Range, Ranges, Result, Scheme};
/// use lowbit::{calibrate::{FullRange, ranges}, observe::Statistics};
/// use ndarray::{ArrayViewD, array};
///
/// /// The range of the last batch.
/// #[derive(Debug, Default)]
/// struct Last(Option<(u64, Range)>);
///
/// impl Observer for Last {
///     fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
///         let ranges = Ranges::of(&batch, Granularity::PerTensor)?; // refuses NaN and infinity
///         self.0 = Some((batch.len() as u64, ranges.as_slice()[0]));
///         Ok(())
///     }
///     fn granularity(&self) -> Granularity {
///         Granularity::PerTensor
///     }
///     fn parameter_shape(&self) -> Option<&[usize]> {
///         self.0.map(|_| &[][..])
///     }
///     fn statistics(&self, _parameter: usize) -> Result<Statistics<'_>> {
///         let (count, range) = self.0.ok_or_else(|| Error::Empty { what: "last batch".into() })?;
///         Ok(Statistics::new("last batch", count, range))
///     }
///     fn merge(&mut self, other: &dyn Observer) -> Result<()> {
///         let other: &dyn Any = other;
///         let other: &Self = other.downcast_ref().ok_or_else(|| Error::other("not a Last"))?;
///         self.0 = other.0.or(self.0);
///         Ok(())
///     }
///     fn reset(&mut self) {
///         self.0 = None;
///     }
///     fn fork(&self) -> Box<dyn Observer> {
///         Box::new(Self(None))
///     }
/// }
///
/// let mut observer = Last::default();
/// observer.observe(&array![9.0_f32, -1.0])?;
/// observer.observe(&array![0.5_f32, -2.0])?;
/// let chosen = ranges(&FullRange, &observer, &Scheme::int(8).build()?)?;
/// assert_eq!(chosen.as_slice(), [Range::new(-2.0, 0.5)?]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Observer: Any + Debug + Send + Sync {
    /// Takes a batch into account. A batch that is refused leaves the statistics as they were.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) with the position of the first NaN or
    /// infinity; [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the batch has other
    /// parameters than those before.
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()>;

    /// Which elements share statistics.
    fn granularity(&self) -> Granularity;

    /// The shape of the parameters; `None` before the first batch.
    fn parameter_shape(&self) -> Option<&[usize]>;

    /// What was gathered for one parameter, counted in row-major order of
    /// [`parameter_shape`](Self::parameter_shape).
    ///
    /// # Errors
    /// [`Error::Empty`](crate::Error::Empty) if that parameter has seen no element.
    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>>;

    /// Adds what another observer of the same type and settings has seen, as if this one had seen
    /// it after its own batches.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the other one differs in type or settings;
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if its parameters do.
    fn merge(&mut self, other: &dyn Observer) -> Result<()>;

    /// Forgets all that was seen; the settings stay.
    fn reset(&mut self);

    /// A new observer with the same settings that has seen nothing: one for each thread or shard,
    /// to be [merged](Self::merge) afterwards.
    fn fork(&self) -> Box<dyn Observer>;
}

/// The call of an [`Observer`] on arrays of any dimension and layout. Every observer has it, trait
/// objects too; there is nothing to implement.
///
/// ```
/// use lowbit::{Granularity, Observer, ObserverExt, observe::MinMax};
/// use ndarray::array;
/// let mut observer: Box<dyn Observer> = Box::new(MinMax::new(Granularity::PerTensor));
/// observer.observe(&array![[1.0_f32, -2.0], [3.0, 4.0]])?;
/// assert_eq!(observer.statistics(0)?.range().min(), -2.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait ObserverExt: Observer {
    /// Takes a batch into account.
    ///
    /// # Errors
    /// Those of [`observe_view`](Observer::observe_view).
    fn observe<D: Dimension>(&mut self, batch: &ArrayRef<f32, D>) -> Result<()> {
        self.observe_view(batch.view().into_dyn())
    }
}

impl<O: Observer + ?Sized> ObserverExt for O {}
