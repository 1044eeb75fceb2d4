//! Neural-network quantization.

pub mod affine;
pub mod calibrate;
pub mod codes;
mod element;
mod error;
pub mod flow;
mod groups;
pub mod kernel;
pub mod observe;
mod parallel;
pub mod ptq;
pub mod qat;
mod scheme;
mod simd;
mod tensor;

pub use affine::{
    Affine, Parameter, Range, Ranges, dequantize, dequantize_into, fake_quantize,
    fake_quantize_into, quantize, quantize_into,
};
pub use calibrate::Calibrator;
pub use element::{Code, Element, Real};
pub use error::{Error, Result};
pub use groups::{Groups, Run, Runs};
pub use kernel::{Activation, Activations, PackedLinear, Requantization, matmul_integer};
pub use observe::{Observer, ObserverExt};
pub use ptq::{Quantizer, QuantizerExt, RoundToNearest};
pub use qat::{FakeQuant, FakeQuantExt, StraightThroughEstimator};
pub use scheme::{
    FloatFormat, Format, Granularity, IntFormat, Mapping, ScaleKind, Scheme, SchemeBuilder,
};
pub use simd::Isa;
pub use tensor::QTensor;
