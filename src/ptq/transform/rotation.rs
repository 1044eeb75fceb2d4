//! Randomized Hadamard rotations, which spread outliers over all channels.

use std::sync::Arc;

use super::{Hadamard, Side, Transform};
use crate::{
    element::Real,
    error::{Error, Result},
    random::Random,
};

/// An orthogonal map of the channels: random signs, then a Hadamard transform, of all channels or
/// of each block of them.
///
/// Each output mixes all inputs alike, so that one large channel becomes a little of every channel
/// (QuIP#, Tseng et al. 2024, arXiv:2402.04396; QuaRot, Ashkboos et al. 2024, arXiv:2404.00456). It
/// is folded into the weights on both sides of a residual stream, or applied online to what a
/// nonlinearity produces, in `n log n` additions a row. A rotation by blocks of the size of a head
/// rotates the values of each head on its own.
///
/// ```
/// use lowbit::ptq::{Rotation, TransformExt};
/// use ndarray::{Array1, array};
///
/// let rotation = Rotation::hadamard(16)?.with_signs(42);
/// let mut spike = Array1::<f32>::zeros(16);
/// spike[5] = 4.0;
/// assert!(rotation.inputs(&spike)?.iter().all(|x| x.abs() == 1.0));
///
/// // heads of 8 channels
/// assert!(Rotation::blocks(64, 8).is_ok());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Settings", into = "Settings")
)]
pub struct Rotation {
    channels: usize,
    hadamard: Hadamard,
    seed: Option<u64>,
    /// Empty without a seed.
    signs: Arc<[f32]>,
}

impl Rotation {
    /// The Hadamard transform of all channels, without signs.
    ///
    /// # Errors
    /// Those of [`Hadamard::new`]; [`blocks`](Self::blocks) may serve where there is no transform
    /// of that size.
    pub fn hadamard(channels: usize) -> Result<Self> {
        Self::blocks(channels, channels)
    }

    /// The Hadamard transform of each block of `size` consecutive channels, without signs.
    ///
    /// # Errors
    /// Those of [`Hadamard::new`]; [`Error::InvalidOption`] if the size does not divide the
    /// channels; [`Error::TooLarge`] for more than 2^24 of them.
    pub fn blocks(channels: usize, size: usize) -> Result<Self> {
        /// Channels, at most: signs are made for each.
        const LIMIT: usize = 1 << 24;
        let hadamard = Hadamard::new(size)?;
        if channels > LIMIT {
            return Err(Error::TooLarge {
                what: "rotation",
                got: format!("{channels} channels"),
            });
        }
        if channels == 0 || !channels.is_multiple_of(size) {
            return Err(Error::option(
                "channels of a rotation by blocks",
                format!("a multiple of {size}"),
                channels,
            ));
        }
        Ok(Self {
            channels,
            hadamard,
            seed: None,
            signs: Arc::new([]),
        })
    }

    /// With a random sign for each channel before the transform; the same for the same seed. Signs
    /// keep what the channels have in common from piling up in one of the results.
    #[must_use]
    pub fn with_signs(mut self, seed: u64) -> Self {
        let mut random = Random::new(seed);
        self.signs = (0..self.channels).map(|_| random.sign()).collect();
        self.seed = Some(seed);
        self
    }

    fn apply_to<T: Real>(&self, rows: &mut [T]) {
        self.flip(rows);
        self.hadamard.apply(rows);
    }

    fn undo_on<T: Real>(&self, rows: &mut [T]) {
        self.hadamard.undo(rows);
        self.flip(rows);
    }

    fn flip<T: Real>(&self, rows: &mut [T]) {
        for row in rows.chunks_mut(self.channels) {
            for (x, &sign) in row.iter_mut().zip(&*self.signs) {
                *x = *x * T::of_f32(sign);
            }
        }
    }
}

/// An orthogonal map is its own inverse transpose: both sides are rotated alike.
impl Transform for Rotation {
    fn channels(&self) -> usize {
        self.channels
    }

    fn apply(&self, _: Side, rows: &mut [f64]) {
        self.apply_to(rows);
    }

    fn undo(&self, _: Side, rows: &mut [f64]) {
        self.undo_on(rows);
    }

    fn apply_f32(&self, _: Side, rows: &mut [f32]) {
        self.apply_to(rows);
    }

    fn undo_f32(&self, _: Side, rows: &mut [f32]) {
        self.undo_on(rows);
    }
}

/// What a rotation is made from, as it is stored.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "Rotation")]
struct Settings {
    channels: usize,
    block: usize,
    seed: Option<u64>,
}

#[cfg(feature = "serde")]
impl From<Rotation> for Settings {
    fn from(rotation: Rotation) -> Self {
        Self {
            channels: rotation.channels,
            block: rotation.hadamard.size(),
            seed: rotation.seed,
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Settings> for Rotation {
    type Error = Error;

    fn try_from(stored: Settings) -> Result<Self> {
        let rotation = Self::blocks(stored.channels, stored.block)?;
        Ok(match stored.seed {
            Some(seed) => rotation.with_signs(seed),
            None => rotation,
        })
    }
}
