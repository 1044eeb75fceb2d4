//! Quantization-aware training: fake quantization in the forward pass, an estimator of its
//! derivative in the backward pass.
//!
//! Three kinds of [`FakeQuant`], by where the parameters come from: learned
//! ([`AffineFakeQuant`]), from what an observer saw ([`ObservedFakeQuant`]), or from each input
//! itself ([`DynamicFakeQuant`]). Each takes any [`StraightThroughEstimator`].

mod affine;
mod backward;
mod clipped;
mod dynamic;
mod estimator;
mod lsq;
mod observed;
mod plain;
mod point;
mod segment;
mod sums;
mod torch_learnable;

pub use affine::AffineFakeQuant;
pub use clipped::Clipped;
pub use dynamic::DynamicFakeQuant;
pub use estimator::{Partials, Point, StraightThroughEstimator};
pub use lsq::Lsq;
pub use observed::ObservedFakeQuant;
pub use plain::Plain;
pub use segment::Segment;
pub use torch_learnable::TorchLearnable;

use std::fmt::Debug;

use ndarray::{Array, ArrayRef, ArrayViewD, Dimension, IxDyn};

use crate::{affine::same_shape, error::Result, tensor::QTensor};

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
/// switched off.
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
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the input has other parameters.
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<Array<f32, IxDyn>>;

    /// The gradients, from the input of the forward pass and the gradient of its output.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the two differ in shape or have
    /// other parameters.
    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients>;

    /// The quantized tensor that training computed with.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for a NaN;
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the input has other parameters.
    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor>;
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
