//! The step size is learned.

use super::Parametrization;
use crate::{affine::Parameter, error::Result, scheme::Scheme};

/// The scale is learned, as in LSQ; zero points stay as they were given.
///
/// Stepped as a logarithm, which is the default of
/// [`LearnedFakeQuant`](super::super::LearnedFakeQuant), it is the form that Jain et al. 2020
/// (arXiv:1903.08066) found to train at one rate whatever the size of the scale.
///
/// ```
/// use lowbit::{FakeQuant, FakeQuantExt, Scheme};
/// use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
/// use ndarray::array;
///
/// let weights = array![[1.0_f32, -3.0, 2.0], [0.1, 0.1, -0.4]];
/// let scheme = Scheme::int(4).per_axis(0).build()?;
/// let mut fake = LearnedFakeQuant::new(Lsq::initial(&weights, &scheme)?, StepSize, Lsq)?;
///
/// let gradients = fake.backward(&weights, &array![[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])?;
/// let mut logarithms = fake.parameters();
/// let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?;
/// for (logarithm, slope) in logarithms.iter_mut().zip(slopes) {
///     *logarithm -= 0.1 * slope;
/// }
/// fake.set_parameters(&logarithms)?;
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StepSize;

impl Parametrization for StepSize {
    fn count(&self, _scheme: &Scheme) -> usize {
        1
    }

    fn check(&self, _scheme: &Scheme) -> Result<()> {
        Ok(())
    }

    fn latents(&self, _scheme: &Scheme, from: Parameter) -> [f32; 2] {
        [from.scale, 0.0]
    }

    fn is_size(&self, _latent: usize) -> bool {
        true
    }

    fn parameter(&self, _scheme: &Scheme, latents: [f32; 2], start: Parameter) -> Parameter {
        Parameter {
            scale: latents[0],
            zero_point: start.zero_point,
        }
    }

    fn gradients(&self, _scheme: &Scheme, _latents: [f32; 2], parameter: [f32; 2]) -> [f32; 2] {
        [parameter[0], 0.0]
    }
}
