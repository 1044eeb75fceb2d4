//! Batch norm folded into the weights that are fake-quantized.

mod backward;

pub use backward::{BatchNormGradients, BatchNormTape};

use ndarray::{Array2, ArrayRef2, Axis};

use crate::{
    affine::same_shape,
    error::{Error, Result},
};

/// A batch norm behind a layer, folded into the layer's weights while it is trained, as it will be
/// when it is deployed: Jacob et al. 2018, arXiv:1712.05877, section 3.2, with the corrections of
/// Krishnamoorthi 2018, arXiv:1806.08342, section 3.
///
/// What is quantized is `W' = γ / σ · W` with the *running* deviation, which does not jump from batch
/// to batch. While statistics are not frozen, outputs are corrected to those of the batch,
/// `y = x Ŵ'ᵀ · σ / σ_B + β − γ μ_B / σ_B`: without quantization that is batch norm, exactly. Frozen,
/// `y = x Ŵ'ᵀ + β − γ μ / σ`: what is deployed. `σ = √(variance + ε)`.
///
/// A step, for a layer whose product the caller computes (patches of a convolution are rows too):
///
/// ```
/// use lowbit::{FakeQuantExt, Scheme};
/// use lowbit::qat::{Clipped, DynamicFakeQuant, FoldedBatchNorm};
/// use ndarray::array;
///
/// let (x, w) = (array![[1.0_f32, 2.0], [0.5, -1.0], [3.0, 0.0]], array![[0.3_f32, -0.8]]);
/// let fake = DynamicFakeQuant::new(Scheme::int(8).per_axis(0).build()?, Clipped);
/// let mut norm = FoldedBatchNorm::new(1)?;
///
/// // forward: two products, one to see the statistics of, one that is quantized
/// let folded = norm.fold(&w)?;
/// let quantized = x.dot(&fake.forward(&folded)?.t());
/// let (y, tape) = norm.forward(&quantized, Some(&x.dot(&w.t())))?;
///
/// // backward
/// let to_y = y.mapv(|y| y - 1.0);
/// let back = norm.backward(&tape, &to_y)?;
/// let to_folded = fake.backward(&folded, &back.quantized.t().dot(&x))?.input;
/// let (mut to_w, to_gamma) = norm.fold_backward(&w, &to_folded)?;
/// to_w += &back.float.expect("statistics of the batch").t().dot(&x);
/// let to_gamma = to_gamma[0] + back.gamma[0];
/// # let _ = to_gamma;
///
/// // deployed: weights and bias
/// norm.freeze(true);
/// let (weights, bias) = (fake.convert(&norm.fold(&w)?)?, norm.bias());
/// # let _ = (weights, bias);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct FoldedBatchNorm {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    momentum: f32,
    epsilon: f32,
    frozen: bool,
    /// Batches averaged since re-estimation began; none if statistics move with the momentum.
    estimated: Option<u64>,
}

impl FoldedBatchNorm {
    /// For so many channels: γ = 1, β = 0, mean 0, variance 1; momentum 0.1 and ε = 10⁻⁵ as torch.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no channels, or more than 2²⁴.
    pub fn new(channels: usize) -> Result<Self> {
        if channels == 0 || channels > 1 << 24 {
            return Err(Error::option("channels", "1 to 2^24", channels));
        }
        Ok(Self {
            gamma: vec![1.0; channels],
            beta: vec![0.0; channels],
            mean: vec![0.0; channels],
            variance: vec![1.0; channels],
            momentum: 0.1,
            epsilon: 1e-5,
            frozen: false,
            estimated: None,
        })
    }

    /// With the running statistics of a trained model.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of channels; [`Error::NonFinite`] for a mean that
    /// is not finite, or a variance that is not finite and at least 0.
    pub fn with_statistics(mut self, mean: &[f32], variance: &[f32]) -> Result<Self> {
        self.check("means", mean)?;
        self.check("variances", variance)?;
        if let Some(index) = variance.iter().position(|&variance| variance < 0.0) {
            return Err(Error::NonFinite {
                what: "variances",
                expected: "finite numbers of at least 0",
                position: vec![index],
                value: variance[index].into(),
            });
        }
        (self.mean, self.variance) = (mean.to_vec(), variance.to_vec());
        Ok(self)
    }

