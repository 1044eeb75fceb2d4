//! SmoothQuant: outliers of activations moved into the weights.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2, ArrayView2, Axis};

use super::{
    LayerInputs, Quantizer, check_finite,
    search::{check_weights, image_of, least},
    transform::{ChannelScales, TransformExt},
};
use crate::{
    affine::{Affine, fake_quantize},
    error::{Error, Result},
    scheme::Scheme,
};

/// Scales `s_j = max|X_j|^α / max|W_j|^(1−α)`: `α = 1` gives all channels of the activations the
/// same range, `α = 0` all columns of the weights.
///
/// Xiao et al. 2022, "SmoothQuant" (arXiv:2211.10438), equation 4. Scales lie between 1e-5 and 1e5;
/// a channel whose inputs or weights are all 0 keeps its scale of 1.
///
/// ```
/// use lowbit::ptq::{SmoothQuant, TransformExt};
/// use ndarray::array;
///
/// let weights = array![[1.0_f32, 0.25], [-0.5, 0.1]];
/// let input_max = array![1.0_f32, 64.0]; // the second channel is an outlier
/// let scales = SmoothQuant::new(0.5)?.scales(&input_max, &[weights.view()])?;
/// assert_eq!(scales.scales(), array![1.0, 16.0]);
/// assert_eq!(scales.inputs(&input_max)?, array![1.0, 4.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SmoothQuant {
    alpha: f32,
}

impl SmoothQuant {
    /// A fixed `α`: 0.5 for most models, 0.75 to 0.9 where activations have large outliers.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is from 0 to 1.
    pub fn new(alpha: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::option("alpha", "0 to 1", alpha));
        }
        Ok(Self { alpha })
    }

    /// The scales for layers `[out, in]` that read the same inputs, whose largest magnitudes were
    /// observed channel by channel, `[in]`.
    ///
    /// # Errors
    /// [`Error::Empty`] for no layer; [`Error::ShapeMismatch`] unless all have a column for each
    /// channel; [`Error::NonFinite`] for a value that is not finite.
    pub fn scales(
        &self,
        input_max: &ArrayRef1<f32>,
        weights: &[ArrayView2<'_, f32>],
    ) -> Result<ChannelScales> {
        check_weights(weights, input_max.len())?;
        check_finite("largest inputs", input_max)?;
        scales_of(self.alpha, input_max, &column_max(weights, input_max.len()))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "limited to what an f32 holds"
)]
fn scales_of(
    alpha: f32,
    input_max: &ArrayRef1<f32>,
    weight_max: &Array1<f32>,
) -> Result<ChannelScales> {
    let alpha = f64::from(alpha);
    let scale = |(&x, &w): (&f32, &f32)| {
        let (x, w) = (f64::from(x.abs()), f64::from(w));
        if x > 0.0 && w > 0.0 {
            (x.powf(alpha) / w.powf(1.0 - alpha)).clamp(1e-5, 1e5) as f32
        } else {
            1.0
        }
    };
    ChannelScales::new(input_max.iter().zip(weight_max).map(scale).collect())
}

/// The largest magnitude of each column over several layers.
fn column_max(weights: &[ArrayView2<'_, f32>], channels: usize) -> Array1<f32> {
    let mut largest = Array1::<f32>::zeros(channels);
    for row in weights.iter().flat_map(|weights| weights.rows()) {
        largest.zip_mut_with(&row, |largest, w| *largest = largest.max(w.abs()));
    }
    largest
}

/// SmoothQuant with the `α` under which quantized inputs and weights give outputs nearest to those
/// in float, by `Σ‖Q(X/s) · Q(W s)ᵀ − X Wᵀ‖²`; no scaling at all is a candidate too.
///
/// The search of Intel Neural Compressor's layer-wise auto-tuning: `α` from 0 to 1 in steps of 0.1.
///
/// ```
/// use lowbit::{RoundToNearest, Scheme, ptq::{LayerInputs, SmoothQuantSearch, TransformExt}};
/// use ndarray::Array2;
///
/// let w = Array2::from_shape_fn((4, 8), |(o, i)| ((o * 8 + i) as f32).sin());
/// let x = Array2::from_shape_fn((32, 8), |(t, i)| (t as f32).cos() * if i == 3 { 40.0 } else { 1.0 });
/// let weights = RoundToNearest::new(Scheme::int(8).per_axis(0).build()?);
/// let activations = Scheme::int(8).per_tensor().build()?;
/// let scales = SmoothQuantSearch::new(weights, activations)
///     .scales(&LayerInputs::samples(&x)?, &[w.view()])?;
/// assert!(scales.scales()[3] > 2.0 * scales.scales()[0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct SmoothQuantSearch {
    weights: Arc<dyn Quantizer>,
    activations: Scheme,
    steps: u16,
}

