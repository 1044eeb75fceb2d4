//! Fake quantization whose learned numbers are those of a parametrization.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD};

use super::{
    AffineFakeQuant, FakeQuant, Gradients, Parametrization, StraightThroughEstimator,
    affine::{LEAST_SCALE, effective_zero},
};
use crate::{
    affine::{Affine, same_shape, store},
    error::{Error, Result},
    scheme::{ScaleKind, Scheme},
    tensor::QTensor,
};

/// Codes from here on are one and the same: further away a zero point leaves nothing of any input.
const FURTHEST_ZERO: f32 = 16_777_216.0;

/// Fake quantization that learns what a [`Parametrization`] says: step sizes, clipping values, the
/// ends of a range, a step and an offset.
///
/// An optimizer steps [`parameters`](FakeQuant::parameters): first the first latent of every group,
/// in row-major order, then the second of every group if there is one. Latents that are sizes are
/// stepped as natural logarithms, unless [`with_sizes_as_they_are`](Self::with_sizes_as_they_are)
/// says otherwise: they are positive whatever the optimizer does, and a rate is one relative to the
/// size. Either way a step too far is brought back to what makes sense, and to scales from 2⁻²³ to
/// 2¹⁰⁰ (65,504 in 16-bit floats); only a number that is not finite is refused.
///
/// The parameters are all of its state: [`set_parameters`](FakeQuant::set_parameters) with
/// the same numbers gives the same bits.
///
/// ```
/// use lowbit::{Affine, FakeQuant, FakeQuantExt, Scheme};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
/// let mut fake = LearnedFakeQuant::new(affine, StepSize, Lsq)?;
/// assert_eq!(fake.parameters(), [0.0]); // ln 1
/// fake.set_parameters(&[-1e9])?; // far too far
/// assert!((fake.affine().scale()[0] / f32::EPSILON - 1.0).abs() < 1e-5);
/// assert!(fake.set_parameters(&[f32::NAN]).is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LearnedFakeQuant<E> {
    /// Computes the passes with the effective parameters.
    inner: AffineFakeQuant<E>,
    /// What was given to start from.
    start: Affine,
    parametrization: Arc<dyn Parametrization>,
    logarithms: bool,
    /// What an optimizer steps.
    stepped: Vec<f32>,
}

impl<E: StraightThroughEstimator> LearnedFakeQuant<E> {
    /// With the given parameters to start from, switched on.
    ///
    /// # Errors
    /// Those of [`Parametrization::check`].
    pub fn new(
        start: Affine,
        parametrization: impl Parametrization + 'static,
        estimator: E,
    ) -> Result<Self> {
        let parametrization: Arc<dyn Parametrization> = Arc::new(parametrization);
        let mut fake = Self {
            inner: AffineFakeQuant::new(start.clone(), estimator),
            start,
            parametrization,
            logarithms: true,
            stepped: vec![],
        };
        fake.begin()?;
        Ok(fake)
    }

    /// The same with latents that are sizes stepped themselves, not their logarithms: as most papers
    /// have it.
    ///
    /// ```
    /// # use lowbit::{Affine, FakeQuant, Scheme, qat::{LearnedFakeQuant, Lsq, StepSize}};
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
    /// let mut fake = LearnedFakeQuant::new(affine, StepSize, Lsq)?.with_sizes_as_they_are();
    /// assert_eq!(fake.parameters(), [0.5]);
    /// fake.set_parameters(&[-3.0])?;
    /// assert!(fake.parameters()[0] > 0.0);
    /// assert_eq!(fake.affine().scale(), [f32::EPSILON]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[must_use]
    pub fn with_sizes_as_they_are(mut self) -> Self {
        let latents: Vec<[f32; 2]> = (0..self.groups()).map(|g| self.latents(g)).collect();
        self.logarithms = false;
        self.stepped = self.steps_of(&latents);
        self
    }

    /// The parameters that the passes compute with.
    #[must_use]
    pub fn affine(&self) -> &Affine {
        self.inner.affine()
    }

    /// The fake-quant of these parameters, which computes the passes: its
    /// [`forward_into`](AffineFakeQuant::forward_into) and
    /// [`backward_into`](AffineFakeQuant::backward_into) write to arrays that are there already, and
    /// new arrays take several times as long as the passes themselves where tensors are large.
    ///
    /// ```
    /// # use lowbit::{Affine, FakeQuantExt, Scheme, qat::{LearnedFakeQuant, Lsq, StepSize}};
    /// # use ndarray::array;
    /// # let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
    /// let fake = LearnedFakeQuant::new(affine, StepSize, Lsq)?;
    /// let (x, mut y) = (array![0.3_f32, 9.0], array![0.0, 0.0]);
    /// fake.passes().forward_into(&x, &mut y)?;
    /// assert_eq!(y, fake.forward(&x)?);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[must_use]
    pub fn passes(&self) -> &AffineFakeQuant<E> {
        &self.inner
    }

    /// The estimator.
    #[must_use]
    pub fn estimator(&self) -> &E {
        self.inner.estimator()
    }

    /// The latents of a group themselves, where sizes are stepped as logarithms too; what is not
    /// learned is 0, and so is everything of a group that there is not.
    #[must_use]
    pub fn latents(&self, group: usize) -> [f32; 2] {
        if group < self.groups() {
            self.latents_of(&self.stepped, group)
        } else {
            [0.0; 2]
        }
    }

    fn latents_of(&self, stepped: &[f32], group: usize) -> [f32; 2] {
        let mut latents = [0.0; 2];
        let learned = stepped.chunks(self.groups()).enumerate();
        for ((index, stepped), latent) in learned.zip(&mut latents) {
            *latent = if self.is_logarithm(index) {
                stepped[group].exp()
            } else {
                stepped[group]
            };
        }
        latents
    }

