//! Nothing is learned.

use super::Parametrization;
use crate::{affine::Parameter, error::Result, scheme::Scheme};

/// Scales and zero points stay as they were given.
///
/// ```
/// use lowbit::{Affine, FakeQuant, Scheme};
/// use lowbit::qat::{Clipped, FixedParameters, LearnedFakeQuant};
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
/// let fake = LearnedFakeQuant::new(affine, FixedParameters, Clipped)?;
/// assert!(fake.parameters().is_empty());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct FixedParameters;

impl Parametrization for FixedParameters {
    fn count(&self, _scheme: &Scheme) -> usize {
        0
    }

    fn check(&self, _scheme: &Scheme) -> Result<()> {
        Ok(())
    }

    fn latents(&self, _scheme: &Scheme, _from: Parameter) -> [f32; 2] {
        [0.0; 2]
    }

    fn is_size(&self, _latent: usize) -> bool {
        false
    }

    fn parameter(&self, _scheme: &Scheme, _latents: [f32; 2], start: Parameter) -> Parameter {
        start
    }

    fn gradients(&self, _scheme: &Scheme, _latents: [f32; 2], _parameter: [f32; 2]) -> [f32; 2] {
        [0.0; 2]
    }
}
