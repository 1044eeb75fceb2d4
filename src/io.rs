//! Files: models in, tensor by tensor.
//!
//! `open` takes a path to a model in any format and gives a `Checkpoint`: its sizes, and its tensors
//! in floats by the names that Hugging Face's libraries use. Beneath are the files themselves,
//! `gguf::Gguf` (feature `gguf`) and `safetensors::Safetensors` (feature `safetensors`), and the
//! layouts in which other programs store quantized layers, [`packed`].
//!
//! Files are not trusted. Whatever a file says is checked before anything is allocated for it, and
//! what does not hold is an [`Error::Format`](crate::Error::Format) with its place in the file.
//! Tensors are read when they are asked for, by position: nothing is mapped into memory, so that a
//! file which shrinks meanwhile is an [`Error::Io`](crate::Error::Io) and not a fault of the process.

#[cfg(any(feature = "gguf", feature = "safetensors"))]
mod checkpoint;
#[cfg(any(feature = "gguf", feature = "safetensors"))]
mod config;
#[cfg(feature = "gguf")]
pub mod gguf;
#[cfg(feature = "safetensors")]
mod json;
pub mod packed;
#[cfg(feature = "safetensors")]
pub mod safetensors;
#[cfg(any(feature = "gguf", feature = "safetensors"))]
mod source;

#[cfg(any(feature = "gguf", feature = "safetensors"))]
pub use checkpoint::{Checkpoint, open};
#[cfg(feature = "gguf")]
pub use checkpoint::{GgufCheckpoint, gguf_name, hugging_face_name};
#[cfg(feature = "safetensors")]
pub use checkpoint::{PackedLayout, SafetensorsCheckpoint};
#[cfg(any(feature = "gguf", feature = "safetensors"))]
pub use config::{LlamaConfig, RopeScaling};
