//! The methods of post-training quantization, through the public API, against independent oracles.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod awq;
mod equalization;
mod hqq;
mod learned;
mod least_squares;
mod norm;
mod pipeline;
mod smooth_quant;
mod support;
mod transform;
