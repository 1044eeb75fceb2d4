//! Weights through tanh onto a fixed grid, and activations between 0 and 1.

use ndarray::{Array, ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::{FakeQuant, FixedParameters, Gradients, LearnedFakeQuant, Pact, dynamic::passed};
use crate::{
    affine::{Affine, fake_quantize, same_shape},
    error::{Error, Result},
    groups::Groups,
    parallel::{PIECE, over_pieces},
    scheme::{Granularity, Scheme},
    tensor::QTensor,
};

/// The weight quantizer of DoReFa-Net: Zhou et al. 2016, arXiv:1606.06160, eq. 9.
///
/// `w̃ = 2 · quantize_k(tanh(w) / (2 max|tanh(w)|) + ½) − 1` with
/// `quantize_k(r) = round((2^k − 1) r) / (2^k − 1)`: levels `−1 … 1` an odd number of half steps off
/// zero. Rounding counts as the identity, and the rest is what it is: the gradient passes through
/// the tanh, and through the greatest magnitude to the element that has it.
///
/// The maximum is that of each group of the granularity, of the whole tensor in the paper. The
/// levels go from −1 to 1, whatever the size of the weights: in the paper a batch norm follows, which
/// takes any factor. Without one, [`fitted`](Self::fitted) keeps the levels near the weights.
///
/// ```
/// use lowbit::{FakeQuantExt, Granularity, qat::Dorefa};
/// use ndarray::array;
///
/// let fake = Dorefa::new(2, Granularity::PerTensor)?; // −1, −⅓, ⅓, 1
/// let weights = array![2.0_f32, -0.1, -1.5];
/// let levels = fake.forward(&weights)?;
/// assert!((&levels - &array![1.0, -1.0 / 3.0, -1.0]).iter().all(|e| e.abs() < 1e-6));
/// assert_eq!(fake.convert(&weights)?.dequantize::<f32>(), levels.into_dyn());
///
/// let activations = Dorefa::activations(2)?; // 0, ⅓, ⅔, 1
/// assert_eq!(activations.forward(&array![-3.0_f32, 5.0])?, array![0.0, 1.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Dorefa {
    scheme: Scheme,
    /// What the levels of each group are multiplied by; 1 without.
    gains: Option<Vec<f32>>,
    enabled: bool,
}

impl Dorefa {
    /// For weights of 2 to 8 bits. The paper has another rule at 1 bit, which is
    /// [`StretchedElastic`](super::StretchedElastic)'s with a scale that follows the weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other bits, or a granularity that no scheme has.
    pub fn new(bits: u32, granularity: Granularity) -> Result<Self> {
        check_bits(bits)?;
        let scheme = Scheme::int(bits).unsigned().asymmetric_float();
        Ok(Self {
            scheme: scheme.granularity(granularity).build()?,
            gains: None,
            enabled: true,
        })
    }

