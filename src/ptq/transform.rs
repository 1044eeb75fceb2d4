//! Changes of basis of a layer's inputs that leave its output as it is: scales, rotations, chains.

mod chain;
mod channel_scales;
mod hadamard;
mod orders;
mod rotation;

pub use chain::Chain;
pub use channel_scales::ChannelScales;
pub use hadamard::Hadamard;
pub use rotation::Rotation;

use std::fmt::Debug;

use ndarray::{Array, Array2, ArrayRef, ArrayRef2, Dimension};

use super::check_finite;
use crate::{
    element::Real,
    error::{Error, Result},
    observe::{Hessian, InputDeviation},
    parallel::{PIECE, over_pieces},
};

/// On which side of a layer's product the rows are that a [`Transform`] is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Activations, rows of `[…, in]`: `x ← x · T`.
    Inputs,
    /// Weights, rows of `[out, in]`: `w ← w · T⁻ᵀ`, so that `x · wᵀ` stays what it was.
    Weights,
}

/// An invertible linear map `T` of the input channels of a layer, taken out of its weights again:
/// `x · Wᵀ = (x T) · (W T⁻ᵀ)ᵀ`.
///
/// What is quantized is then easier to quantize, while the layer computes the same. Callers use
/// [`TransformExt`]; implementors write what happens to rows of `f64`, which a Hessian has (and may
/// write it for `f32` too). The trait is object-safe.
///
/// ```
/// use lowbit::ptq::{Side, Transform, TransformExt};
/// use ndarray::array;
///
/// /// The channels in the opposite order.
/// #[derive(Debug)]
/// struct Reversed(usize);
///
/// impl Transform for Reversed {
///     fn channels(&self) -> usize {
///         self.0
///     }
///     fn apply(&self, _: Side, rows: &mut [f64]) {
///         rows.chunks_exact_mut(self.0).for_each(|row| row.reverse());
///     }
///     fn undo(&self, side: Side, rows: &mut [f64]) {
///         self.apply(side, rows);
///     }
/// }
///
/// let reversed = Reversed(3);
/// assert_eq!(reversed.inputs(&array![[1.0_f32, 2.0, 3.0]])?, array![[3.0, 2.0, 1.0]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Transform: Debug + Send + Sync {
    /// Channels of a row; at least 1.
    fn channels(&self) -> usize;

    /// Transforms rows of [`channels`](Self::channels) elements, one after the other, in place.
    fn apply(&self, side: Side, rows: &mut [f64]);

    /// The inverse of [`apply`](Self::apply), to rounding.
    fn undo(&self, side: Side, rows: &mut [f64]);

    /// [`apply`](Self::apply) to `f32`; unless written, computed in `f64`.
    fn apply_f32(&self, side: Side, rows: &mut [f32]) {
        in_f64(rows, |rows| self.apply(side, rows));
    }

    /// [`undo`](Self::undo) on `f32`; unless written, computed in `f64`.
    fn undo_f32(&self, side: Side, rows: &mut [f32]) {
        in_f64(rows, |rows| self.undo(side, rows));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is asked for"
)]
fn in_f64(rows: &mut [f32], work: impl FnOnce(&mut [f64])) {
    let mut wide: Vec<f64> = rows.iter().map(|&x| x.into()).collect();
    work(&mut wide);
    for (x, &wide) in rows.iter_mut().zip(&wide) {
        *x = wide as f32;
    }
}

