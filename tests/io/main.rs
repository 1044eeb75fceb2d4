//! Files, through the public API.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "helpers of tests, with small numbers"
)]

mod cases;
#[cfg(feature = "safetensors")]
mod checkpoints;
#[cfg(feature = "gguf")]
mod gguf_blocks;
#[cfg(feature = "gguf")]
mod gguf_cases;
#[cfg(feature = "gguf")]
mod gguf_checkpoints;
#[cfg(feature = "gguf")]
mod gguf_file;
#[cfg(feature = "gguf")]
mod gguf_files;
mod packed_layers;
#[cfg(feature = "safetensors")]
mod safetensors_files;