    fn groups(&self) -> usize {
        self.start.scale().len()
    }

    fn scheme(&self) -> &Scheme {
        self.start.scheme()
    }

    fn is_logarithm(&self, latent: usize) -> bool {
        self.logarithms && self.parametrization.is_size(latent)
    }

    /// The latents of [`start`](Self::start) become the ones that are stepped.
    fn begin(&mut self) -> Result<()> {
        self.parametrization.check(self.scheme())?;
        let latents = (0..self.groups()).map(|group| {
            let from = self.start.parameter(group)?;
            Ok(self.parametrization.latents(self.scheme(), from))
        });
        let latents: Vec<[f32; 2]> = latents.collect::<Result<_>>()?;
        let stepped = self.steps_of(&latents);
        self.set_parameters(&stepped)
    }

    fn steps_of(&self, latents: &[[f32; 2]]) -> Vec<f32> {
        (0..self.parametrization.count(self.scheme()))
            .flat_map(|index| latents.iter().map(move |latents| (index, latents[index])))
            .map(|(index, latent)| {
                if self.is_logarithm(index) {
                    latent.ln()
                } else {
                    latent
                }
            })
            .collect()
    }

    /// What an optimizer stepped to, brought back to where sizes are positive and finite.
    fn bounded(&self, index: usize, stepped: f32) -> f32 {
        if !self.parametrization.is_size(index) {
            return stepped;
        }
        // A size is at most 2^16 steps, or a 256th of one: scales are bounded again where they are
        // made.
        let bounds = [LEAST_SCALE / 65_536.0, f32::MAX / 65_536.0];
        let [least, greatest] = if self.logarithms {
            bounds.map(f32::ln)
        } else {
            bounds
        };
        stepped.clamp(least, greatest)
    }
}

/// A scale that its storage type holds, and that can be learned further.
fn effective_scale(kind: ScaleKind, scale: f32) -> f32 {
    let greatest = match kind {
        ScaleKind::F16 => 65_504.0,
        // A power of two, so that rounding up stays below; times any level it is finite.
        _ => f32::from_bits((127 + 100) << 23),
    };
    store(kind, scale.clamp(LEAST_SCALE, greatest))
}

impl<E: StraightThroughEstimator> FakeQuant for LearnedFakeQuant<E> {
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        self.inner.forward_view(input)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        self.inner.backward_view(input, gradient)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        self.inner.convert_view(input)
    }

    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        self.inner.affine_view(input)
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        self.inner.switch(enabled)
    }

    fn restart(&mut self, affine: &Affine) -> Result<()> {
        same_shape("parameters", self.start.shape(), affine.shape())?;
        self.parametrization.check(affine.scheme())?;
        self.start = affine.clone();
        self.begin()
    }

    fn parameters(&self) -> Vec<f32> {
        self.stepped.clone()
    }

    fn parameter_gradients(&self, scale: &[f32], zero_point: &[f32]) -> Result<Vec<f32>> {
        let groups = self.groups();
        same_shape("gradients of scales", &[groups], &[scale.len()])?;
        same_shape("gradients of zero points", &[groups], &[zero_point.len()])?;
        let mut gradients = vec![0.0; self.stepped.len()];
        for group in 0..groups {
            let latents = self.latents(group);
            let of_parameter = [scale[group], zero_point[group]];
            let scheme = self.scheme();
            let slopes = self
                .parametrization
                .gradients(scheme, latents, of_parameter);
            for (index, chunk) in gradients.chunks_mut(groups).enumerate() {
                // By the chain rule, ∂L/∂ln s = s · ∂L/∂s.
                let inner = if self.is_logarithm(index) {
                    latents[index]
                } else {
                    1.0
                };
                chunk[group] = slopes[index] * inner;
            }
        }
        Ok(gradients)
    }

    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        let groups = self.groups();
        let count = groups * self.parametrization.count(self.scheme());
        same_shape("learned parameters", &[count], &[parameters.len()])?;
        if let Some(index) = parameters.iter().position(|value| !value.is_finite()) {
            return Err(Error::NonFinite {
                what: "learned parameters",
                expected: "finite numbers",
                position: vec![index],
                value: parameters[index].into(),
            });
        }
        let bounded = parameters.iter().enumerate();
        let mut stepped: Vec<f32> = bounded
            .map(|(at, &stepped)| self.bounded(at / groups.max(1), stepped))
            .collect();
        let scheme = *self.scheme();
        let (mut scale, mut zero_point) = (Vec::new(), Vec::new());
        for group in 0..groups {
            let latents = self.latents_of(&stepped, group);
            let valid = self.parametrization.nearest_valid(&scheme, latents);
            for index in 0..count / groups {
                // Only where it moved: a logarithm taken again may differ in its last bit.
                if valid[index] != latents[index] {
                    let moved = &mut stepped[index * groups + group];
                    *moved = if self.is_logarithm(index) {
                        valid[index].ln()
                    } else {
                        valid[index]
                    };
                }
            }
            let start = self.start.parameter(group)?;
            let real = self.parametrization.parameter(&scheme, valid, start);
            scale.push(effective_scale(scheme.scale_kind(), real.scale));
            let zero = real.zero_point.clamp(-FURTHEST_ZERO, FURTHEST_ZERO);
            zero_point.push(effective_zero(&scheme, zero));
        }
        let affine = Affine::new(scheme, self.start.shape(), scale, zero_point)?;
        self.stepped = stepped;
        self.inner.set_affine(affine);
        Ok(())
    }
}
