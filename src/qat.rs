//! Quantization-aware training: fake quantization in the forward pass, an estimator of its
//! derivative in the backward pass.
//!
//! Kinds of [`FakeQuant`], by where the parameters come from: learned, scale by scale
//! ([`AffineFakeQuant`]) or as what a [`Parametrization`] says ([`LearnedFakeQuant`]); from what an
//! observer saw ([`ObservedFakeQuant`]); or from each input itself ([`DynamicFakeQuant`]). Each takes
//! any [`StraightThroughEstimator`]. The methods of papers, as parts of these:
//!
//! | method | parameters | estimator |
//! |---|---|---|
//! | LSQ | [`StepSize`] | [`Lsq`] |
//! | LSQ+ | [`StepAndOffset`] | [`Lsq`] |
//! | learned ranges | [`Ends`] | [`Clipped`] |
//! | PACT | [`Threshold`] | [`Pact`] |
//! | DoReFa | fixed; weights through tanh, [`Dorefa`] | the identity; [`Pact`] for activations |
//! | EWGS | any | [`Ewgs`], with [`hutchinson_trace`] |
//! | QuEST | of each input, [`GaussianRange`] | [`TrustMask`] |
//! | ParetoQ, 1 to 2 bits | [`Threshold`] | [`StretchedElastic`] |
//! | BitNet b1.58 | of each input, [`BitNet`] | [`Plain`] |
//! | BinaryRelax, PARQ | of each input; [`Proximal`], as a fake-quant [`ProximalFakeQuant`] | the identity |
//!
//! Around them: a [`Schedule`] says what is on at which step; [`Oscillations`] tracks and freezes
//! weights that jump between two codes, and [`dampening_loss`] keeps them from it;
//! [`FoldedBatchNorm`] trains a layer with its norm folded in; a [`StepGuard`] leaves out steps that
//! are not finite. [`flow::QatPreparation`](crate::flow::QatPreparation) makes the fake-quants of a
//! whole model from a recipe.

mod affine;
mod backward;
mod batch_norm;
mod bit_net;
mod clipped;
mod dampening;
mod dorefa;
mod dynamic;
mod estimator;
mod ewgs;
mod hutchinson;
mod learned;
mod lsq;
mod observed;
mod oscillations;
mod pact;
mod parametrization;
mod plain;
mod point;
mod proximal;
mod proximal_fake_quant;
mod schedule;
mod segment;
#[cfg(any(feature = "burn", feature = "candle"))]
mod shared;
mod step_guard;
mod stretched_elastic;
mod sums;
mod torch_learnable;
mod trust_mask;

pub use affine::AffineFakeQuant;
pub use batch_norm::{BatchNormGradients, BatchNormTape, FoldedBatchNorm};
pub use bit_net::{BitNet, MeanMagnitude};
pub use clipped::Clipped;
pub use dampening::dampening_loss;
pub use dorefa::Dorefa;
pub use dynamic::DynamicFakeQuant;
pub use estimator::{Partials, Point, StraightThroughEstimator};
pub use ewgs::Ewgs;
pub use hutchinson::hutchinson_trace;
pub use learned::LearnedFakeQuant;
pub use lsq::Lsq;
pub use observed::ObservedFakeQuant;
pub use oscillations::Oscillations;
pub use pact::Pact;
pub use parametrization::{
    Ends, FixedParameters, Parametrization, StepAndOffset, StepSize, Threshold,
};
pub use plain::Plain;
pub use proximal::{Proximal, ProximalMap};
pub use proximal_fake_quant::ProximalFakeQuant;
pub use schedule::{ParameterRole, Schedule, Stage};
pub use segment::Segment;
#[cfg(any(feature = "burn", feature = "candle"))]
pub(crate) use shared::{FlatGradients, SharedFakeQuant, same_bits};
pub use step_guard::StepGuard;
pub use stretched_elastic::{ElasticBits, StretchedElastic};
pub use torch_learnable::TorchLearnable;
pub use trust_mask::{GaussianRange, TrustMask};

use std::fmt::Debug;

use ndarray::{Array, ArrayRef, ArrayViewD, Dimension, IxDyn};

use crate::{
    affine::{Affine, same_shape},
    error::{Error, Result},
    tensor::QTensor,
};

