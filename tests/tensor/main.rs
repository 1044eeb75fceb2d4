//! Quantized tensors, through the public API: packing, rows, what is stored and read back.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod packing;
mod rows;
#[cfg(feature = "serde")]
mod stored;
mod support;
