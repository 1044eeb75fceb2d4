//! Fake quantization with parameters that are given, or learned by the caller's optimizer.

use ndarray::{Array, ArrayD, ArrayRef, ArrayViewD, Dimension};

use super::{
    FakeQuant, Gradients, StraightThroughEstimator,
    backward::{Wanted, backward, backward_into},
};
use crate::{
    affine::{Affine, fake_quantize, fake_quantize_into, same_shape, store},
    error::{Error, Result},
    scheme::{Mapping, Scheme},
    tensor::QTensor,
};

/// The least scale that [`AffineFakeQuant::set_scale`] sets, 2⁻²³, as torch has it.
pub(super) const LEAST_SCALE: f32 = f32::EPSILON;

/// Fake quantization with scales and zero points that an optimizer may learn.
///
/// Learned parameters are real numbers, the *latent* ones; the forward and the backward pass both
/// compute with the *effective* ones, which [`affine`](Self::affine) shows:
///
/// | parameter | effective |
/// |---|---|
/// | scale stored as `f32` | the latent one |
/// | scale stored as `f16` or power of two | the latent one, rounded as the scheme stores it |
/// | integer zero point | the latent one, rounded half to even and clamped to the codes |
/// | real zero point | the latent one |
/// | zero point of a symmetric scheme | the middle code, not to be learned |
///
/// Gradients are those of the effective parameters, and pass to the latent ones unchanged.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme, fake_quantize};
/// use lowbit::qat::{AffineFakeQuant, Clipped};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(4).asymmetric().build()?, 0.5, 1.0)?;
/// let mut fake = AffineFakeQuant::new(affine, Clipped);
/// let x = array![0.6_f32, -3.0, 100.0];
/// assert_eq!(fake.forward(&x)?, fake_quantize(&x, fake.affine())?);
///
/// // an optimizer's step
/// let gradients = fake.backward(&x, &array![0.1, 0.2, 0.3])?;
/// fake.set_scale(&[fake.scale()[0] - 0.01 * gradients.scale[0]])?;
/// fake.set_zero_point(&[fake.zero_point()[0] - gradients.zero_point[0]])?;
/// assert_eq!(fake.zero_point(), [1.15]);
/// assert_eq!(fake.affine().zero_point(), [1.0]);
///
/// // what is deployed is what training saw
/// let y = fake.forward(&x)?;
/// assert_eq!(fake.convert(&x)?.dequantize::<f32>(), y.into_dyn());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AffineFakeQuant<E> {
    /// Made from the latent parameters: the one place where they are rounded.
    affine: Affine,
    scale: Vec<f32>,
    zero_point: Vec<f32>,
    estimator: E,
    enabled: bool,
}

impl<E: StraightThroughEstimator> AffineFakeQuant<E> {
    /// With the given parameters to start from, switched on.
    ///
    /// The estimator may be a `Box<dyn StraightThroughEstimator>`.
    #[must_use]
    pub fn new(affine: Affine, estimator: E) -> Self {
        Self {
            scale: affine.scale().to_vec(),
            zero_point: affine.zero_point().to_vec(),
            affine,
            estimator,
            enabled: true,
        }
    }

    /// The parameters that the passes compute with.
    #[must_use]
    pub fn affine(&self) -> &Affine {
        &self.affine
    }

    /// The estimator.
    #[must_use]
    pub fn estimator(&self) -> &E {
        &self.estimator
    }

    /// The latent scales, in row-major order of the parameters; real units per step.
    #[must_use]
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    /// The latent zero points, in row-major order of the parameters.
    #[must_use]
    pub fn zero_point(&self) -> &[f32] {
        &self.zero_point
    }

    /// Sets the latent scales. Those below 2⁻²³, negative ones too, are raised to it, so that a step
    /// too far leaves a scale that can be learned further.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of scales; [`Error::InvalidScale`] for one that
    /// is not finite, or too large for its storage type. The parameters are then as before.
    ///
    /// ```
    /// # use lowbit::{Affine, Scheme, qat::{AffineFakeQuant, Clipped}};
    /// let scheme = Scheme::int(4).build()?;
    /// let mut fake = AffineFakeQuant::new(Affine::per_tensor(scheme, 1.0, 0.0)?, Clipped);
    /// fake.set_scale(&[-0.5])?;
    /// assert_eq!(fake.scale(), [f32::EPSILON]);
    /// assert!(fake.set_scale(&[f32::NAN]).is_err());
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn set_scale(&mut self, scale: &[f32]) -> Result<()> {
        same_shape("scales", &[self.scale.len()], &[scale.len()])?;
        if let Some(index) = scale.iter().position(|scale| !scale.is_finite()) {
            return Err(Error::InvalidScale {
                index,
                expected: "a finite number",
                got: scale[index],
            });
        }
        let scale: Vec<f32> = scale.iter().map(|scale| scale.max(LEAST_SCALE)).collect();
        let scheme = *self.affine.scheme();
        let stored = scale.iter().map(|&s| store(scheme.scale_kind(), s));
        let zero_point = self.affine.zero_point().to_vec();
        self.affine = Affine::new(scheme, self.affine.shape(), stored.collect(), zero_point)?;
        self.scale = scale;
        Ok(())
    }

