//! A clipping value is learned.

use super::Parametrization;
use crate::{
    affine::Parameter,
    error::{Error, Result},
    scheme::Scheme,
};

/// A clipping value `α` a fixed number of steps from 0 is learned: `scale = α / steps`, with
/// `∂L/∂α = ∂L/∂scale / steps`. Zero points stay as they were given.
///
/// [`Pact`](super::super::Pact) and [`StretchedElastic`](super::super::StretchedElastic) are built
/// on it.
///
/// ```
/// use lowbit::{Affine, Scheme};
/// use lowbit::qat::{LearnedFakeQuant, Pact, Threshold};
/// let scheme = Scheme::int(4).unsigned().asymmetric().build()?;
/// let affine = Affine::per_tensor(scheme, 0.4, 0.0)?;
/// let fake = LearnedFakeQuant::new(affine, Threshold::new(15.0)?, Pact)?;
/// assert!((fake.latents(0)[0] - 6.0).abs() < 1e-5);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Threshold {
    steps: f32,
}

impl Threshold {
    /// A clipping value so many steps from 0.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the number is from 2⁻⁸ to 2¹⁶.
    pub fn new(steps: f32) -> Result<Self> {
        if (1.0 / 256.0..=65_536.0).contains(&steps) {
            Ok(Self { steps })
        } else {
            let expected = "a number from 2^-8 to 2^16";
            Err(Error::option("steps to the threshold", expected, steps))
        }
    }
}

impl Parametrization for Threshold {
    fn count(&self, _scheme: &Scheme) -> usize {
        1
    }

    fn check(&self, _scheme: &Scheme) -> Result<()> {
        Ok(())
    }

    fn latents(&self, _scheme: &Scheme, from: Parameter) -> [f32; 2] {
        [from.scale * self.steps, 0.0]
    }

    fn is_size(&self, _latent: usize) -> bool {
        true
    }

    fn parameter(&self, _scheme: &Scheme, latents: [f32; 2], start: Parameter) -> Parameter {
        Parameter {
            scale: latents[0] / self.steps,
            zero_point: start.zero_point,
        }
    }

    fn gradients(&self, _scheme: &Scheme, _latents: [f32; 2], parameter: [f32; 2]) -> [f32; 2] {
        [parameter[0] / self.steps, 0.0]
    }
}
