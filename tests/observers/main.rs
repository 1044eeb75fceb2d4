//! Observers, through the public API: what each gathers, alone, in shards, stored and read back.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests"
)]

mod formulas;
mod histogram;
mod laws;
mod refusals;
#[cfg(feature = "serde")]
mod stored;
mod support;
