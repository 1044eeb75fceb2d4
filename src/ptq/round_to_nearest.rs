//! Round-to-nearest: each weight goes to the nearest code, whatever its neighbours do.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::Quantizer;
use crate::{
    affine::Affine,
    calibrate::{Calibrator, FullRange, ranges_of},
    error::Result,
    scheme::Scheme,
    tensor::QTensor,
};

/// Quantizes each weight on its own, over the range that a calibrator chooses for its group.
///
/// The weight-only method to start with: at 8 bits it costs nothing, at 4 it serves in small
/// groups, below it falls away. The default range is the full one; a clipping calibrator such as
/// [`MeanSquaredError`](crate::calibrate::MeanSquaredError) pays at 4 bits and below.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, calibrate::MeanSquaredError};
/// use ndarray::Array2;
///
/// let weights = Array2::from_shape_fn((8, 100), |(o, i)| ((o * 31 + i * 17) % 23) as f32 - 11.0);
/// let scheme = Scheme::int(4).per_group(32).build()?; // the last group of a row has 4 elements
/// let quantized = RoundToNearest::new(scheme)
///     .with_calibrator(MeanSquaredError::default())
///     .quantize(&weights)?;
/// assert_eq!(quantized.memory_bytes(), 8 * 100 / 2 + 8 * 4 * 4);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RoundToNearest {
    scheme: Scheme,
    calibrator: Arc<dyn Calibrator>,
    importance: Option<ArrayD<f32>>,
}

impl RoundToNearest {
    /// Rounding over the full range of each group.
    #[must_use]
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            calibrator: Arc::new(FullRange),
            importance: None,
        }
    }

    /// Rounding over the range that a calibrator chooses, from the weights themselves.
    #[must_use]
    pub fn with_calibrator(mut self, calibrator: impl Calibrator + 'static) -> Self {
        self.calibrator = Arc::new(calibrator);
        self
    }

    /// How much an error in each weight counts to the calibrator: an array in the shape of the
    /// weights, or of one value for each column (an importance matrix row, `Σx²` of the inputs).
    #[must_use]
    pub fn with_importance<D: Dimension>(mut self, importance: &ArrayRef<f32, D>) -> Self {
        self.importance = Some(importance.to_owned().into_dyn());
        self
    }
}

impl Quantizer for RoundToNearest {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let importance = self.importance.as_ref().map(|importance| importance.view());
        let ranges = ranges_of(&*self.calibrator, &weights, &self.scheme, importance)?;
        QTensor::quantize(&weights, &Affine::from_ranges(&self.scheme, &ranges)?)
    }
}