impl SmoothQuantSearch {
    /// For weights quantized by this method, and activations over their full range under this
    /// scheme.
    #[must_use]
    pub fn new(weights: impl Quantizer + 'static, activations: Scheme) -> Self {
        Self {
            weights: Arc::new(weights),
            activations,
            steps: 10,
        }
    }

    /// Another number of steps from `α = 0` to 1.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for none.
    pub fn with_steps(mut self, steps: u16) -> Result<Self> {
        if steps == 0 {
            return Err(Error::option("steps of alpha", "at least 1", steps));
        }
        self.steps = steps;
        Ok(self)
    }

    /// The scales for layers `[out, in]` that read the same inputs, which must be
    /// [`samples`](LayerInputs::samples): how activations round depends on each of them.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for inputs that are not samples; as [`SmoothQuant::scales`]; those of
    /// the quantizer and of the activations' scheme, where nothing is scaled.
    pub fn scales(
        &self,
        inputs: &LayerInputs,
        weights: &[ArrayView2<'_, f32>],
    ) -> Result<ChannelScales> {
        let Some(x) = inputs.as_samples() else {
            return Err(Error::Mismatch {
                what: "inputs for quantized activations",
                expected: "samples".into(),
                got: "moments".into(),
            });
        };
        check_weights(weights, x.ncols())?;
        let largest = |column: ndarray::ArrayView1<'_, f32>| {
            column.fold(0.0_f32, |largest, x| largest.max(x.abs()))
        };
        let input_max: Array1<f32> = x.axis_iter(Axis(1)).map(largest).collect();
        let weight_max = column_max(weights, x.ncols());
        let targets: Vec<Array2<f32>> = weights.iter().map(|w| x.dot(&w.t())).collect();
        let candidates = (0..=self.steps).filter_map(|step| {
            let alpha = f32::from(step) / f32::from(self.steps);
            scales_of(alpha, &input_max, &weight_max).ok()
        });
        let found = least(candidates, |scales| {
            self.error(scales, &x, weights, &targets)
        })?;
        found.map_or_else(|| ChannelScales::new(Array1::ones(x.ncols())), Ok)
    }

    fn error(
        &self,
        scales: Option<&ChannelScales>,
        x: &ArrayRef2<f32>,
        weights: &[ArrayView2<'_, f32>],
        targets: &[Array2<f32>],
    ) -> Result<f64> {
        let x = match scales {
            Some(scales) => scales.inputs(x)?,
            None => x.to_owned(),
        };
        let x = fake_quantize(&x, &Affine::of(&self.activations, &x)?)?;
        let mut total = 0.0;
        for (weights, target) in weights.iter().zip(targets) {
            let image = match scales {
                Some(scales) => image_of(&*self.weights, &scales.weights(weights)?)?,
                None => image_of(&*self.weights, weights)?,
            };
            let outputs: Array2<f32> = x.dot(&image.t());
            let pairs = outputs.iter().zip(target);
            total += pairs
                .map(|(&y, &target)| (f64::from(y) - f64::from(target)).powi(2))
                .sum::<f64>();
        }
        Ok(total)
    }
}
