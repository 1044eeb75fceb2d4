//! GGUF, the file format of ggml: reading versions 2 and 3.
//!
//! A [`Gguf`] reads the header when it is opened, and each tensor when it is asked for, a few
//! megabytes at a time. What the header says is checked before it is believed: opening a file
//! allocates at most a small multiple of its size, whatever it claims, and refuses
//!
//! - counts and lengths that are more than the file could hold,
//! - shapes whose elements or bytes cannot be counted, and rows that are not whole blocks,
//! - tensors outside the file, off the alignment, or over one another,
//! - names that are empty, not UTF-8, or there twice, and arrays of arrays.
//!
//! Source: the specification in ggml's `docs/gguf.md`, and `gguf.cpp` where that is silent.

mod dequantize;
mod header;
mod quantize;
mod tensor_type;
mod value;

use std::{
    io::{Read, Seek},
    path::Path,
};

use ndarray::{ArrayD, IxDyn};

use super::source::{Source, zeroed};
use crate::error::{Error, Result};
pub use dequantize::dequantize;
use header::{Description, Header};
pub use quantize::quantize;
pub use tensor_type::TensorType;
pub use value::{Array, Value};

/// A GGUF file, open for reading.
///
/// Shapes are in the order of `ndarray`, outermost axis first: a weight is `[out, in]`.
///
/// ```
/// use lowbit::io::gguf::{Gguf, Value};
///
/// // a file of one name, and no tensor
/// let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0".to_vec();
/// file.extend(b"\x14\0\0\0\0\0\0\0general.architecture\x08\0\0\0\x05\0\0\0\0\0\0\0llama");
/// let gguf = Gguf::from_reader(std::io::Cursor::new(file))?;
/// assert_eq!(gguf.value("general.architecture"), Some(Value::String("llama")));
/// assert_eq!(gguf.names().len(), 0);
/// assert!(gguf.tensor("token_embd.weight").is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct Gguf {
    source: Source,
    header: Header,
}

impl Gguf {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is not a GGUF file of version 2
    /// or 3 in little-endian order, or says anything of the kind listed [above](self).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_source(Source::open(path.as_ref())?)
    }

    /// Opens what another reader holds, such as bytes in memory in a [`Cursor`](std::io::Cursor).
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_reader(reader: impl Read + Seek + Send + 'static) -> Result<Self> {
        Self::from_source(Source::new(reader, "reader".into())?)
    }

    fn from_source(source: Source) -> Result<Self> {
        let header = Header::read(&source)?;
        Ok(Self { source, header })
    }

    /// The metadata, in the order of the file.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        self.header.metadata()
    }

    /// The value of a name in the metadata.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<Value<'_>> {
        self.header.value(name)
    }

    /// The names of the tensors, in the order of the file.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.tensor_names()
    }

    /// Whether there is a tensor of that name.
    #[must_use]
    pub fn contains(&self, name: &str) -> bool {
        self.header.tensor(name).is_some()
    }

    /// The element type of a tensor.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn tensor_type(&self, name: &str) -> Result<TensorType> {
        Ok(self.describe(name)?.kind)
    }

    /// The shape of a tensor, outermost axis first.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.describe(name)?.shape)
    }

    /// The bytes of a tensor, as they are in the file.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Io`] if the file cannot be read.
    pub fn blocks(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.describe(name)?;
        self.source.read_vec(tensor.offset, tensor.bytes)
    }

    /// A tensor in floats, as [`dequantize`] has them.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Unsupported`] for types that are not read;
    /// [`Error::TooLarge`] if the floats do not fit in memory; [`Error::Io`] if the file cannot be
    /// read.
    pub fn tensor(&self, name: &str) -> Result<ArrayD<f32>> {
        let tensor = self.describe(name)?;
        let (len, size) = (tensor.kind.block_len(), tensor.kind.block_bytes());
        // An empty piece, so that a type which is not read is refused before memory is taken.
        dequantize::dequantize_into(tensor.kind, &[], &mut [])?;
        let mut floats = zeroed(tensor.bytes / size * len)?;
        self.source
            .in_pieces(tensor.offset, tensor.bytes, size, |start, bytes| {
                let floats = &mut floats[start / size * len..][..bytes.len() / size * len];
                dequantize::dequantize_into(tensor.kind, bytes, floats)
            })?;
        ArrayD::from_shape_vec(IxDyn(&tensor.shape), floats).map_err(Error::other)
    }

    fn describe(&self, name: &str) -> Result<Description> {
        self.header.tensor(name).ok_or_else(|| Error::NoSuchTensor {
            name: name.into(),
            tensors: self.header.tensor_names().len(),
        })
    }
}
