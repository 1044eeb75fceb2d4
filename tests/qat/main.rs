//! Quantization-aware training, through the public API.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

mod batch_norm;
mod estimators;
mod gradients;
mod hostile;
mod laws;
mod learned;
mod oscillations;
mod parameters;
mod proximal;
mod stabilisers;
mod support;
mod threads;