    /// [`new`](Self::new) with the levels of each group multiplied by what brings them nearest to
    /// these weights, in squared error, once and for all. (Not in the paper.)
    ///
    /// # Errors
    /// Those of [`new`](Self::new); [`Error::NonFinite`] for weights that are not finite.
    ///
    /// ```
    /// # use lowbit::{FakeQuantExt, Granularity, qat::Dorefa};
    /// # use ndarray::array;
    /// let weights = array![0.2_f32, -0.2, 0.07, -0.07];
    /// let near = Dorefa::fitted(2, &weights, Granularity::PerTensor)?.forward(&weights)?;
    /// assert!((&near - &weights).iter().all(|error| error.abs() < 0.01));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn fitted<D: Dimension>(
        bits: u32,
        weights: &ArrayRef<f32, D>,
        granularity: Granularity,
    ) -> Result<Self> {
        let mut fake = Self::new(bits, granularity)?;
        let weights = weights.view().into_dyn();
        let groups = Groups::new(weights.shape(), granularity)?;
        if let Some((index, &value)) = weights.iter().enumerate().find(|(_, w)| !w.is_finite()) {
            return Err(Error::NonFinite {
                what: "weights to fit the levels to",
                expected: "finite numbers",
                position: groups.position(index),
                value: value.into(),
            });
        }
        let levels = fake.forward_view(weights.view())?;
        let mut sums = vec![[0.0_f64; 2]; groups.parameters()];
        let elements = weights.iter().zip(&levels);
        for ((&weight, &level), parameter) in elements.zip(groups.parameters_of_elements()) {
            let [product, square] = &mut sums[parameter];
            *product += f64::from(weight) * f64::from(level);
            *square += f64::from(level) * f64::from(level);
        }
        let gains = sums.iter().map(|[product, square]| {
            let gain = narrow(product / square);
            if gain.is_normal() && gain > 0.0 {
                gain
            } else {
                1.0
            }
        });
        fake.gains = Some(gains.collect());
        Ok(fake)
    }

    /// The activation quantizer, `quantize_k(clip(x, 0, 1))` (section 2.5): nothing is learned, and
    /// the gradient passes where `0 <= x < 1`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other bits than 2 to 8.
    pub fn activations(bits: u32) -> Result<LearnedFakeQuant<Pact>> {
        let codes = check_bits(bits)?;
        let scheme = Scheme::int(bits).unsigned().asymmetric().build()?;
        let affine = Affine::per_tensor(scheme, 1.0 / codes, 0.0)?;
        LearnedFakeQuant::new(affine, FixedParameters, Pact)
    }

    /// The grid of levels between −1 and 1, the same for each group.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 8 bits")]
    fn affine(&self, groups: &Groups) -> Result<Affine> {
        let (codes, count) = (self.scheme.quant_max() as f32, groups.parameters());
        let (scale, zero_point) = (vec![2.0 / codes; count], vec![codes / 2.0; count]);
        Affine::new(self.scheme, &groups.parameter_shape(), scale, zero_point)
    }

    /// The factor of the levels of each group.
    fn gains(&self, groups: &Groups) -> Result<Vec<f32>> {
        match &self.gains {
            None => Ok(vec![1.0; groups.parameters()]),
            Some(gains) => {
                same_shape("gains", &[groups.parameters()], &[gains.len()])?;
                Ok(gains.clone())
            }
        }
    }

    /// `gain · tanh(w) / max|tanh(w)|`, and the grid it is rounded on.
    fn prepared(&self, weights: &ArrayViewD<'_, f32>) -> Result<(ArrayD<f32>, Affine)> {
        let Normalized {
            groups, mut values, ..
        } = self.normalized(weights)?;
        let affine = self.affine(&groups)?;
        let gains = self.gains(&groups)?;
        for (value, parameter) in values.iter_mut().zip(groups.parameters_of_elements()) {
            *value *= gains[parameter];
        }
        let scale = affine
            .scale()
            .iter()
            .zip(&gains)
            .map(|(scale, gain)| (scale * gain).clamp(f32::MIN_POSITIVE, f32::MAX));
        let zero_point = affine.zero_point().to_vec();
        let affine = Affine::new(self.scheme, affine.shape(), scale.collect(), zero_point)?;
        Ok((values, affine))
    }

    /// `tanh(w) / max|tanh(w)|` with what it was made of.
    fn normalized(&self, weights: &ArrayViewD<'_, f32>) -> Result<Normalized> {
        let groups = Groups::new(weights.shape(), self.scheme.granularity())?;
        let mut values = weights.as_standard_layout().into_owned();
        if let Some(values) = values.as_slice_mut() {
            over_pieces(values, PIECE, |_, piece| {
                for value in piece {
                    *value = value.tanh();
                }
            });
        }
        // The first element with the greatest magnitude of each group.
        let mut greatest = vec![(0.0_f32, 0_usize); groups.parameters()];
        let elements = values.iter().enumerate();
        for ((index, &tanh), parameter) in elements.zip(groups.parameters_of_elements()) {
            let greatest = &mut greatest[parameter];
            if tanh.abs() > greatest.0 {
                *greatest = (tanh.abs(), index);
            }
        }
        for (value, parameter) in values.iter_mut().zip(groups.parameters_of_elements()) {
            let (max, _) = greatest[parameter];
            if max > 0.0 {
                *value /= max;
            }
        }
        Ok(Normalized {
            groups,
            values,
            greatest,
        })
    }
}

/// Weights between −1 and 1.
struct Normalized {
    groups: Groups,
    values: ArrayD<f32>,
    /// The greatest `|tanh|` of each group, and the element that has it; 0 for a group of zeros.
    greatest: Vec<(f32, usize)>,
}

/// `2^k − 1`.
#[expect(clippy::cast_precision_loss, reason = "at most 255")]
fn check_bits(bits: u32) -> Result<f32> {
    if (2..=8).contains(&bits) {
        Ok(((1_u32 << bits) - 1) as f32)
    } else {
        Err(Error::option("bits of DoReFa", "2 to 8", bits))
    }
}

impl FakeQuant for Dorefa {
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        if !self.enabled {
            return Ok(input.to_owned());
        }
        let (values, affine) = self.prepared(&input)?;
        fake_quantize(&values, &affine)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        same_shape("gradient", input.shape(), gradient.shape())?;
        if !self.enabled {
            return passed(&input, &gradient);
        }
        let Normalized {
            groups,
            values,
            greatest,
        } = self.normalized(&input)?;
        // Rounding is the identity, so that neither grid nor gain matters but as a factor.
        let gains = self.gains(&groups)?;
        let mut gradients = passed(&input, &gradient)?;
        let elements = gradients.input.iter_mut();
        for (g, parameter) in elements.zip(groups.parameters_of_elements()) {
            *g *= gains[parameter];
        }
        // ∂L/∂max = −Σ g · t / max, with t the normalized value; in f64, in the order of elements.
        let mut to_max = vec![0.0_f64; groups.parameters()];
        let elements = gradients.input.iter().zip(&values);
        for ((&g, &value), parameter) in elements.zip(groups.parameters_of_elements()) {
            to_max[parameter] -= f64::from(g) * f64::from(value);
        }
        let mut to_input = Array::zeros(input.raw_dim());
        let elements = gradients.input.iter().zip(&values).zip(&mut to_input);
        let elements = elements.zip(groups.parameters_of_elements()).enumerate();
        for (index, (((&g, &value), to), parameter)) in elements {
            let (max, at) = greatest[parameter];
            let max = if max > 0.0 { max } else { 1.0 };
            let tanh = value * max;
            let through = if at == index && tanh != 0.0 {
                narrow(to_max[parameter]) * tanh.signum()
            } else {
                0.0
            };
            *to = (g + through) / max * (1.0 - tanh * tanh);
        }
        gradients.input = to_input;
        Ok(gradients)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let (values, affine) = self.prepared(&input)?;
        QTensor::quantize(&values, &affine)
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        self.enabled = enabled;
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest f32")]
fn narrow(value: f64) -> f32 {
    value as f32
}