/// The calls of a [`Transform`] on arrays of any layout. Every transform has them, trait objects
/// too; there is nothing to implement.
///
pub trait TransformExt: Transform {
    /// Activations `[…, in]`, transformed: what the layer is run on. Values that are not finite
    /// spread over their row.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the last axis has [`channels`](Transform::channels)
    /// elements.
    fn inputs<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        rows_of(self, "inputs", x, |rows| {
            self.apply_f32(Side::Inputs, rows);
        })
    }

    /// [`inputs`](Self::inputs) where the activations are, without a copy where they lie in
    /// row-major order: for a transform that is applied while the model runs.
    ///
    /// # Errors
    /// As [`inputs`](Self::inputs).
    fn inputs_in_place<D: Dimension>(&self, x: &mut ArrayRef<f32, D>) -> Result<()> {
        has_channels(self.channels(), "inputs", x.shape())?;
        if let Some(rows) = x.as_slice_mut() {
            over_rows(self.channels(), rows, |rows| {
                self.apply_f32(Side::Inputs, rows);
            });
            return Ok(());
        }
        let transformed = self.inputs(x)?;
        x.assign(&transformed);
        Ok(())
    }

    /// Activations as they were before [`inputs`](Self::inputs).
    ///
    /// # Errors
    /// As [`inputs`](Self::inputs).
    fn restore_inputs<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        rows_of(self, "inputs", x, |rows| {
            self.undo_f32(Side::Inputs, rows);
        })
    }

    /// Weights `[…, in]`, transformed: what is quantized.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the last axis has [`channels`](Transform::channels)
    /// elements; [`Error::NonFinite`] if a transformed weight is not finite, as where a weight is
    /// not.
    fn weights<D: Dimension>(&self, weights: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        let transformed = rows_of(self, "weights", weights, |rows| {
            self.apply_f32(Side::Weights, rows);
        })?;
        finite("transformed weights", transformed)
    }

    /// Weights as they were before [`weights`](Self::weights); dequantized ones, for instance.
    ///
    /// # Errors
    /// As [`weights`](Self::weights).
    fn restore_weights<D: Dimension>(&self, weights: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        let restored = rows_of(self, "weights", weights, |rows| {
            self.undo_f32(Side::Weights, rows);
        })?;
        finite("restored weights", restored)
    }

    /// Folds the transform into the layer before, `[channels, in]`, whose outputs are these inputs:
    /// `Tᵀ · W`. Its bias is a row of inputs: [`inputs`](Self::inputs) transforms it.
    ///
    /// Nothing that does not commute with `T` may stand between the two layers: scales pass a
    /// ReLU, a rotation passes nothing but a residual sum whose other branches are rotated too.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless there are [`channels`](Transform::channels) rows;
    /// [`Error::NonFinite`] if a transformed weight is not finite.
    ///
    /// ```
    /// use lowbit::ptq::{Rotation, TransformExt};
    /// use ndarray::array;
    ///
    /// let (first, second) = (array![[1.0_f32, 2.0], [0.5, -1.0]], array![[3.0_f32, 1.0]]);
    /// let rotation = Rotation::hadamard(2)?;
    /// let whole = rotation.weights(&second)?.dot(&rotation.outputs(&first)?);
    /// assert!((whole - second.dot(&first)).iter().all(|e| e.abs() < 1e-6));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    fn outputs(&self, weights: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        // The columns are what a row of inputs is; the check names the shape the caller knows.
        if weights.nrows() != self.channels() {
            return Err(Error::ShapeMismatch {
                what: "weights of the layer before",
                expected: vec![self.channels(), weights.ncols()],
                got: weights.shape().to_vec(),
            });
        }
        let columns = rows_of(self, "outputs", &weights.t(), |rows| {
            self.apply_f32(Side::Inputs, rows);
        })?;
        finite(
            "transformed weights",
            columns.t().as_standard_layout().into_owned(),
        )
    }

    /// The Hessian of the transformed inputs: `Tᵀ · H · T`. Needs two matrices of `8 in²` bytes
    /// while it works.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless it is `[channels, channels]`; [`Error::NonFinite`] if an
    /// entry of the result is not finite.
    ///
    /// ```
    /// use lowbit::{observe::Hessian, ptq::{Rotation, TransformExt}};
    /// use ndarray::array;
    ///
    /// let inputs = array![[1.0_f32, 3.0], [0.0, 2.0]];
    /// let (mut before, mut after) = (Hessian::new(2)?, Hessian::new(2)?);
    /// let rotation = Rotation::hadamard(2)?;
    /// before.observe(&inputs)?;
    /// after.observe(&rotation.inputs(&inputs)?)?;
    /// let difference = rotation.hessian(&before)?.matrix()? - after.matrix()?;
    /// assert!(difference.iter().all(|e| e.abs() < 1e-5));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    fn hessian(&self, hessian: &Hessian) -> Result<Hessian> {
        let channels = self.channels();
        if hessian.columns() != channels {
            return Err(Error::ShapeMismatch {
                what: "Hessian",
                expected: vec![channels, channels],
                got: vec![hessian.columns(), hessian.columns()],
            });
        }
        if hessian.tokens() == 0 {
            return Hessian::new(channels);
        }
        let moments = moments_of(self, hessian.matrix()?);
        Hessian::from_matrix(&moments, hessian.tokens())
    }

    /// The deviation of the transformed inputs, `Tᵀ · (X − X̂)ᵀ X̂ · T`, and their Hessian: what
    /// [`Gptq::asymmetric`](super::Gptq::asymmetric) needs on transformed weights.
    ///
    /// # Errors
    /// As [`hessian`](Self::hessian).
    ///
    /// ```
    /// use lowbit::{observe::InputDeviation, ptq::{Rotation, TransformExt}};
    /// use ndarray::array;
    ///
    /// let (float, quantized) = (array![[1.0_f32, 3.0], [0.0, 2.0]], array![[1.5_f32, 3.0], [0.0, 1.0]]);
    /// let (mut before, mut after) = (InputDeviation::new(2)?, InputDeviation::new(2)?);
    /// let rotation = Rotation::hadamard(2)?;
    /// before.observe(&float, &quantized)?;
    /// after.observe(&rotation.inputs(&float)?, &rotation.inputs(&quantized)?)?;
    /// let difference = rotation.deviation(&before)?.cross()? - after.cross()?;
    /// assert!(difference.iter().all(|e| e.abs() < 1e-5));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    fn deviation(&self, deviation: &InputDeviation) -> Result<InputDeviation> {
        let hessian = self.hessian(deviation.hessian())?;
        InputDeviation::from_parts(hessian, &moments_of(self, deviation.cross()?))
    }

    /// This transform, then another: `T₁ · T₂`.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if they have not the same number of channels.
    fn then(self, next: impl Transform + 'static) -> Result<Chain>
    where
        Self: Sized + 'static,
    {
        Chain::new(self).and(next)
    }
}

