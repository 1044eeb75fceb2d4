//! Bias correction: the mean error of a quantized layer's outputs, taken off its bias.

use ndarray::{Array1, ArrayRef, ArrayRef1, ArrayRef2, Dimension};

use super::check_finite;
use crate::{
    affine::same_shape,
    error::{Error, Result},
    tensor::QTensor,
};

/// The mean difference `E[y − ŷ]` of each output of a layer, in float and quantized, over all
/// batches shown to it: what its bias lacks.
///
/// Nagel et al. 2019 (arXiv:1906.04721), section 4.2, the empirical form: layers are corrected in
/// order, each on what the corrected ones before it produce. Sums are in f64; shards
/// [merge](Self::merge).
///
/// ```
/// use lowbit::ptq::BiasCorrection;
/// use ndarray::array;
///
/// let mut correction = BiasCorrection::new(2);
/// let (float, quantized) = (array![[1.0_f32, 2.0], [3.0, 0.0]], array![[0.5_f32, 2.5], [2.5, 0.0]]);
/// correction.observe(&float, &quantized)?;
/// assert_eq!(correction.correction()?, array![0.5, -0.25]); // to be added to the bias
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct BiasCorrection {
    sums: Array1<f64>,
    count: u64,
}

impl BiasCorrection {
    /// Nothing seen yet, for a layer of so many outputs.
    #[must_use]
    pub fn new(outputs: usize) -> Self {
        Self {
            sums: Array1::zeros(outputs),
            count: 0,
        }
    }

    /// Takes a batch of outputs `[…, out]` into account; one that is refused changes nothing.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless both have the layer's outputs along the last axis;
    /// [`Error::NonFinite`] for a NaN or an infinity.
    pub fn observe<D: Dimension>(
        &mut self,
        float: &ArrayRef<f32, D>,
        quantized: &ArrayRef<f32, D>,
    ) -> Result<()> {
        let outputs = self.sums.len();
        let mut expected = float.shape().to_vec();
        expected.pop();
        expected.push(outputs);
        same_shape("outputs in float", &expected, float.shape())?;
        same_shape("quantized outputs", &expected, quantized.shape())?;
        check_finite("outputs in float", float)?;
        check_finite("quantized outputs", quantized)?;
        if outputs == 0 {
            return Ok(());
        }
        let pairs = float.iter().zip(quantized).enumerate();
        for (index, (&float, &quantized)) in pairs {
            self.sums[index % outputs] += f64::from(float) - f64::from(quantized);
        }
        self.count += (float.len() / outputs) as u64;
        Ok(())
    }

    /// Adds what another one has seen.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if it has another number of outputs.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_shape("outputs", self.sums.shape(), other.sums.shape())?;
        self.sums += &other.sums;
        self.count += other.count;
        Ok(())
    }

    /// What to add to the bias, `[out]`.
    ///
    /// # Errors
    /// [`Error::Empty`] before the first row.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the nearest f32 is asked for; counts below 2^53"
    )]
    pub fn correction(&self) -> Result<Array1<f32>> {
        if self.count == 0 {
            return Err(Error::Empty {
                what: "bias correction".into(),
            });
        }
        Ok(self.sums.mapv(|sum| (sum / self.count as f64) as f32))
    }

    /// What to add to the bias, `[out]`, where the weights alone are quantized and the mean of each
    /// input is known: `(W − Ŵ) · E[x]`, in f64.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless weights, quantized weights and means fit;
    /// [`Error::NonFinite`] if the result is not finite.
    ///
    /// ```
    /// use lowbit::{QuantizerExt, RoundToNearest, Scheme, ptq::BiasCorrection};
    /// use ndarray::array;
    ///
    /// let weights = array![[0.3_f32, 1.0]];
    /// let quantized = RoundToNearest::new(Scheme::int(2).build()?).quantize(&weights)?; // 0 and 1
    /// let correction = BiasCorrection::of_weights(&weights, &quantized, &array![2.0, 5.0])?;
    /// assert_eq!(correction, array![0.6]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is asked for"
    )]
    pub fn of_weights(
        weights: &ArrayRef2<f32>,
        quantized: &QTensor,
        input_means: &ArrayRef1<f32>,
    ) -> Result<Array1<f32>> {
        same_shape("quantized weights", weights.shape(), quantized.shape())?;
        same_shape(
            "means of the inputs",
            &[weights.ncols()],
            input_means.shape(),
        )?;
        let image = quantized.dequantize::<f32>();
        let mut correction = Array1::<f32>::zeros(weights.nrows());
        let rows = weights.rows().into_iter().zip(image.rows());
        for (out, (row, image)) in correction.iter_mut().zip(rows) {
            let products = row.iter().zip(image).zip(input_means);
            let terms =
                products.map(|((&w, &q), &mean)| (f64::from(w) - f64::from(q)) * f64::from(mean));
            *out = terms.sum::<f64>() as f32;
        }
        check_finite("correction of the bias", &correction)?;
        Ok(correction)
    }
}
