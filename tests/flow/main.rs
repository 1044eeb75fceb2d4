//! Calibration sessions, through the public API: sites, threads, shards, reports.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

mod conversion;
mod hostile;
mod qat;
mod reports;
mod sessions;
mod sites;
mod support;
mod training;
