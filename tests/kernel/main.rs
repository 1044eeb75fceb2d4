//! Packed layers, through the public API: every kernel against a scalar reference.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests, with small numbers"
)]

mod absurd;
mod epilogues;
mod fixed_point;
mod float;
mod hostile;
mod integer;
mod reference;
mod stretches;
mod support;
mod threads;
mod workspace;
