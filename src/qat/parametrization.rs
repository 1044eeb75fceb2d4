//! What is learned in place of scales and zero points.

mod ends;
mod fixed;
mod offset;
mod step;
mod threshold;

pub use ends::Ends;
pub use fixed::FixedParameters;
pub use offset::StepAndOffset;
pub use step::StepSize;
pub use threshold::Threshold;

use std::{fmt::Debug, sync::Arc};

use crate::{affine::Parameter, error::Result, scheme::Scheme};

/// Which numbers are learned for each group of elements, and how scale and zero point follow from
/// them: what a [`LearnedFakeQuant`](super::LearnedFakeQuant) is built on.
///
/// Everything is said of one group with at most two learned numbers, its *latents*; an array entry
/// that is not learned is ignored. The trait is object-safe, and implemented for `Arc`s.
///
/// ```
/// use lowbit::{Parameter, Result, Scheme, qat::Parametrization};
///
/// /// One step size, learned as its reciprocal.
/// #[derive(Debug)]
/// struct Reciprocal;
///
/// impl Parametrization for Reciprocal {
///     fn count(&self, _: &Scheme) -> usize {
///         1
///     }
///     fn check(&self, _: &Scheme) -> Result<()> {
///         Ok(())
///     }
///     fn latents(&self, _: &Scheme, from: Parameter) -> [f32; 2] {
///         [1.0 / from.scale, 0.0]
///     }
///     fn is_size(&self, _: usize) -> bool {
///         true
///     }
///     fn parameter(&self, _: &Scheme, [reciprocal, _]: [f32; 2], start: Parameter) -> Parameter {
///         Parameter { scale: 1.0 / reciprocal, ..start }
///     }
///     fn gradients(&self, _: &Scheme, [r, _]: [f32; 2], [to_scale, _]: [f32; 2]) -> [f32; 2] {
///         [-to_scale / (r * r), 0.0]
///     }
/// }
/// # let _: std::sync::Arc<dyn Parametrization> = std::sync::Arc::new(Reciprocal);
/// ```
pub trait Parametrization: Debug + Send + Sync {
    /// How many numbers are learned for each group: 0, 1 or 2.
    fn count(&self, scheme: &Scheme) -> usize;

    /// Whether it goes with a scheme.
    ///
    /// # Errors
    /// [`Error::Unsupported`](crate::Error::Unsupported) if it does not.
    fn check(&self, scheme: &Scheme) -> Result<()>;

    /// The latents that a scale and zero point come from.
    fn latents(&self, scheme: &Scheme, from: Parameter) -> [f32; 2];

    /// Whether a latent is a size: positive, and best stepped in parts of itself.
    fn is_size(&self, latent: usize) -> bool;

    /// The nearest latents that make sense together, given finite ones.
    fn nearest_valid(&self, _scheme: &Scheme, latents: [f32; 2]) -> [f32; 2] {
        latents
    }

    /// Scale and zero point, real numbers both, before they are rounded as the scheme stores them;
    /// `start` has those that were given first, for what is not learned.
    fn parameter(&self, scheme: &Scheme, latents: [f32; 2], start: Parameter) -> Parameter;

    /// The gradients of the latents, from those of scale and zero point: the transposed Jacobian of
    /// [`parameter`](Self::parameter).
    fn gradients(&self, scheme: &Scheme, latents: [f32; 2], parameter: [f32; 2]) -> [f32; 2];
}

impl<P: Parametrization + ?Sized> Parametrization for Arc<P> {
    fn count(&self, scheme: &Scheme) -> usize {
        (**self).count(scheme)
    }

    fn check(&self, scheme: &Scheme) -> Result<()> {
        (**self).check(scheme)
    }

    fn latents(&self, scheme: &Scheme, from: Parameter) -> [f32; 2] {
        (**self).latents(scheme, from)
    }

    fn is_size(&self, latent: usize) -> bool {
        (**self).is_size(latent)
    }

    fn nearest_valid(&self, scheme: &Scheme, latents: [f32; 2]) -> [f32; 2] {
        (**self).nearest_valid(scheme, latents)
    }

    fn parameter(&self, scheme: &Scheme, latents: [f32; 2], start: Parameter) -> Parameter {
        (**self).parameter(scheme, latents, start)
    }

    fn gradients(&self, scheme: &Scheme, latents: [f32; 2], parameter: [f32; 2]) -> [f32; 2] {
        (**self).gradients(scheme, latents, parameter)
    }
}
