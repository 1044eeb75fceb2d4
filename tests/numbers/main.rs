//! The definition of quantizing over arrays, through the public API: numbers, layouts, parameters.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests, with small numbers"
)]

mod definition;
mod hostile;
mod laws;
mod layouts;
mod oracle;
mod parameters;
mod support;
mod threads;
