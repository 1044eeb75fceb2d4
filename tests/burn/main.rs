//! The adapter for burn: the same bits as without a framework and as in candle, and errors where it
//! has them. What burn's optimizers do with it is tested in `examples/qat_burn`.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod candle;
mod errors;
mod fake_quant;
mod layers;
mod passes;
mod support;
