//! Cross-layer equalization: ranges levelled between layers that follow each other.

use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2, Axis};

use super::{
    check_finite,
    transform::{ChannelScales, TransformExt},
};
use crate::{
    affine::same_shape,
    error::{Error, Result},
};

/// Levels the ranges of the channels between consecutive layers, so that one scale for a whole
/// tensor serves all channels: no data is needed.
///
/// Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction"
/// (arXiv:1906.04721), equation 11: channel `i` between weights `W₁` and `W₂` gets `s_i =
/// √(max|W₁[i,:]| / max|W₂[:,i]|)`, after which both maxima are `√(max · max)`. It holds for a
/// nonlinearity `f` with `f(s x) = s f(x)`: none, ReLU, leaky ReLU. A channel of which one side is
/// all 0 keeps its scale.
///
/// ```
/// use lowbit::ptq::{Equalization, TransformExt};
/// use ndarray::array;
///
/// let (first, second) = (array![[16.0_f32, 4.0], [0.5, 0.25]], array![[1.0_f32, 0.5]]);
/// let scales = Equalization::scales(&first, &second)?;
/// assert_eq!(scales.outputs(&first)?, array![[4.0, 1.0], [0.5, 0.25]]);
/// assert_eq!(scales.weights(&second)?, array![[4.0, 0.5]]);
///
/// // a whole stack of layers, its biases after it
/// let mut layers = [first, second];
/// let mut biases = [array![1.0_f32, 1.0], array![0.0]];
/// let scales = Equalization::default().equalize(&mut layers)?;
/// biases[0] = scales[0].inputs(&biases[0])?;
/// assert_eq!(biases[0], array![0.25, 1.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equalization {
    iterations: u16,
    tolerance: f32,
}

impl Default for Equalization {
    /// At most 10 passes over the layers, until no scale changes by 5 % any more.
    fn default() -> Self {
        Self {
            iterations: 10,
            tolerance: 0.05,
        }
    }
}

impl Equalization {
    /// Another number of passes, and another change of scales at which to stop.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a tolerance that is negative or not a number.
    pub fn with_limits(mut self, iterations: u16, tolerance: f32) -> Result<Self> {
        let valid = tolerance >= 0.0;
        if !valid {
            return Err(Error::option("tolerance", "at least 0", tolerance));
        }
        (self.iterations, self.tolerance) = (iterations, tolerance);
        Ok(self)
    }

    /// The scales of the channels between two layers, `[channels, in]` and `[out, channels]`; to be
    /// folded into the first with [`outputs`](TransformExt::outputs), into the second with
    /// [`weights`](TransformExt::weights), and into the bias of the first with
    /// [`inputs`](TransformExt::inputs).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless they have the channels in common; [`Error::NonFinite`] for a
    /// weight that is not finite.
    pub fn scales(first: &ArrayRef2<f32>, second: &ArrayRef2<f32>) -> Result<ChannelScales> {
        let expected = [second.nrows(), first.nrows()];
        same_shape("weights of the second layer", &expected, second.shape())?;
        check_finite("weights of the first layer", first)?;
        check_finite("weights of the second layer", second)?;
        let (first, second) = (largest(first, 0), largest(second, 1));
        let pairs = first.iter().zip(&second);
        ChannelScales::new(pairs.map(|(&a, &b)| scale((a / b).sqrt())).collect())
    }

    /// The scales around a depthwise layer, whose channel `i` reads channel `i` alone: of the
    /// channels before it and of those after it. Its taps are given as `[channels, taps]`.
    ///
    /// With `m₁, m₂, m₃` the largest magnitudes, `m₁ / ∛(m₁ m₂ m₃)` and `∛(m₁ m₂ m₃) / m₃` (AIMET):
    /// all three then have the same range. The depthwise layer is multiplied by the first and
    /// divided by the second, row by row.
    ///
    /// # Errors
    /// As [`scales`](Self::scales).
    pub fn depthwise_scales(
        first: &ArrayRef2<f32>,
        depthwise: &ArrayRef2<f32>,
        last: &ArrayRef2<f32>,
    ) -> Result<(ChannelScales, ChannelScales)> {
        let channels = first.nrows();
        let expected = [channels, depthwise.ncols()];
        same_shape("depthwise weights", &expected, depthwise.shape())?;
        let expected = [last.nrows(), channels];
        same_shape("weights of the last layer", &expected, last.shape())?;
        check_finite("weights of the first layer", first)?;
        check_finite("depthwise weights", depthwise)?;
        check_finite("weights of the last layer", last)?;
        let (first, middle) = (largest(first, 0), largest(depthwise, 0));
        let last = largest(last, 1);
        let of = |channel: usize| {
            let all = [first[channel], middle[channel], last[channel]];
            let level = all.iter().product::<f64>().cbrt();
            if level > 0.0 {
                (scale(all[0] / level), scale(level / all[2]))
            } else {
                (1.0, 1.0)
            }
        };
        let (before, after) = (0..channels).map(of).unzip::<_, _, Vec<_>, Vec<_>>();
        Ok((
            ChannelScales::new(before.into())?,
            ChannelScales::new(after.into())?,
        ))
    }

