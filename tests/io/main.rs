//! Files, through the public API.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests, with small numbers"
)]

mod cases;
mod packed_layers;
