//! Quantization-aware training, through the public API.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

mod gradients;
mod hostile;
mod laws;
mod parameters;
mod support;
mod threads;
