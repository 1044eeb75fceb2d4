//! Searches among scales of the input channels.

use ndarray::{Array2, ArrayRef2, ArrayView2, Ix2};

use super::{Quantizer, QuantizerExt, check_finite, transform::ChannelScales};
use crate::{
    affine::same_shape,
    error::{Error, Result},
};

/// The layers that read the same inputs.
pub(super) fn check_weights(weights: &[ArrayView2<'_, f32>], channels: usize) -> Result<()> {
    if weights.is_empty() {
        return Err(Error::Empty {
            what: "layers to scale".into(),
        });
    }
    for weights in weights {
        same_shape("weights", &[weights.nrows(), channels], weights.shape())?;
        check_finite("weights", weights)?;
    }
    Ok(())
}

/// The scales of the least error: none if that is the error without scales, or if no candidate has
/// one that is a number.
///
/// A candidate that cannot be used, as where a scaled weight overflows, is passed over; where the
/// layer cannot be quantized without scales, that is an error.
pub(super) fn least(
    candidates: impl IntoIterator<Item = ChannelScales>,
    error: impl Fn(Option<&ChannelScales>) -> Result<f64>,
) -> Result<Option<ChannelScales>> {
    let unscaled = error(None)?;
    if !unscaled.is_finite() {
        return Err(Error::NonFinite {
            what: "error of the layer's outputs",
            expected: "a finite number, which needs smaller weights or inputs",
            position: vec![],
            value: unscaled,
        });
    }
    let mut best = (unscaled, None);
    for candidate in candidates {
        if let Ok(error) = error(Some(&candidate))
            && error < best.0
        {
            best = (error, Some(candidate));
        }
    }
    Ok(best.1)
}

/// The weights `[out, in]` that the method makes of these, in floats.
pub(super) fn image_of(quantizer: &dyn Quantizer, weights: &ArrayRef2<f32>) -> Result<Array2<f32>> {
    let quantized = quantizer.quantize(weights)?;
    same_shape("quantized weights", weights.shape(), quantized.shape())?;
    let image = quantized.dequantize::<f32>();
    image.into_dimensionality::<Ix2>().map_err(Error::other)
}
