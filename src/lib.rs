#![doc = include_str!("../README.md")]
#![cfg_attr(
    test,
    allow(
        clippy::cast_possible_truncation,
        clippy::cast_possible_wrap,
        reason = "tests compute with small numbers"
    )
)]

pub mod affine;
#[cfg(feature = "burn")]
pub mod burn;
pub mod calibrate;
#[cfg(feature = "candle")]
pub mod candle;
pub mod codes;
mod element;
mod error;
pub mod flow;
mod groups;
pub mod io;
pub mod kernel;
mod linalg;
pub mod observe;
mod parallel;
pub mod ptq;
pub mod qat;
mod random;
mod scheme;
mod simd;
mod tensor;

/// The traits, for `use lowbit::prelude::*`: calls on arrays of any dimension are methods of
/// extension traits, which must be in scope.
///
/// ```
/// use lowbit::{RoundToNearest, Scheme, prelude::*};
/// let weights = ndarray::array![[1.0_f32, -2.0], [3.0, 4.0]];
/// let quantized = RoundToNearest::new(Scheme::int(8).build()?).quantize(&weights)?;
/// assert_eq!(quantized.shape(), [2, 2]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub mod prelude {
    #[doc(no_inline)]
    pub use crate::{
        Calibrator, FakeQuant, FakeQuantExt, Observer, ObserverExt, Quantizer, QuantizerExt,
        StraightThroughEstimator,
    };
}

pub use affine::{
    Affine, Parameter, Range, Ranges, dequantize, dequantize_into, fake_quantize,
    fake_quantize_into, quantize, quantize_into,
};
pub use calibrate::Calibrator;
pub use element::{Code, Element, Real};
pub use error::{Error, Result};
pub use groups::{Groups, Run, Runs};
pub use kernel::{
    Activation, Activations, PackedLinear, Requantization, Workspace, matmul_integer,
};
pub use observe::{Observer, ObserverExt};
pub use ptq::{Gptq, Quantizer, QuantizerExt, RoundToNearest};
pub use qat::{FakeQuant, FakeQuantExt, StraightThroughEstimator};
pub use scheme::{
    FloatFormat, Format, Granularity, IntFormat, Mapping, ScaleKind, Scheme, SchemeBuilder,
};
pub use simd::Isa;
pub use tensor::QTensor;
