//! A loss that draws weights to the middle of their codes.

use ndarray::{Array, ArrayRef, Dimension};

use crate::{
    affine::{Affine, fake_quantize},
    error::{Error, Result},
};

/// The dampening loss and its gradient: Nagel et al. 2022, arXiv:2203.11086, section 4.
///
/// `L = strength · Σ (ŵ − clip(w, least, greatest))²`, with `ŵ` the fake-quantized weights, taken as
/// constants, and the ends of the range of each group. Weights far from a border of two codes do not
/// oscillate; those out of range have no gradient. The paper raises the strength along a cosine,
/// which [`Stage::dampening`](super::Stage::dampening) gives.
///
/// Returns the loss, and its gradient in the shape of the weights.
///
/// # Errors
/// [`Error::ShapeMismatch`] if the weights have other parameters; [`Error::InvalidOption`] for a
/// strength that is negative or not finite.
///
/// ```
/// use lowbit::{Affine, Scheme, qat::dampening_loss};
/// use ndarray::array;
/// let affine = Affine::per_tensor(Scheme::int(2).build()?, 1.0, 0.0)?; // −2 to 1
/// let (loss, gradient) = dampening_loss(&array![0.25_f32, 5.0], &affine, 0.5)?;
/// assert_eq!(loss, 0.5 * 0.25 * 0.25);
/// assert_eq!(gradient, array![0.25, 0.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[expect(clippy::cast_possible_truncation, reason = "a factor of gradients")]
pub fn dampening_loss<D: Dimension>(
    weights: &ArrayRef<f32, D>,
    affine: &Affine,
    strength: f64,
) -> Result<(f64, Array<f32, D>)> {
    if !(strength.is_finite() && strength >= 0.0) {
        let expected = "a finite number of at least 0";
        return Err(Error::option(
            "strength of the dampening",
            expected,
            strength,
        ));
    }
    let groups = affine.groups(weights.shape())?;
    let mut gradient = fake_quantize(weights, affine)?;
    let ends: Vec<(f32, f32)> = (0..groups.parameters())
        .map(|group| affine.range(group).map(|range| (range.min(), range.max())))
        .collect::<Result<_>>()?;
    let slope = (2.0 * strength) as f32;
    let mut loss = 0.0;
    let elements = gradient.iter_mut().zip(weights);
    for ((to, &weight), parameter) in elements.zip(groups.parameters_of_elements()) {
        let (least, greatest) = ends[parameter];
        let clipped = if weight < least {
            least
        } else if weight > greatest {
            greatest
        } else {
            weight
        };
        let error = clipped - *to;
        loss += f64::from(error) * f64::from(error);
        *to = if clipped == weight {
            slope * error
        } else {
            0.0
        };
    }
    Ok((strength * loss, gradient))
}