/// The gradients of a loss with respect to what went into a fake quantization.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, Clipped, Gradients};
/// use ndarray::{Ix1, array};
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?; // −8 to 7
/// let fake = AffineFakeQuant::new(affine, Clipped);
/// let gradients: Gradients<Ix1> = fake.backward(&array![0.75_f32, 50.0], &array![1.0, 2.0])?;
/// assert_eq!(gradients.input, array![1.0, 0.0]);
/// assert_eq!(gradients.scale, [0.25 * 1.0 + 7.0 * 2.0]);
/// assert_eq!(gradients.zero_point, [-2.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients<D: Dimension = IxDyn> {
    /// With respect to the input, in its shape.
    pub input: Array<f32, D>,
    /// With respect to each scale, in row-major order of the parameters; empty where scales are not
    /// learned.
    pub scale: Vec<f32>,
    /// With respect to each zero point, in row-major order of the parameters; empty where zero
    /// points are not learned, 0 for small floats, which have none.
    pub zero_point: Vec<f32>,
}

/// Quantizes and dequantizes in the forward pass of training, and estimates the gradient in the
/// backward pass.
///
/// The law: what [`forward_view`](Self::forward_view) returns is, bit for bit, what
/// [`convert_view`](Self::convert_view) of the same input dequantizes to, unless fake quantization is
/// switched off. Codes have no sign of zero: what rounds to it from below is 0.0, and not −0.0.
///
/// The trait is object-safe: implementors write the `_view` methods, callers use
/// [`FakeQuantExt`], on a type or on `dyn FakeQuant` alike.
///
/// ```
/// use lowbit::{Affine, FakeQuant, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, Clipped, DynamicFakeQuant};
/// use ndarray::array;
///
/// // one for weights, one for activations "per token"
/// let affine = Affine::symmetric(Scheme::int(4).per_axis(0).build()?, &[2], vec![0.5, 0.25])?;
/// let per_token = Scheme::int(8).asymmetric().per_row().build()?;
/// let sites: Vec<Box<dyn FakeQuant>> = vec![
///     Box::new(AffineFakeQuant::new(affine, Clipped)),
///     Box::new(DynamicFakeQuant::new(per_token, Clipped)),
/// ];
///
/// let x = array![[0.3_f32, -9.0], [0.1, 0.2]];
/// for site in &sites {
///     let y = site.forward(&x)?;
///     let gradients = site.backward(&x, &(&y - 1.0))?;
///     assert_eq!(gradients.input.dim(), x.dim());
///     assert_eq!(site.convert(&x)?.dequantize::<f32>(), y.into_dyn());
/// }
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait FakeQuant: Debug + Send + Sync {
    /// Shows the input to what chooses the range, if anything does; called before the forward pass
    /// of a training step.
    ///
    /// # Errors
    /// Those of the observer and the calibrator inside.
    fn observe_view(&mut self, _input: ArrayViewD<'_, f32>) -> Result<()> {
        Ok(())
    }

    /// The input moved onto the grid, in the same shape. NaN stays NaN, so that divergence is seen;
    /// infinities saturate.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the input has other parameters.
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<Array<f32, IxDyn>>;

    /// The gradients, from the input of the forward pass and the gradient of its output.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the two differ in shape or have
    /// other parameters.
    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients>;

    /// The quantized tensor that training computed with.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a NaN;
    /// [`Error::ShapeMismatch`] if the input has other parameters.
    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor>;

    /// The scales and zero points that the passes compute with for this input.
    ///
    /// # Errors
    /// Those of [`convert_view`](Self::convert_view).
    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        Ok(self.convert_view(input)?.affine())
    }

    /// The numbers that an optimizer learns, in the form it steps them; none where nothing is
    /// learned. They are all the state that training changes, apart from observers.
    fn parameters(&self) -> Vec<f32> {
        vec![]
    }

    /// The gradients of [`parameters`](Self::parameters), in their order, from those that a backward
    /// pass gave for scales and zero points.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for other numbers of gradients.
    fn parameter_gradients(&self, _scale: &[f32], _zero_point: &[f32]) -> Result<Vec<f32>> {
        Ok(vec![])
    }

    /// Sets [`parameters`](Self::parameters), brought back to where scales are positive.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for another number of them;
    /// [`Error::NonFinite`], [`Error::InvalidScale`] or [`Error::InvalidZeroPoint`] for one that is
    /// not finite. The parameters are then as before.
    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        same_shape("learned parameters", &[0], &[parameters.len()])
    }

    /// Begins a step of the training, by its number; without effect where nothing goes by it.
    fn begin_step(&mut self, _step: u64) {}

    /// Switches fake quantization on or off: off, the forward pass returns its input and the
    /// backward pass the gradient.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if it has no switch, and shall be off.
    fn switch(&mut self, enabled: bool) -> Result<()> {
        if enabled {
            return Ok(());
        }
        Err(Error::Unsupported {
            operation: "switching fake quantization off",
            expected: "a fake-quant with a switch",
            got: format!("{self:?}"),
        })
    }

    /// Freezes the range that observing chooses, or lets it move again; without effect where nothing
    /// is observed.
    fn freeze(&mut self, _frozen: bool) {}

    /// Goes on from other parameters, under their scheme: how bits are annealed.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if the scheme is given once and for all;
    /// [`Error::ShapeMismatch`] or [`Error::Mismatch`] for parameters
    /// of another granularity.
    fn restart(&mut self, _affine: &Affine) -> Result<()> {
        Err(Error::Unsupported {
            operation: "fake quantization under another scheme",
            expected: "a fake-quant whose scheme may change",
            got: format!("{self:?}"),
        })
    }
}

