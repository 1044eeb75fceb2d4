//! Codes as bits: dense packing of 1 to 16 bits, small floats, and requantization in fixed point.

mod fixed_point;
mod octets;
mod packed;

pub mod minifloat;

pub use fixed_point::Multiplier;
pub use packed::PackedCodes;
pub(crate) use packed::pack;
