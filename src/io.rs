//! Files of other programs.
//!
//! [`packed`]: the layouts in which other programs store quantized layers.

pub mod packed;
