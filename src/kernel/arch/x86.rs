//! Vectors of x86-64.
#![allow(
    unsafe_code,
    reason = "instructions that not every machine has; each block says what proves them"
)]

pub(super) mod amx;
mod bits256;
mod bits512;
mod lanes256;
mod lanes512;
