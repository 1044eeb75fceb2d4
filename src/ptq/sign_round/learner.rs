//! The rounding of one layer, learned from gradients that somebody else has.

use ndarray::{Array2, ArrayRef2, ArrayView2};

use super::{integers_only, learning::Learning};
use crate::{
    affine::{Affine, same_shape},
    error::Result,
    ptq::{
        check_finite,
        rounding::{Rows, assemble, codes_of},
    },
    tensor::QTensor,
};

/// The rounding offsets and range factors of one layer while they are learned from gradients of any
/// loss: what [`SignRound`](super::SignRound) learns, for a training loop of one's own, over the
/// outputs of a whole block for instance ([`flow::BlockRounding`](crate::flow::BlockRounding)).
///
/// It starts from the codes and parameters of a quantized layer, whatever found them: a weight that
/// does not round to its code begins at the edge of the code's cell.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, ptq::RoundingLearner};
/// use ndarray::array;
///
/// // Two inputs that are always equal: only the sum of their weights matters, and it is 1.2.
/// let weights = array![[0.6_f32, 0.6]];
/// let start = RoundToNearest::new(Scheme::int(2).narrow_range().symmetric().build()?);
/// let start = start.quantize(&(&weights / 0.6))?; // steps of 1: both weights would be 1
/// let mut learner = RoundingLearner::new(weights.view(), &start)?;
/// for step in 0..20 {
///     let error = learner.image().sum() - 1.2;
///     learner.step(&array![[error, 0.9 * error]], 0.05)?;
/// }
/// assert!((learner.quantized()?.dequantize::<f32>().sum() - 1.2).abs() < 0.3);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct RoundingLearner<'a> {
    rows: Rows<'a>,
    learning: Learning,
    affine: Affine,
    /// Which parameters of the layer the rows use.
    used: Vec<usize>,
}

impl<'a> RoundingLearner<'a> {
    /// For weights `[out, in]`, from how they are quantized so far.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) unless the two have the same shape;
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or an infinity in the weights;
    /// [`Error::Unsupported`](crate::Error::Unsupported) for codes that are not integers.
    pub fn new(weights: ArrayView2<'a, f32>, start: &QTensor) -> Result<Self> {
        integers_only("learned rounding", start.scheme())?;
        same_shape("quantized weights", weights.shape(), start.shape())?;
        check_finite("weights", &weights)?;
        let affine = start.affine();
        let groups = affine.groups(weights.shape())?;
        let codes = codes_of(start)?;
        let (rows, used) = Rows::new(weights, &affine, &groups, &codes, 0..weights.nrows())?;
        let learning = Learning::new(&rows);
        Ok(Self {
            rows,
            learning,
            affine,
            used,
        })
    }

    /// The dequantized weights at present, `[out, in]`.
    #[must_use]
    pub fn image(&self) -> Array2<f32> {
        self.rows.image()
    }

    /// Moves every offset by `rate`, in steps of its grid, and every factor of a range by `rate`,
    /// against the sign of its slope, given the gradient of the loss by the
    /// [`image`](Self::image); rounding counts as the identity.
    ///
    /// What has a slope of 0, or one that is not a number, stays.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for a gradient of another shape.
    pub fn step(&mut self, gradient: &ArrayRef2<f32>, rate: f32) -> Result<()> {
        same_shape("gradient", self.rows.weights.shape(), gradient.shape())?;
        self.learning.step(&self.rows, gradient, rate);
        self.learning.round(&mut self.rows);
        Ok(())
    }

    /// The quantized layer at present.
    ///
    /// # Errors
    /// Those of [`QTensor::from_codes`].
    pub fn quantized(&self) -> Result<QTensor> {
        let rows = self.rows.clone();
        let piece = Ok((rows.codes, self.used.clone(), rows.parameters));
        assemble(&self.affine, self.rows.weights.shape(), vec![piece])
    }
}