    /// Sets the latent zero points.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of zero points; [`Error::InvalidZeroPoint`] for
    /// one that is not finite, or not the middle code of a symmetric scheme. The parameters are then
    /// as before.
    ///
    /// ```
    /// # use lowbit::{Affine, Scheme, qat::{AffineFakeQuant, Clipped}};
    /// let scheme = Scheme::int(4).unsigned().asymmetric().build()?;
    /// let mut fake = AffineFakeQuant::new(Affine::per_tensor(scheme, 1.0, 0.0)?, Clipped);
    /// fake.set_zero_point(&[2.5])?;
    /// assert_eq!(fake.affine().zero_point(), [2.0]);
    /// fake.set_zero_point(&[99.0])?;
    /// assert_eq!(fake.affine().zero_point(), [15.0]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn set_zero_point(&mut self, zero_point: &[f32]) -> Result<()> {
        same_shape("zero points", &[self.zero_point.len()], &[zero_point.len()])?;
        if let Some(index) = zero_point.iter().position(|zero| !zero.is_finite()) {
            return Err(Error::InvalidZeroPoint {
                index,
                expected: "a finite number".into(),
                got: zero_point[index],
            });
        }
        let scheme = *self.affine.scheme();
        let effective = zero_point.iter().map(|&zero| effective_zero(&scheme, zero));
        let scale = self.affine.scale().to_vec();
        self.affine = Affine::new(scheme, self.affine.shape(), scale, effective.collect())?;
        self.zero_point = zero_point.to_vec();
        Ok(())
    }

    /// Other parameters, of any scheme, which latent ones start from anew.
    pub(super) fn set_affine(&mut self, affine: Affine) {
        self.scale = affine.scale().to_vec();
        self.zero_point = affine.zero_point().to_vec();
        self.affine = affine;
    }

    /// Whether it fake-quantizes.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Switches fake quantization on or off, to begin it late in training. Off, the forward pass
    /// returns its input and the backward pass the gradient, with zeros for the parameters;
    /// converting quantizes all the same.
    ///
    /// ```
    /// # use lowbit::{Affine, FakeQuantExt, Scheme, qat::{AffineFakeQuant, Clipped}};
    /// # use ndarray::array;
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
    /// let mut fake = AffineFakeQuant::new(affine, Clipped);
    /// fake.set_enabled(false);
    /// assert_eq!(fake.forward(&array![0.7_f32])?, array![0.7]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    /// [`forward`](super::FakeQuantExt::forward) into an array that is there already, of any
    /// layout; allocates nothing for tensors of up to four axes.
    ///
    /// # Errors
    /// Those of [`forward`](super::FakeQuantExt::forward), and [`Error::ShapeMismatch`] if the two
    /// shapes differ.
    ///
    /// ```
    /// # use lowbit::{Affine, FakeQuantExt, Scheme, qat::{AffineFakeQuant, Clipped}};
    /// # use ndarray::{Array1, array};
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
    /// let fake = AffineFakeQuant::new(affine, Clipped);
    /// let mut y = Array1::zeros(2);
    /// fake.forward_into(&array![0.7_f32, 2.5], &mut y)?;
    /// assert_eq!(y, array![1.0, 2.0]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn forward_into<D: Dimension>(
        &self,
        input: &ArrayRef<f32, D>,
        output: &mut ArrayRef<f32, D>,
    ) -> Result<()> {
        if self.enabled {
            return fake_quantize_into(input, &self.affine, output);
        }
        self.affine.groups(input.shape())?;
        same_shape("output", input.shape(), output.shape())?;
        output.assign(input);
        Ok(())
    }

    /// [`backward`](super::FakeQuantExt::backward) into gradients that are there already, from an
    /// earlier step; those of the parameters may have any length. Where the arrays lie in row-major
    /// order it allocates partial sums alone, a few bytes for each thousand elements and each parameter.
    ///
    /// # Errors
    /// Those of [`backward`](super::FakeQuantExt::backward), and [`Error::ShapeMismatch`] if the
    /// gradient of the input has another shape.
    ///
    /// ```
    /// # use lowbit::{Affine, FakeQuantExt, Scheme, qat::{AffineFakeQuant, Clipped}};
    /// # use ndarray::array;
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
    /// let fake = AffineFakeQuant::new(affine, Clipped);
    /// let mut gradients = fake.backward(&array![0.5_f32, 9.0], &array![1.0, 1.0])?;
    /// fake.backward_into(&array![9.0, 0.5], &array![2.0, 2.0], &mut gradients)?;
    /// assert_eq!(gradients.input, array![0.0, 2.0]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn backward_into<D: Dimension>(
        &self,
        input: &ArrayRef<f32, D>,
        gradient: &ArrayRef<f32, D>,
        gradients: &mut Gradients<D>,
    ) -> Result<()> {
        if self.enabled {
            let Self {
                affine, estimator, ..
            } = self;
            return backward_into(input, gradient, affine, estimator, Wanted::All, gradients);
        }
        self.affine.groups(input.shape())?;
        same_shape("gradient", input.shape(), gradient.shape())?;
        same_shape(
            "gradient of the input",
            input.shape(),
            gradients.input.shape(),
        )?;
        gradients.input.assign(gradient);
        for parameters in [&mut gradients.scale, &mut gradients.zero_point] {
            parameters.clear();
            parameters.resize(self.scale.len(), 0.0);
        }
        Ok(())
    }
}

