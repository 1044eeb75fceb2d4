//! Second moments of inputs, and the methods that quantize weights by them.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

mod hessian;
mod laws;
mod support;
mod textbook;