    /// With another momentum and ε.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the momentum is more than 0 and at most 1, and ε from 10⁻¹²
    /// to 1.
    pub fn with_momentum(mut self, momentum: f32, epsilon: f32) -> Result<Self> {
        if !(momentum > 0.0 && momentum <= 1.0) {
            let expected = "more than 0, at most 1";
            return Err(Error::option("momentum", expected, momentum));
        }
        if !(1e-12..=1.0).contains(&epsilon) {
            return Err(Error::option("epsilon", "1e-12 to 1", epsilon));
        }
        (self.momentum, self.epsilon) = (momentum, epsilon);
        Ok(self)
    }

    fn check(&self, what: &'static str, values: &[f32]) -> Result<()> {
        same_shape(what, &[self.gamma.len()], &[values.len()])?;
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(Error::NonFinite {
                what,
                expected: "finite numbers",
                position: vec![index],
                value: values[index].into(),
            }),
        }
    }

    /// γ of each channel.
    #[must_use]
    pub fn gamma(&self) -> &[f32] {
        &self.gamma
    }

    /// β of each channel.
    #[must_use]
    pub fn beta(&self) -> &[f32] {
        &self.beta
    }

    /// Sets γ and β, after a step of an optimizer.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of channels; [`Error::NonFinite`] for a number
    /// that is not finite.
    pub fn set(&mut self, gamma: &[f32], beta: &[f32]) -> Result<()> {
        self.check("gamma", gamma)?;
        self.check("beta", beta)?;
        (self.gamma, self.beta) = (gamma.to_vec(), beta.to_vec());
        Ok(())
    }

    /// The running mean of each channel.
    #[must_use]
    pub fn mean(&self) -> &[f32] {
        &self.mean
    }

    /// The running variance of each channel.
    #[must_use]
    pub fn variance(&self) -> &[f32] {
        &self.variance
    }

    /// Freezes the statistics, or lets them move again.
    pub fn freeze(&mut self, frozen: bool) {
        self.frozen = frozen;
    }

    /// Whether the statistics are frozen.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen
    }

    /// Begins to estimate the statistics anew: from the next batch on, mean and variance are the
    /// averages over all batches, until [`end_estimation`](Self::end_estimation). Due after training
    /// at low bits, whose oscillating weights leave moving averages that fit no weights (Nagel et al.
    /// 2022, arXiv:2203.11086); the forward pass alone is needed.
    ///
    /// ```
    /// # use lowbit::qat::FoldedBatchNorm;
    /// # use ndarray::array;
    /// let mut norm = FoldedBatchNorm::new(1)?;
    /// norm.begin_estimation();
    /// for batch in [array![[1.0_f32], [3.0]], array![[5.0], [7.0]]] {
    ///     norm.observe(&batch)?;
    /// }
    /// norm.end_estimation();
    /// assert_eq!((norm.mean()[0], norm.variance()[0]), (4.0, 2.0));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn begin_estimation(&mut self) {
        self.estimated = Some(0);
    }

    /// Statistics move with the momentum again.
    pub fn end_estimation(&mut self) {
        self.estimated = None;
    }

    /// Takes outputs of the layer, `[rows, channels]` before the norm, into the statistics, unless
    /// these are frozen.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of channels; [`Error::NonFinite`] for outputs that
    /// are not finite.
    pub fn observe(&mut self, outputs: &ArrayRef2<f32>) -> Result<()> {
        let batch = self.batch(outputs)?;
        self.take(&batch, outputs.nrows());
        Ok(())
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "statistics in f32, from counts"
    )]
    fn take(&mut self, batch: &[(f64, f64)], rows: usize) {
        if self.frozen || rows == 0 {
            return;
        }
        let share = match &mut self.estimated {
            None => f64::from(self.momentum),
            Some(batches) => {
                *batches += 1;
                1.0 / *batches as f64
            }
        };
        // The variance of the population, estimated without bias as torch does it.
        let unbiased = rows as f64 / (rows.max(2) - 1) as f64;
        for (channel, &(mean, variance)) in batch.iter().enumerate() {
            let toward = |from: &mut f32, to: f64| {
                let from_wide = f64::from(*from);
                *from = (from_wide + share * (to - from_wide)) as f32;
            };
            toward(&mut self.mean[channel], mean);
            toward(&mut self.variance[channel], variance * unbiased);
        }
    }

    /// Mean and variance of each channel of a batch.
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    fn batch(&self, outputs: &ArrayRef2<f32>) -> Result<Vec<(f64, f64)>> {
        same_shape("channels", &[self.gamma.len()], &[outputs.ncols()])?;
        let rows = outputs.nrows().max(1) as f64;
        let channels = outputs.axis_iter(Axis(1)).enumerate();
        let statistics = channels.map(|(channel, values)| {
            let mean = values.iter().map(|&y| f64::from(y)).sum::<f64>() / rows;
            let squares = values.iter().map(|&y| (f64::from(y) - mean).powi(2));
            let variance = squares.sum::<f64>() / rows;
            if mean.is_finite() && variance.is_finite() {
                return Ok((mean, variance));
            }
            Err(Error::NonFinite {
                what: "mean and variance of a channel",
                expected: "finite numbers",
                position: vec![channel],
                value: if mean.is_finite() { variance } else { mean },
            })
        });
        statistics.collect()
    }

    /// `γ / σ` of each channel.
    fn factors(&self) -> impl Iterator<Item = f32> + '_ {
        let channels = self.gamma.iter().zip(&self.variance);
        channels.map(|(gamma, variance)| gamma / (variance + self.epsilon).sqrt())
    }

    /// The weights with the norm folded in, `γ / σ · W`: what is fake-quantized and deployed.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for weights `[out, in]` of another number of outputs.
    pub fn fold(&self, weights: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        same_shape("outputs", &[self.gamma.len()], &[weights.nrows()])?;
        let mut folded = weights.to_owned();
        for (mut row, factor) in folded.rows_mut().into_iter().zip(self.factors()) {
            row *= factor;
        }
        Ok(folded)
    }

    /// The gradients of the weights and of γ, from that of the folded weights.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for shapes that do not fit.
    pub fn fold_backward(
        &self,
        weights: &ArrayRef2<f32>,
        gradient: &ArrayRef2<f32>,
    ) -> Result<(Array2<f32>, Vec<f32>)> {
        same_shape("gradient", weights.shape(), gradient.shape())?;
        let to_weights = self.fold(gradient)?;
        let rows = weights.rows().into_iter().zip(gradient.rows());
        let to_gamma = rows.zip(&self.variance).map(|((w, g), variance)| {
            let products = w.iter().zip(g).map(|(&w, &g)| f64::from(w) * f64::from(g));
            narrow(products.sum::<f64>() / f64::from(variance + self.epsilon).sqrt())
        });
        Ok((to_weights, to_gamma.collect()))
    }

    /// The bias that goes with the folded weights, `β − γ μ / σ`.
    #[must_use]
    pub fn bias(&self) -> Vec<f32> {
        let channels = self.beta.iter().zip(&self.mean).zip(self.factors());
        channels
            .map(|((beta, mean), factor)| beta - mean * factor)
            .collect()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}

/// A stored norm before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "FoldedBatchNorm")]
struct Unchecked {
    gamma: Vec<f32>,
    beta: Vec<f32>,
    mean: Vec<f32>,
    variance: Vec<f32>,
    momentum: f32,
    epsilon: f32,
    frozen: bool,
    estimated: Option<u64>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for FoldedBatchNorm {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let mut norm = Self::new(stored.gamma.len())?
            .with_statistics(&stored.mean, &stored.variance)?
            .with_momentum(stored.momentum, stored.epsilon)?;
        norm.set(&stored.gamma, &stored.beta)?;
        (norm.frozen, norm.estimated) = (stored.frozen, stored.estimated);
        Ok(norm)
    }
}
