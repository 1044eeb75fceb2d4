//! A quantized layer: weights, and what is done to the inputs before they meet them.

use ndarray::{Array, Array2, ArrayRef, Dimension, Ix2};

use crate::{
    affine::same_shape,
    error::{Error, Result},
    kernel::{Activations, PackedLinear},
    ptq::{ChannelScales, Rotation, Transform, TransformExt},
    tensor::QTensor,
};

/// What a layer does to its inputs before they meet the quantized weights.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum InputTransform {
    /// Divides each channel by a scale.
    Scales(ChannelScales),
    /// Rotates each row.
    Rotation(Rotation),
}

impl InputTransform {
    /// The transform, for [`TransformExt`].
    #[must_use]
    pub fn as_transform(&self) -> &dyn Transform {
        match self {
            Self::Scales(scales) => scales,
            Self::Rotation(rotation) => rotation,
        }
    }

    /// Bytes that it takes in a file.
    fn memory_bytes(&self) -> usize {
        match self {
            Self::Scales(scales) => 4 * scales.channels(),
            Self::Rotation(_) => size_of::<u64>(), // its seed
        }
    }
}

/// A linear layer after quantization: what is stored of it.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, flow::{InputTransform, QuantizedLayer}};
/// use lowbit::ptq::{Rotation, TransformExt};
/// use ndarray::array;
///
/// let (weights, x) = (array![[1.0_f32, -2.0], [0.5, 1.5]], array![[1.0_f32, 3.0]]);
/// let rotation = Rotation::hadamard(2)?;
/// let quantized = RoundToNearest::new(Scheme::int(8).per_axis(0).build()?)
///     .quantize(&rotation.weights(&weights)?)?;
/// let layer = QuantizedLayer::new(quantized)?.with_transform(InputTransform::Rotation(rotation))?;
/// let y = layer.pack(None)?.forward(&x)?; // rotates x, then multiplies
/// assert!((&y - &x.dot(&weights.t())).iter().all(|error| error.abs() < 0.1));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct QuantizedLayer {
    weights: QTensor,
    transform: Option<InputTransform>,
    activations: Option<Activations>,
}

impl QuantizedLayer {
    /// Weights `[out, in]` alone.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tensor that has not two axes.
    pub fn new(weights: QTensor) -> Result<Self> {
        if weights.shape().len() != 2 {
            return Err(Error::Unsupported {
                operation: "a quantized linear layer",
                expected: "weights of two axes",
                got: format!("the shape {:?}", weights.shape()),
            });
        }
        Ok(Self {
            weights,
            transform: None,
            activations: None,
        })
    }

    /// The layer with weights that were transformed before they were quantized.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the transform has as many channels as the layer has inputs.
    pub fn with_transform(mut self, transform: InputTransform) -> Result<Self> {
        let channels = transform.as_transform().channels();
        same_shape("transform", &self.weights.shape()[1..], &[channels])?;
        self.transform = Some(transform);
        Ok(self)
    }

    /// The layer with inputs that are quantized, after the transform if there is one.
    #[must_use]
    pub fn with_activations(mut self, activations: Activations) -> Self {
        self.activations = Some(activations);
        self
    }

    /// The layer with other weights of the same shape, transformed as these are.
    pub(super) fn with_weights(&self, weights: QTensor) -> Result<Self> {
        same_shape("quantized weights", self.weights.shape(), weights.shape())?;
        Ok(Self {
            weights,
            transform: self.transform.clone(),
            activations: self.activations.clone(),
        })
    }

    /// The weights as they are stored: transformed, if there is a transform.
    #[must_use]
    pub fn weights(&self) -> &QTensor {
        &self.weights
    }

    /// What is done to the inputs.
    #[must_use]
    pub fn transform(&self) -> Option<&InputTransform> {
        self.transform.as_ref()
    }

    /// How the inputs are quantized.
    #[must_use]
    pub fn activations(&self) -> Option<&Activations> {
        self.activations.as_ref()
    }

    /// The weights that the layer acts as if it had, `[out, in]`: dequantized, and with the
    /// transform taken off.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if taking it off gives a number that is not finite.
    pub fn image(&self) -> Result<Array2<f32>> {
        let image = self.weights.dequantize::<f32>();
        let image: Array2<f32> = image.into_dimensionality::<Ix2>().map_err(Error::other)?;
        match &self.transform {
            None => Ok(image),
            Some(transform) => transform.as_transform().restore_weights(&image),
        }
    }

    /// Bytes that weights, scales, zero points and the transform take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let transform = self.transform.as_ref();
        self.weights.memory_bytes() + transform.map_or(0, InputTransform::memory_bytes)
    }

    /// The layer ready to run.
    ///
    /// # Errors
    /// Those of [`PackedLinear::pack`] and [`PackedLinear::with_activations`].
    pub fn pack(&self, bias: Option<&[f32]>) -> Result<PackedLayer> {
        let mut linear = PackedLinear::pack(&self.weights, bias)?;
        if let Some(activations) = &self.activations {
            linear = linear.with_activations(activations.clone())?;
        }
        Ok(PackedLayer {
            linear,
            transform: self.transform.clone(),
        })
    }
}

/// A [`QuantizedLayer`] ready to run: [`QuantizedLayer::pack`].
#[derive(Debug, Clone)]
pub struct PackedLayer {
    linear: PackedLinear,
    transform: Option<InputTransform>,
}

impl PackedLayer {
    /// Inputs `[…, in]` to outputs `[…, out]`.
    ///
    /// # Errors
    /// Those of [`PackedLinear::forward`].
    pub fn forward<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        match &self.transform {
            None => self.linear.forward(x),
            Some(transform) => self.linear.forward(&transform.as_transform().inputs(x)?),
        }
    }

    /// The packed weights.
    #[must_use]
    pub fn linear(&self) -> &PackedLinear {
        &self.linear
    }
}

/// What a stored layer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "QuantizedLayer")]
struct Unchecked {
    weights: QTensor,
    transform: Option<InputTransform>,
    activations: Option<Activations>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for QuantizedLayer {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let mut layer = Self::new(stored.weights)?;
        if let Some(transform) = stored.transform {
            layer = layer.with_transform(transform)?;
        }
        layer.activations = stored.activations;
        Ok(layer)
    }
}
