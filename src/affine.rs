//! The definition: `x = scale · (q − zero_point)`, for one number; and the parameters of a tensor.
//!
//! Everything else in the crate agrees with the functions of [`scalar`] bit for bit, as ONNX
//! `QuantizeLinear` has them: divide by the scale, round half to even, add the zero point, clamp.

mod blocks;
mod elementwise;
pub(crate) mod loops;
mod parameter;
mod parameters;
mod range;
pub mod scalar;
pub(crate) mod steps;

pub(crate) use blocks::{Fill, Mapped, fill_block, fill_blocks};
pub(crate) use elementwise::{Quantize, fits, same_shape};
pub use elementwise::{
    dequantize, dequantize_into, fake_quantize, fake_quantize_into, quantize, quantize_into,
};
pub use parameter::Parameter;
pub(crate) use parameter::store;
pub use parameters::Affine;
pub(crate) use range::{Extent, extent};
pub use range::{Range, Ranges};
