//! Proximal maps: weights are drawn to the grid between optimizer steps.

use ndarray::{Array, ArrayRef, Dimension};

use crate::{
    affine::{Affine, fake_quantize},
    error::{Error, Result},
    scheme::{Format, Mapping},
};

/// How weights are drawn to the grid.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum ProximalMap {
    /// BinaryRelax, Yin et al. 2018 (arXiv:1801.06313): the mean of a weight and its level,
    /// `(1 − θ) w + θ Q(w)`, with `θ` growing in proportion to the steps.
    BinaryRelax,
    /// PARQ, Jin et al. 2025 (arXiv:2503.15748): a steep line through the middle between the two
    /// levels about a weight, `clamp(m + (w − m) / ρ, lower, upper)`, with `ρ` falling from 1 to 0
    /// along a sigmoid.
    Parq {
        /// How steep the sigmoid is; the authors' program has 10.
        steepness: f64,
    },
}

/// Quantization-aware training without a fake quantization: the optimizer steps latent weights, the
/// network computes with what a proximal map makes of them, and the map grows from (nearly) the
/// identity to rounding while training goes on.
///
/// The gradient with respect to the weights of the network is applied to the latent ones as it is.
/// From the end on the map is [`fake_quantize`], so that conversion loses nothing.
///
/// ```
/// use lowbit::{Affine, Scheme};
/// use lowbit::qat::{Proximal, ProximalMap};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
/// let proximal = Proximal::new(ProximalMap::Parq { steepness: 10.0 }, 100, 200)?;
/// let latent = array![0.4_f32, 0.9, -20.0];
/// assert_eq!(proximal.weights(0, &latent, &affine)?, latent);
/// let half = proximal.weights(150, &latent, &affine)?; // the line has a slope of 2
/// assert!((half[0] - 0.3).abs() < 1e-6 && half[1] == 1.0);
/// assert_eq!(proximal.weights(200, &latent, &affine)?, array![0.0, 1.0, -8.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Proximal {
    map: ProximalMap,
    start: u64,
    end: u64,
}

impl Proximal {
    /// A map that hardens from step `start` to step `end`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the start comes before the end, and a steepness is finite and
    /// from 10⁻³ to 100.
    pub fn new(map: ProximalMap, start: u64, end: u64) -> Result<Self> {
        if start >= end {
            let expected = format!("less than its end, {end}");
            return Err(Error::option("start of the annealing", expected, start));
        }
        match map {
            ProximalMap::Parq { steepness } if !(1e-3..=100.0).contains(&steepness) => {
                Err(Error::option("steepness", "0.001 to 100", steepness))
            }
            _ => Ok(Self { map, start, end }),
        }
    }

    /// What is left of the freedom of the weights at a step: 1 up to the start, 0 from the end on;
    /// `1 − θ` for BinaryRelax, `ρ` for PARQ.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts of steps")]
    pub fn freedom(&self, step: u64) -> f64 {
        if step <= self.start {
            return 1.0;
        }
        if step >= self.end {
            return 0.0;
        }
        let progress = (step - self.start) as f64 / (self.end - self.start) as f64;
        match self.map {
            ProximalMap::BinaryRelax => 1.0 - progress,
            ProximalMap::Parq { steepness } => {
                let sigmoid = |at: f64| 1.0 / (1.0 + (steepness * (at - 0.5)).exp());
                let (first, last) = (sigmoid(0.0), sigmoid(1.0));
                (sigmoid(progress) - last) / (first - last)
            }
        }
    }

    /// The weights that the network computes with at a step, in the shape of the latent ones. A NaN
    /// stays one.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the weights have other parameters; [`Error::Unsupported`] for PARQ
    /// on small floats.
    pub fn weights<D: Dimension>(
        &self,
        step: u64,
        latent: &ArrayRef<f32, D>,
        affine: &Affine,
    ) -> Result<Array<f32, D>> {
        affine.groups(latent.shape())?;
        if step < self.start {
            return Ok(latent.to_owned());
        }
        let freedom = narrow(self.freedom(step));
        if freedom == 0.0 {
            return fake_quantize(latent, affine);
        }
        match self.map {
            ProximalMap::BinaryRelax => {
                let mut levels = fake_quantize(latent, affine)?;
                levels.zip_mut_with(latent, |level, &weight| {
                    *level = freedom * weight + (1.0 - freedom) * *level;
                });
                Ok(levels)
            }
            ProximalMap::Parq { .. } => piecewise(latent, affine, freedom),
        }
    }
}

/// The map of PARQ with an inverse slope.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
fn piecewise<D: Dimension>(
    latent: &ArrayRef<f32, D>,
    affine: &Affine,
    inverse_slope: f32,
) -> Result<Array<f32, D>> {
    let scheme = affine.scheme();
    if matches!(scheme.format(), Format::Float(_)) {
        return Err(Error::Unsupported {
            operation: "the proximal map of PARQ",
            expected: "integers",
            got: scheme.to_string(),
        });
    }
    let groups = affine.groups(latent.shape())?;
    let (least, greatest) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
    let real_zero = scheme.mapping() == Mapping::AsymmetricFloat;
    let mut weights = latent.to_owned();
    for (weight, parameter) in weights.iter_mut().zip(groups.parameters_of_elements()) {
        let (scale, zero) = (affine.scale()[parameter], affine.zero_point()[parameter]);
        // In steps from the zero point, so that integer zero points cost no bits.
        let (low, high) = (least - zero, greatest - zero);
        let position = *weight / scale;
        if position.is_nan() {
            continue;
        }
        let position = position.clamp(low, high);
        let lower = if real_zero {
            (position + zero).floor() - zero
        } else {
            position.floor()
        };
        let (lower, upper) = (lower.max(low), (lower + 1.0).min(high));
        let middle = 0.5 * (lower + upper);
        *weight = (middle + (position - middle) / inverse_slope).clamp(lower, upper) * scale;
    }
    Ok(weights)
}

#[expect(clippy::cast_possible_truncation, reason = "a share")]
fn narrow(value: f64) -> f32 {
    value as f32
}
