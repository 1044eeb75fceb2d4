//! Calibrators, through the public API, against brute force.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "helpers of tests, with small numbers"
)]

mod divergence;
mod errors;
mod laws;
mod percentiles;
mod search;
mod support;
mod tensors;