impl<T: Transform + ?Sized> TransformExt for T {}

/// `Tᵀ · M · T`.
fn moments_of(transform: &(impl Transform + ?Sized), mut half: Array2<f64>) -> Array2<f64> {
    let channels = transform.channels();
    let apply = |rows: &mut [f64]| transform.apply(Side::Inputs, rows);
    if let Some(rows) = half.as_slice_mut() {
        over_rows(channels, rows, apply);
    }
    let mut whole = half.reversed_axes().as_standard_layout().into_owned();
    if let Some(rows) = whole.as_slice_mut() {
        over_rows(channels, rows, apply);
    }
    whole.reversed_axes().as_standard_layout().into_owned()
}

/// A copy of `x` in row-major order, with `work` done to its rows, several at a time.
fn rows_of<T: Real, D: Dimension>(
    transform: &(impl Transform + ?Sized),
    what: &'static str,
    x: &ArrayRef<T, D>,
    work: impl Fn(&mut [T]) + Send + Sync,
) -> Result<Array<T, D>> {
    let channels = transform.channels();
    has_channels(channels, what, x.shape())?;
    let mut rows = x.as_standard_layout().into_owned();
    if let Some(rows) = rows.as_slice_mut() {
        over_rows(channels, rows, work);
    }
    Ok(rows)
}

fn has_channels(channels: usize, what: &'static str, shape: &[usize]) -> Result<()> {
    if shape.last() == Some(&channels) {
        return Ok(());
    }
    let mut expected = shape.to_vec();
    expected.pop();
    expected.push(channels);
    Err(Error::ShapeMismatch {
        what,
        expected,
        got: shape.to_vec(),
    })
}

/// Calls `work` with several whole rows at a time.
fn over_rows<T: Send>(channels: usize, rows: &mut [T], work: impl Fn(&mut [T]) + Send + Sync) {
    let piece = (PIECE / channels.max(1)).max(1) * channels.max(1);
    over_pieces(rows, piece, |_, rows| work(rows));
}

fn finite<D: Dimension>(what: &'static str, x: Array<f32, D>) -> Result<Array<f32, D>> {
    check_finite(what, &x)?;
    Ok(x)
}
