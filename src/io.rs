//! Files of other programs.
//!
//! [`packed`]: the layouts in which other programs store quantized layers.

#[cfg(feature = "gguf")]
pub mod gguf;
pub mod packed;
#[cfg(feature = "gguf")]
mod source;