    /// Equalizes a stack of layers, each reading what the one before it writes, in place; returns
    /// the scales of the channels between them, for their biases.
    ///
    /// # Errors
    /// [`Error::Empty`] for less than two layers; those of [`scales`](Self::scales). After an error
    /// the layers are as they were.
    pub fn equalize(&self, layers: &mut [Array2<f32>]) -> Result<Vec<ChannelScales>> {
        if layers.len() < 2 {
            return Err(Error::Empty {
                what: "layer to equalize with".into(),
            });
        }
        let mut total: Vec<Array1<f32>> = layers[1..]
            .iter()
            .map(|layer| Array1::ones(layer.ncols()))
            .collect();
        let mut levelled = layers.to_vec();
        for _ in 0..self.iterations {
            let mut largest_change = 0.0_f32;
            for (index, total) in total.iter_mut().enumerate() {
                let scales = Self::scales(&levelled[index], &levelled[index + 1])?;
                levelled[index] = scales.outputs(&levelled[index])?;
                levelled[index + 1] = scales.weights(&levelled[index + 1])?;
                *total *= &scales.scales();
                let change = |most: f32, scale: &f32| most.max((scale - 1.0).abs());
                largest_change = scales.scales().iter().fold(largest_change, change);
            }
            if largest_change <= self.tolerance {
                break;
            }
        }
        let total = total.into_iter().map(ChannelScales::new);
        let total = total.collect::<Result<_>>()?;
        layers.clone_from_slice(&levelled);
        Ok(total)
    }
}

/// The largest magnitude at each index of an axis.
fn largest(weights: &ArrayRef2<f32>, axis: usize) -> Vec<f64> {
    let lanes = weights.axis_iter(Axis(axis));
    lanes
        .map(|lane| lane.fold(0.0_f32, |most, w| most.max(w.abs())).into())
        .collect()
}

/// A scale that can be stored: 1 where a side is all 0.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is asked for, within its range"
)]
fn scale(exact: f64) -> f32 {
    if exact > 0.0 && exact.is_finite() {
        exact.clamp(1e-30, 1e30) as f32
    } else {
        1.0
    }
}

/// Moves what a ReLU never clips from the bias of one layer to that of the next: the means of large
/// activations then need no range.
///
/// Nagel et al. 2019 (arXiv:1906.04721), section 4.1.3: with the inputs of the ReLU distributed as
/// `N(β, γ²)`, as after a batch norm, `c = max(0, β − 3|γ|)` is taken off the first bias and `W₂ c`
/// added to the second. Returns both.
///
/// # Errors
/// [`Error::ShapeMismatch`] unless the first bias, `means` and `deviations` have an entry for each
/// column of `second`, and the second bias for each row; [`Error::NonFinite`] if a result is not
/// finite.
///
/// ```
/// use lowbit::ptq::absorb_high_bias;
/// use ndarray::array;
/// let (first, second) = absorb_high_bias(
///     &array![5.0, 0.0],
///     &array![[2.0_f32, 1.0]],
///     &array![1.0],
///     (&array![5.0, 0.0], &array![1.0, 1.0]),
/// )?;
/// assert_eq!((first, second), (array![3.0, 0.0], array![5.0]));
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn absorb_high_bias(
    first_bias: &ArrayRef1<f32>,
    second: &ArrayRef2<f32>,
    second_bias: &ArrayRef1<f32>,
    (means, deviations): (&ArrayRef1<f32>, &ArrayRef1<f32>),
) -> Result<(Array1<f32>, Array1<f32>)> {
    let channels = [second.ncols()];
    same_shape("bias of the first layer", &channels, first_bias.shape())?;
    same_shape("means", &channels, means.shape())?;
    same_shape("deviations", &channels, deviations.shape())?;
    let outputs = [second.nrows()];
    same_shape("bias of the second layer", &outputs, second_bias.shape())?;
    let pairs = means.iter().zip(deviations);
    let absorbed: Array1<f32> = pairs.map(|(m, d)| (m - 3.0 * d.abs()).max(0.0)).collect();
    let first = first_bias.to_owned() - &absorbed;
    let second = second.dot(&absorbed) + second_bias;
    check_finite("bias of the first layer", &first)?;
    check_finite("bias of the second layer", &second)?;
    Ok((first, second))
}
