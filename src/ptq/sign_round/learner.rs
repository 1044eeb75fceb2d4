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
/// outputs of a whole block for instance ([`flow::LearnedRounding`](crate::flow::LearnedRounding)).
///
/// It starts from the codes and parameters of a quantized layer, whatever found them: a weight that
/// does not round to its code begins at the edge of the code's cell.
///
/// ```
/// use lowbit::{Affine, QTensor, Scheme, ptq::RoundingLearner};
/// use ndarray::array;
///
/// // Two inputs that are always equal: only the sum of their weights matters, and it is 1.32.
/// let weights = array![[0.52_f32, 0.8]];
/// let scheme = Scheme::int(2).narrow_range().build()?;
/// let start = QTensor::quantize(&weights, &Affine::per_tensor(scheme, 1.0, 0.0)?)?;
/// let mut learner = RoundingLearner::new(weights.view(), &start)?;
/// let mut least = f32::INFINITY;
/// for _ in 0..20 {
///     let error = learner.image().sum() - 1.32;
///     least = least.min(error.abs()); // keep the best yourself: steps of one size go on past it
///     learner.step(&array![[error, error]], 0.05)?;
/// }
/// assert!(least < 0.4, "{least}"); // both are nearest to 1, which is 0.68 off
/// assert_eq!(learner.quantized()?.shape(), [1, 2]);
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