impl<F: FakeQuant + ?Sized> FakeQuant for Box<F> {
    fn observe_view(&mut self, input: ArrayViewD<'_, f32>) -> Result<()> {
        (**self).observe_view(input)
    }

    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<Array<f32, IxDyn>> {
        (**self).forward_view(input)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        (**self).backward_view(input, gradient)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        (**self).convert_view(input)
    }

    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        (**self).affine_view(input)
    }

    fn parameters(&self) -> Vec<f32> {
        (**self).parameters()
    }

    fn parameter_gradients(&self, scale: &[f32], zero_point: &[f32]) -> Result<Vec<f32>> {
        (**self).parameter_gradients(scale, zero_point)
    }

    fn set_parameters(&mut self, parameters: &[f32]) -> Result<()> {
        (**self).set_parameters(parameters)
    }

    fn begin_step(&mut self, step: u64) {
        (**self).begin_step(step);
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        (**self).switch(enabled)
    }

    fn freeze(&mut self, frozen: bool) {
        (**self).freeze(frozen);
    }

    fn restart(&mut self, affine: &Affine) -> Result<()> {
        (**self).restart(affine)
    }
}

/// The calls of a [`FakeQuant`] on arrays of any dimension and layout.
///
/// Every fake-quant has them, trait objects too; there is nothing to implement. They are not methods
/// of `FakeQuant` itself because generic methods are not for trait objects, and an inherent method of
/// `dyn FakeQuant` with the same name would make each call ambiguous.
///
/// ```
/// use lowbit::{FakeQuant, FakeQuantExt, Scheme};
/// use lowbit::qat::{Clipped, DynamicFakeQuant};
/// use ndarray::array;
///
/// let fake = DynamicFakeQuant::new(Scheme::int(8).build()?, Clipped);
/// let x = array![[0.5_f32, -1.0], [0.25, 127.0]];
/// let object: &dyn FakeQuant = &fake;
/// assert_eq!(fake.forward(&x)?, object.forward(&x.t())?.t());
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait FakeQuantExt: FakeQuant {
    /// [`observe_view`](FakeQuant::observe_view) for an input of any dimension and layout.
    ///
    /// # Errors
    /// Those of [`observe_view`](FakeQuant::observe_view).
    fn observe<D: Dimension>(&mut self, input: &ArrayRef<f32, D>) -> Result<()> {
        self.observe_view(input.view().into_dyn())
    }

    /// [`forward_view`](FakeQuant::forward_view) for an input of any dimension and layout.
    ///
    /// # Errors
    /// Those of [`forward_view`](FakeQuant::forward_view).
    fn forward<D: Dimension>(&self, input: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        let output = self.forward_view(input.view().into_dyn())?;
        like(input, "output of the fake quantization", output)
    }

    /// [`backward_view`](FakeQuant::backward_view) for an input of any dimension and layout.
    ///
    /// # Errors
    /// Those of [`backward_view`](FakeQuant::backward_view).
    fn backward<D: Dimension>(
        &self,
        input: &ArrayRef<f32, D>,
        gradient: &ArrayRef<f32, D>,
    ) -> Result<Gradients<D>> {
        let (x, gradient) = (input.view().into_dyn(), gradient.view().into_dyn());
        let gradients = self.backward_view(x, gradient)?;
        Ok(Gradients {
            input: like(input, "gradient of the input", gradients.input)?,
            scale: gradients.scale,
            zero_point: gradients.zero_point,
        })
    }

    /// [`convert_view`](FakeQuant::convert_view) for an input of any dimension and layout.
    ///
    /// # Errors
    /// Those of [`convert_view`](FakeQuant::convert_view).
    fn convert<D: Dimension>(&self, input: &ArrayRef<f32, D>) -> Result<QTensor> {
        self.convert_view(input.view().into_dyn())
    }
}

impl<F: FakeQuant + ?Sized> FakeQuantExt for F {}

/// An array in the dimension of the input; another crate's implementation may have got its shape
/// wrong.
fn like<D: Dimension>(
    input: &ArrayRef<f32, D>,
    what: &'static str,
    array: Array<f32, IxDyn>,
) -> Result<Array<f32, D>> {
    same_shape(what, input.shape(), array.shape())?;
    array.into_dimensionality().map_err(crate::Error::other)
}
