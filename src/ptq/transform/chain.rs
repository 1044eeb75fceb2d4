//! Transforms one after the other.

use std::sync::Arc;

use super::{Side, Transform};
use crate::error::{Error, Result};

/// Several transforms of the same channels, the first one first: `T₁ · T₂ · …`.
///
/// ```
/// use lowbit::ptq::{Chain, ChannelScales, Rotation, TransformExt};
/// use ndarray::array;
///
/// let scales = ChannelScales::new(array![2.0, 1.0, 4.0, 1.0])?;
/// let chain = Chain::new(scales).and(Rotation::hadamard(4)?)?;
/// assert_eq!(chain.inputs(&array![2.0_f32, 1.0, 4.0, 1.0])?, array![2.0, 0.0, 0.0, 0.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Chain {
    channels: usize,
    parts: Vec<Arc<dyn Transform>>,
}

impl Chain {
    /// A chain of one.
    #[must_use]
    pub fn new(first: impl Transform + 'static) -> Self {
        Self {
            channels: first.channels(),
            parts: vec![Arc::new(first)],
        }
    }

    /// The chain with one more transform at its end.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it has another number of channels.
    pub fn and(mut self, next: impl Transform + 'static) -> Result<Self> {
        if next.channels() != self.channels {
            return Err(Error::Mismatch {
                what: "channels of a transform",
                expected: self.channels.to_string(),
                got: next.channels().to_string(),
            });
        }
        self.parts.push(Arc::new(next));
        Ok(self)
    }
}

impl Transform for Chain {
    fn channels(&self) -> usize {
        self.channels
    }

    fn apply(&self, side: Side, rows: &mut [f64]) {
        self.parts.iter().for_each(|part| part.apply(side, rows));
    }

    fn undo(&self, side: Side, rows: &mut [f64]) {
        let parts = self.parts.iter().rev();
        parts.for_each(|part| part.undo(side, rows));
    }

    fn apply_f32(&self, side: Side, rows: &mut [f32]) {
        let parts = self.parts.iter();
        parts.for_each(|part| part.apply_f32(side, rows));
    }

    fn undo_f32(&self, side: Side, rows: &mut [f32]) {
        let parts = self.parts.iter().rev();
        parts.for_each(|part| part.undo_f32(side, rows));
    }
}
