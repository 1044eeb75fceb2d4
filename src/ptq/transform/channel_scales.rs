//! A scale for each input channel: what SmoothQuant, AWQ and equalization choose.

use ndarray::{Array1, ArrayView1};

use super::{Side, Transform};
use crate::{
    element::Real,
    error::{Error, Result},
    simd::{Loops, wide},
};

/// A positive scale `s` for each input channel: inputs become `x / s`, weights `w · s`.
///
/// The division is free where it folds into what comes before: the gain and shift of a norm, which
/// are rows of inputs ([`inputs`](super::TransformExt::inputs)), or the rows of the layer before
/// ([`outputs`](super::TransformExt::outputs)).
///
/// ```
/// use lowbit::ptq::{ChannelScales, TransformExt};
/// use ndarray::array;
///
/// let scales = ChannelScales::new(array![4.0, 0.5])?;
/// assert_eq!(scales.weights(&array![[1.0_f32, 1.0]])?, array![[4.0, 0.5]]);
/// let gain = scales.inputs(&array![1.0_f32, 3.0])?; // of the norm before
/// assert_eq!(gain, array![0.25, 6.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Vec<f32>", into = "Vec<f32>")
)]
pub struct ChannelScales {
    scales: Array1<f32>,
}

impl ChannelScales {
    /// The scales of channels, in order.
    ///
    /// # Errors
    /// [`Error::Empty`] for none; [`Error::InvalidScale`] unless each is finite, positive and
    /// normal.
    pub fn new(scales: Array1<f32>) -> Result<Self> {
        if scales.is_empty() {
            return Err(Error::Empty {
                what: "channel scales".into(),
            });
        }
        let scales = scales.as_standard_layout().into_owned();
        let valid = |scale: &f32| scale.is_normal() && *scale > 0.0;
        match scales.iter().enumerate().find(|(_, scale)| !valid(scale)) {
            None => Ok(Self { scales }),
            Some((index, &got)) => Err(Error::InvalidScale {
                index,
                expected: "a finite, positive, normal number",
                got,
            }),
        }
    }

    /// The scales.
    #[must_use]
    pub fn scales(&self) -> ArrayView1<'_, f32> {
        self.scales.view()
    }

    /// Each scale rounded to the nearest power of two, by its logarithm: dividing by it, and
    /// multiplying, is then exact.
    #[must_use]
    pub fn to_powers_of_two(&self) -> Self {
        let least = f32::MIN_POSITIVE.log2();
        let greatest = f32::MAX.log2().floor() - 1.0;
        let power = |scale: f32| scale.log2().round_ties_even().clamp(least, greatest).exp2();
        Self {
            scales: self.scales.mapv(power),
        }
    }

    fn rows<T: Real>(&self, rows: &mut [T], divide: bool) {
        wide(Scaling {
            rows,
            scales: self.scales.as_slice().unwrap_or_default(),
            divide,
        });
    }
}

/// Rows multiplied by the scales, or divided by them.
struct Scaling<'a, T> {
    rows: &'a mut [T],
    scales: &'a [f32],
    divide: bool,
}

impl<T: Real> Loops for Scaling<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for row in self.rows.chunks_mut(self.scales.len().max(1)) {
            for (x, &scale) in row.iter_mut().zip(self.scales) {
                let scale = T::of_f32(scale);
                *x = if self.divide { *x / scale } else { *x * scale };
            }
        }
    }
}

impl Transform for ChannelScales {
    fn channels(&self) -> usize {
        self.scales.len()
    }

    fn apply(&self, side: Side, rows: &mut [f64]) {
        self.rows(rows, side == Side::Inputs);
    }

    fn undo(&self, side: Side, rows: &mut [f64]) {
        self.rows(rows, side == Side::Weights);
    }

    fn apply_f32(&self, side: Side, rows: &mut [f32]) {
        self.rows(rows, side == Side::Inputs);
    }

    fn undo_f32(&self, side: Side, rows: &mut [f32]) {
        self.rows(rows, side == Side::Weights);
    }
}

impl TryFrom<Vec<f32>> for ChannelScales {
    type Error = Error;

    fn try_from(scales: Vec<f32>) -> Result<Self> {
        Self::new(scales.into())
    }
}

impl From<ChannelScales> for Vec<f32> {
    fn from(scales: ChannelScales) -> Self {
        scales.scales.to_vec()
    }
}
