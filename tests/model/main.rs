//! Models quantized block by block, through the public API.
#![expect(
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    reason = "helpers of tests, with small numbers"
)]

mod hostile;
mod interruption;
mod joint_learning;
mod learning;
mod recipes;
mod runs;
mod support;
