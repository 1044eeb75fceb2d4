//! The gain and shift of a norm, folded into the layers that it feeds.

use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2, Axis};

use super::check_finite;
use crate::{affine::same_shape, error::Result};

/// What an RMSNorm or a LayerNorm does after it has normalized: `γ ⊙ n + β`.
///
/// Folded into every layer that reads the norm, it leaves a norm without parameters, which commutes
/// with rotations (QuaRot, Ashkboos et al. 2024, arXiv:2404.00456, section 4; SliceGPT, Ashkboos et
/// al. 2024, arXiv:2401.15024, section 3): `W (γ ⊙ n + β) + b = (W diag γ) n + (W β + b)`. The norm
/// itself then gets a gain of 1 and a shift of 0.
///
/// A LayerNorm also takes off the mean, which a rotation would move: with [`without_mean`] on the
/// weights and the bias of each layer that writes what the norm reads, there is no mean to take
/// off, and the LayerNorm is an RMSNorm.
///
/// ```
/// use lowbit::ptq::NormParameters;
/// use ndarray::array;
///
/// let norm = NormParameters::with_shift(array![2.0, 0.5], array![1.0, -1.0])?;
/// let (weights, bias) = (array![[3.0_f32, 4.0]], array![10.0_f32]);
/// assert_eq!(norm.weights(&weights)?, array![[6.0, 2.0]]);
/// assert_eq!(norm.bias(&weights, Some(&bias))?, array![9.0]); // of the weights as they were
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct NormParameters {
    gain: Array1<f32>,
    shift: Option<Array1<f32>>,
}

impl NormParameters {
    /// The gain of an RMSNorm; it may be 0 or negative.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or an infinity.
    pub fn new(gain: Array1<f32>) -> Result<Self> {
        check_finite("gain of the norm", &gain)?;
        Ok(Self { gain, shift: None })
    }

    /// The gain and the shift of a LayerNorm.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if they differ in length;
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or an infinity.
    pub fn with_shift(gain: Array1<f32>, shift: Array1<f32>) -> Result<Self> {
        same_shape("shift of the norm", gain.shape(), shift.shape())?;
        check_finite("shift of the norm", &shift)?;
        let mut norm = Self::new(gain)?;
        norm.shift = Some(shift);
        Ok(norm)
    }

    /// The weights `[out, in]` of a layer after the norm, with the gain in them.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) unless there is a column for each
    /// gain; [`Error::NonFinite`](crate::Error::NonFinite) if a folded weight is not finite.
    pub fn weights(&self, weights: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        self.fits(weights)?;
        let folded = weights.to_owned() * &self.gain;
        check_finite("folded weights", &folded)?;
        Ok(folded)
    }

    /// The bias `[out]` of a layer after the norm, with the shift in it; `weights` are those before
    /// the gain was folded in. The sum is taken in f64.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) unless there is a column for each gain
    /// and a bias for each row; [`Error::NonFinite`](crate::Error::NonFinite) if a folded bias is
    /// not finite.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is asked for"
    )]
    pub fn bias(
        &self,
        weights: &ArrayRef2<f32>,
        bias: Option<&ArrayRef1<f32>>,
    ) -> Result<Array1<f32>> {
        self.fits(weights)?;
        if let Some(bias) = bias {
            same_shape("bias", &[weights.nrows()], bias.shape())?;
        }
        let of_row = |(row, weights): (usize, ndarray::ArrayView1<'_, f32>)| {
            let own = bias.map_or(0.0, |bias| f64::from(bias[row]));
            let shift = self.shift.iter().flatten();
            let products = weights.iter().zip(shift);
            let sum: f64 = products.map(|(&w, &b)| f64::from(w) * f64::from(b)).sum();
            (own + sum) as f32
        };
        let folded: Array1<f32> = weights.rows().into_iter().enumerate().map(of_row).collect();
        check_finite("folded bias", &folded)?;
        Ok(folded)
    }

    fn fits(&self, weights: &ArrayRef2<f32>) -> Result<()> {
        let expected = [weights.nrows(), self.gain.len()];
        same_shape("weights after the norm", &expected, weights.shape())
    }
}

/// A layer `[out, in]`, or its bias as `[out, 1]`, whose outputs have their mean taken off:
/// `(I − 1 1ᵀ / out) W`, with the means in f64.
///
/// # Errors
/// [`Error::NonFinite`](crate::Error::NonFinite) if a value of the result is not finite.
///
/// ```
/// use lowbit::ptq::without_mean;
/// use ndarray::array;
/// assert_eq!(without_mean(&array![[1.0_f32, 5.0], [3.0, 5.0]])?, array![[-1.0, 0.0], [1.0, 0.0]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "the nearest f32 is asked for; rows below 2^53"
)]
pub fn without_mean(weights: &ArrayRef2<f32>) -> Result<Array2<f32>> {
    let mut centered = weights.to_owned();
    for mut column in centered.axis_iter_mut(Axis(1)) {
        let sum: f64 = column.iter().map(|&w| f64::from(w)).sum();
        let mean = sum / column.len().max(1) as f64;
        column.mapv_inplace(|w| (f64::from(w) - mean) as f32);
    }
    check_finite("weights without their mean", &centered)?;
    Ok(centered)
}
