//! Codes as bits: dense packing of 1 to 16 bits, and small floats.

mod packed;

pub mod minifloat;

pub use packed::PackedCodes;
pub(crate) use packed::write_stream;
