//! Post-training quantization: float weights to quantized tensors, one method a file.
//!
//! [`Quantizer`]s choose codes; [`Transform`]s change the basis of a layer's inputs so that there is
//! less to lose, and act alike on weights, activations, Hessians and the layer before. They compose:
//!
//! ```
//! use lowbit::{QuantizerExt, Scheme, observe::Hessian};
//! use lowbit::ptq::{QuantEase, Rotation, SmoothQuant, TransformExt};
//! use ndarray::{Array2, Axis};
//!
//! // a layer, [out, in], and some of its inputs, of which one channel is large
//! let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32).sin();
//! let w = Array2::from_shape_fn((32, 64), |(o, i)| wave(i, o));
//! let x = Array2::from_shape_fn((300, 64), |(t, i)| wave(t, i) * if i == 5 { 20.0 } else { 1.0 });
//! let input_max = x.mapv(f32::abs).fold_axis(Axis(0), 0.0_f32, |a, b| a.max(*b));
//! let mut hessian = Hessian::new(64)?;
//! hessian.observe(&x)?;
//! let scheme = Scheme::int(3).per_group(32).build()?;
//!
//! // smooth, rotate, fit the ranges, learn the codes
//! let smooth = SmoothQuant::new(0.5)?.scales(&input_max, &[w.view()])?;
//! let transform = smooth.then(Rotation::hadamard(64)?.with_signs(7))?;
//! let hessian = transform.hessian(&hessian)?;
//! let quantized = QuantEase::new(scheme, &hessian).quantize(&transform.weights(&w)?)?;
//!
//! // the layer runs on transformed inputs
//! let image = quantized.dequantize::<f32>().into_dimensionality::<ndarray::Ix2>().unwrap();
//! let (y, exact) = (transform.inputs(&x)?.dot(&image.t()), x.dot(&w.t()));
//! let square = |y: Array2<f32>| y.mapv(|y| y * y).sum();
//! assert!(square(y - &exact) < 0.02 * square(exact));
//! # Ok::<(), lowbit::Error>(())
//! ```

mod ada_round;
mod awq;
mod awq_clip;
mod bias_correction;
mod compensation;
mod equalization;
pub mod gptq;
mod hqq;
mod layer_inputs;
mod norm;
mod quant_ease;
mod round_to_nearest;
mod rounding;
mod search;
mod sign_round;
mod smooth_quant;
mod transform;

pub use ada_round::AdaRound;
pub use awq::{Awq, AwqBalance};
pub use awq_clip::AwqClip;
pub use bias_correction::BiasCorrection;
pub use compensation::Compensation;
pub use equalization::{Equalization, absorb_high_bias};
pub use gptq::Gptq;
pub use hqq::Hqq;
pub use layer_inputs::LayerInputs;
pub use norm::{NormParameters, without_mean};
pub use quant_ease::QuantEase;
pub use round_to_nearest::RoundToNearest;
pub use sign_round::{RoundingLearner, SignRound};
pub use smooth_quant::{SmoothQuant, SmoothQuantSearch};
pub use transform::{Chain, ChannelScales, Hadamard, Rotation, Side, Transform, TransformExt};

use std::fmt::Debug;

use ndarray::{ArrayRef, ArrayViewD, Dimension};

use crate::{
    affine::{Affine, Parameter},
    calibrate::map_groups,
    element::Real,
    error::{Error, Result},
    groups::Groups,
    scheme::Scheme,
    tensor::QTensor,
};

/// A method that turns a float tensor into a quantized one.
///
/// The trait is object-safe: implementors write [`quantize_view`](Self::quantize_view), callers use
/// [`QuantizerExt::quantize`], on a type or on `dyn Quantizer` alike.
///
/// ```
/// use lowbit::{Affine, QTensor, Quantizer, QuantizerExt, Result, RoundToNearest, Scheme};
/// use ndarray::{ArrayViewD, array};
///
/// /// Keeps the sign of each weight alone, times the mean magnitude.
/// #[derive(Debug)]
/// struct Binary;
///
/// impl Quantizer for Binary {
///     fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
///         let scale = 2.0 * weights.mapv(f32::abs).mean().unwrap_or(1.0);
///         let scheme = Scheme::int(1).unsigned().asymmetric_float().build()?;
///         QTensor::quantize(&weights, &Affine::per_tensor(scheme, scale, 0.5)?)
///     }
/// }
///
/// let methods: [Box<dyn Quantizer>; 2] =
///     [Box::new(Binary), Box::new(RoundToNearest::new(Scheme::int(4).build()?))];
/// for method in &methods {
///     let quantized = method.quantize(&array![[1.0_f32, -3.0], [2.0, 2.0]])?;
///     assert_eq!(quantized.shape(), [2, 2]);
/// }
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Quantizer: Debug + Send + Sync {
    /// The quantized tensor, of the same shape.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a NaN or an infinity in the weights, and
    /// those of the method.
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor>;
}

/// The call of a [`Quantizer`] on arrays of any dimension and layout. Every quantizer has it, trait
/// objects too; there is nothing to implement.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme};
/// use ndarray::array;
/// let method = RoundToNearest::new(Scheme::int(8).per_axis(0).build()?);
/// let weights = array![[0.5_f32, -1.27], [2.54, 0.0]];
/// assert_eq!(method.quantize(&weights)?.affine().scale(), [0.01, 0.02]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait QuantizerExt: Quantizer {
    /// The quantized tensor, of the same shape.
    ///
    /// # Errors
    /// Those of [`quantize_view`](Quantizer::quantize_view).
    fn quantize<D: Dimension>(&self, weights: &ArrayRef<f32, D>) -> Result<QTensor> {
        self.quantize_view(weights.view().into_dyn())
    }
}

impl<Q: Quantizer + ?Sized> QuantizerExt for Q {}

impl<Q: Quantizer + ?Sized> Quantizer for Box<Q> {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        (**self).quantize_view(weights)
    }
}

/// The parameters that `fit(values)` finds for each group of a tensor, given that the scheme can
/// store them; a group of no elements gets those of the range `[0, 0]`.
fn affine_of_groups<D: Dimension>(
    weights: &ArrayRef<f32, D>,
    scheme: &Scheme,
    fit: impl Fn(&[f32]) -> Result<Parameter> + Send + Sync,
) -> Result<Affine> {
    let groups = Groups::new(weights.shape(), scheme.granularity())?;
    let nothing = Parameter::from_range(scheme, crate::affine::Range::new(0.0, 0.0)?)?;
    let parameters = map_groups(weights, &groups, None, |values, _| {
        if values.is_empty() {
            Ok(nothing)
        } else {
            fit(values)
        }
    })?;
    let scale = parameters.iter().map(|parameter| parameter.scale).collect();
    let zero_point = parameters.iter().map(|parameter| parameter.zero_point);
    Affine::new(
        *scheme,
        &groups.parameter_shape(),
        scale,
        zero_point.collect(),
    )
}

/// The first value that is not finite, as an error.
fn check_finite<T: Real, D: Dimension>(what: &'static str, x: &ArrayRef<T, D>) -> Result<()> {
    let Some(index) = x.iter().position(|value| !value.is_finite()) else {
        return Ok(());
    };
    let mut rest = index;
    let mut position = x.shape().to_vec();
    for entry in position.iter_mut().rev() {
        let extent = (*entry).max(1);
        (*entry, rest) = (rest % extent, rest / extent);
    }
    Err(Error::NonFinite {
        what,
        expected: "finite numbers",
        position,
        value: x.iter().nth(index).map_or(f64::NAN, |&value| value.into()),
    })
}
