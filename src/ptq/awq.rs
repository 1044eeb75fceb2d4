//! AWQ: weights that meet large activations scaled up before rounding, so that they round finer.

use std::sync::Arc;

use ndarray::{Array1, ArrayView2};

use super::{
    LayerInputs, Quantizer, RoundToNearest,
    search::{check_weights, image_of, least},
    transform::{ChannelScales, TransformExt},
};
use crate::{
    affine::Ranges,
    error::{Error, Result},
    groups::Groups,
    scheme::Scheme,
};

/// What the scales of [`Awq`] are made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AwqBalance {
    /// The activations alone: `x^r`.
    Inputs,
    /// Activations over weights ("duo scaling"): `x^r / (w^(1−r) + 1e-4)`.
    InputsAndWeights,
    /// Both are tried, which takes twice as long.
    #[default]
    Both,
}

/// Searches scales of the input channels, from their magnitudes, that make the error of rounding
/// the weights smallest: Lin et al. 2023, "AWQ" (arXiv:2306.00978), equations 4 and 5, and its
/// published code.
///
/// With `x` the magnitude of each channel, `w` the mean over rows of `|W|` as a fraction of the
/// largest of its group, and `r` from 0 to 1 in steps of 1/20, candidates are `s = x^r` and `x^r /
/// w^(1−r)`, divided by `√(max s · min s)`, and no scaling at all. (The published grid ends at
/// 0.95.) Each is judged by the outputs' error, [`LayerInputs::error`], of `Q(W s) / s`; one
/// without a finite error is passed over.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, ptq::{Awq, LayerInputs, TransformExt}};
/// use ndarray::Array2;
///
/// let w = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin());
/// let x = Array2::from_shape_fn((99, 64), |(t, i)| {
///     ((t * 64 + i) as f32 * 1.3).sin() * if i % 16 == 3 { 30.0 } else { 1.0 }
/// });
/// let inputs = LayerInputs::samples(&x)?;
/// let nearest = RoundToNearest::new(Scheme::int(3).per_group(32).build()?);
///
/// let scales = Awq::new(Scheme::int(3).per_group(32).build()?).scales(&inputs, &[w.view()])?;
/// let image = nearest.quantize(&scales.weights(&w)?)?.dequantize::<f32>();
/// let scaled = scales.restore_weights(&image)? - &w;
/// let plain = nearest.quantize(&w)?.dequantize::<f32>() - &w;
/// assert!(inputs.error(&scaled)? < 0.5 * inputs.error(&plain)?);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Awq {
    scheme: Scheme,
    quantizer: Arc<dyn Quantizer>,
    balance: AwqBalance,
    steps: u16,
}

impl Awq {
    /// For weights that are rounded to nearest over the full range under this scheme.
    #[must_use]
    pub fn new(scheme: Scheme) -> Self {
        Self {
            scheme,
            quantizer: Arc::new(RoundToNearest::new(scheme)),
            balance: AwqBalance::default(),
            steps: 20,
        }
    }

    /// For weights that another method of the same scheme quantizes: clipped ones, for instance.
    #[must_use]
    pub fn with_quantizer(mut self, quantizer: impl Quantizer + 'static) -> Self {
        self.quantizer = Arc::new(quantizer);
        self
    }

    /// What the scales are made from.
    #[must_use]
    pub fn with_balance(mut self, balance: AwqBalance) -> Self {
        self.balance = balance;
        self
    }

    /// Another number of steps from `r = 0` to 1.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for none.
    pub fn with_steps(mut self, steps: u16) -> Result<Self> {
        if steps == 0 {
            return Err(Error::option("steps of the exponent", "at least 1", steps));
        }
        self.steps = steps;
        Ok(self)
    }

    /// The scales for layers `[out, in]` that read the same inputs; all 1 if no candidate is
    /// better.
    ///
    /// # Errors
    /// [`Error::Empty`] for no layer; [`Error::ShapeMismatch`] unless all have a column for each
    /// channel; [`Error::NonFinite`] for a weight that is not finite; those of the quantizer where
    /// nothing is scaled.
    pub fn scales(
        &self,
        inputs: &LayerInputs,
        weights: &[ArrayView2<'_, f32>],
    ) -> Result<ChannelScales> {
        let channels = inputs.channels();
        check_weights(weights, channels)?;
        let x = inputs.magnitudes();
        let w = self.weight_magnitudes(weights, channels)?;
        let (alone, over_weights) = match self.balance {
            AwqBalance::Inputs => (true, false),
            AwqBalance::InputsAndWeights => (false, true),
            AwqBalance::Both => (true, true),
        };
        let kinds = [alone.then_some(false), over_weights.then_some(true)];
        let candidates = kinds.into_iter().flatten().flat_map(|divides| {
            let (x, w) = (&x, &w);
            (0..=self.steps).filter_map(move |step| {
                let ratio = f64::from(step) / f64::from(self.steps);
                candidate(x, divides.then_some(w), ratio)
            })
        });
        let found = least(candidates, |scales| self.error(scales, inputs, weights))?;
        found.map_or_else(|| ChannelScales::new(Array1::ones(channels)), Ok)
    }

    /// The mean over all rows of `|W|` as a fraction of the largest of its group.
    #[expect(clippy::cast_precision_loss, reason = "rows below 2^53")]
    fn weight_magnitudes(
        &self,
        weights: &[ArrayView2<'_, f32>],
        channels: usize,
    ) -> Result<Array1<f64>> {
        let mut sums = Array1::<f64>::zeros(channels);
        let mut rows = 0;
        for weights in weights {
            let groups = Groups::new(weights.shape(), self.scheme.granularity())?;
            let ranges = Ranges::of(weights, self.scheme.granularity())?;
            for (element, &weight) in weights.iter().enumerate() {
                let largest = ranges.as_slice()[groups.parameter_of(element)].magnitude();
                sums[element % channels] += f64::from(weight.abs()) / (f64::from(largest) + 1e-6);
            }
            rows += weights.nrows();
        }
        Ok(sums / rows.max(1) as f64)
    }

    fn error(
        &self,
        scales: Option<&ChannelScales>,
        inputs: &LayerInputs,
        weights: &[ArrayView2<'_, f32>],
    ) -> Result<f64> {
        let mut total = 0.0;
        for weights in weights {
            let image = match scales {
                Some(scales) => {
                    let image = image_of(&*self.quantizer, &scales.weights(weights)?)?;
                    scales.restore_weights(&image)?
                }
                None => image_of(&*self.quantizer, weights)?,
            };
            total += inputs.error(&(image - weights))?;
        }
        Ok(total)
    }
}

/// The scales of one exponent; none if an f32 cannot hold them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is asked for, and checked"
)]
fn candidate(x: &Array1<f32>, w: Option<&Array1<f64>>, ratio: f64) -> Option<ChannelScales> {
    let scale = |channel: usize| {
        let over = w.map_or(1.0, |w| w[channel].powf(1.0 - ratio) + 1e-4);
        (f64::from(x[channel]).powf(ratio) / over).max(1e-4)
    };
    let scales: Vec<f64> = (0..x.len()).map(scale).collect();
    let least = scales.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = scales.iter().copied().fold(0.0, f64::max);
    let middle = (least * largest).sqrt();
    let scales = scales.into_iter().map(|scale| (scale / middle) as f32);
    ChannelScales::new(scales.collect()).ok()
}
