//! The methods of post-training quantization, through the public API, against independent oracles.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod hqq;
mod least_squares;
mod support;
mod transform;
