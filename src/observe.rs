//! Observers accumulate statistics of the tensors that pass by.

mod histogram;
mod statistics;

pub use histogram::Histogram;
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
/// [`observe`](Self::observe), on a type or on `dyn Observer` alike.
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

    /// Takes a batch of any dimension and layout into account; see
    /// [`observe_view`](Self::observe_view).
    ///
    /// # Errors
    /// Those of [`observe_view`](Self::observe_view).
    fn observe<D: Dimension>(&mut self, batch: &ArrayRef<f32, D>) -> Result<()>
    where
        Self: Sized,
    {
        self.observe_view(batch.view().into_dyn())
    }
}

impl dyn Observer {
    /// Takes a batch of any dimension and layout into account; see
    /// [`observe_view`](Observer::observe_view).
    ///
    /// # Errors
    /// Those of [`observe_view`](Observer::observe_view).
    pub fn observe<D: Dimension>(&mut self, batch: &ArrayRef<f32, D>) -> Result<()> {
        self.observe_view(batch.view().into_dyn())
    }
}