impl<E: StraightThroughEstimator> FakeQuant for AffineFakeQuant<E> {
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        if self.enabled {
            return fake_quantize(&input, &self.affine);
        }
        self.affine.groups(input.shape())?;
        Ok(input.to_owned())
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        if self.enabled {
            return backward(
                &input,
                &gradient,
                &self.affine,
                &self.estimator,
                Wanted::All,
            );
        }
        let mut gradients = Gradients {
            input: Array::zeros(input.raw_dim()),
            scale: vec![],
            zero_point: vec![],
        };
        self.backward_into(&input, &gradient, &mut gradients)?;
        Ok(gradients)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        QTensor::quantize(&input, &self.affine)
    }

    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        self.affine.groups(input.shape())?;
        Ok(self.affine.clone())
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        self.enabled = enabled;
        Ok(())
    }

    fn restart(&mut self, affine: &Affine) -> Result<()> {
        same_shape("parameters", self.affine.shape(), affine.shape())?;
        self.set_affine(affine.clone());
        Ok(())
    }

    /// The latent scales, then the latent zero points unless the scheme is symmetric.
    fn parameters(&self) -> Vec<f32> {
        let mut parameters = self.scale.clone();
        if !self.affine.scheme().mapping().is_symmetric() {
            parameters.extend(&self.zero_point);
        }
        parameters
    }

    fn parameter_gradients(&self, scale: &[f32], zero_point: &[f32]) -> Result<Vec<f32>> {
        let groups = self.scale.len();
        same_shape("gradients of scales", &[groups], &[scale.len()])?;
        same_shape("gradients of zero points", &[groups], &[zero_point.len()])?;
        let mut gradients = scale.to_vec();
        if !self.affine.scheme().mapping().is_symmetric() {
            gradients.extend(zero_point);
        }
        Ok(gradients)
    }

    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        let learned = if self.affine.scheme().mapping().is_symmetric() {
            1
        } else {
            2
        };
        let count = learned * self.scale.len();
        same_shape("learned parameters", &[count], &[parameters.len()])?;
        let (scale, zero_point) = parameters.split_at(self.scale.len());
        let before = self.scale.clone();
        self.set_scale(scale)?;
        if learned == 2
            && let Err(error) = self.set_zero_point(zero_point)
        {
            self.set_scale(&before)?;
            return Err(error);
        }
        Ok(())
    }
}

/// The zero point that a latent one stands for; the one of symmetric schemes is checked elsewhere.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
pub(super) fn effective_zero(scheme: &Scheme, latent: f32) -> f32 {
    match scheme.mapping() {
        Mapping::Asymmetric => latent
            .round_ties_even()
            .clamp(scheme.quant_min() as f32, scheme.quant_max() as f32),
        Mapping::Symmetric | Mapping::SymmetricHalfRange | Mapping::AsymmetricFloat => latent,
    }
}
