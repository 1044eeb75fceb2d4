//! Safetensors files.
//!
//! A [`Safetensors`] reads the header when it is opened, and each tensor when it is asked for, a few
//! megabytes at a time. What the header says is checked before it is believed: opening a file
//! allocates at most a small multiple of its size, whatever it claims, and refuses
//!
//! - a header beyond the file or 100 MB, or that is not the JSON it should be,
//! - shapes that cannot be counted, or take other bytes than their offsets leave,
//! - tensors outside the file, over one another, or with gaps between; bytes that no tensor has,
//! - names that are there twice, and element types that are not known.
//!
//! Source: the format's description in the `safetensors` repository, whose reference reader makes
//! the same demands but for names that are there twice.

mod element;
mod header;

use std::{
    io::{Read, Seek},
    path::Path,
};

use ndarray::{ArrayD, IxDyn};

use super::source::{Source, zeroed};
use crate::error::{Error, Result};
pub use element::ElementType;
use header::{Description, Header};

/// One safetensors file, open for reading.
///
/// ```
/// use lowbit::io::safetensors::Safetensors;
///
/// let header = br#"{"w": {"dtype": "F16", "shape": [1, 2], "data_offsets": [0, 4]}}"#;
/// let mut file = (header.len() as u64).to_le_bytes().to_vec();
/// file.extend(header);
/// file.extend([0x00, 0x3c, 0x00, 0xc0]); // 1 and −2
/// let file = Safetensors::from_reader(std::io::Cursor::new(file))?;
/// assert_eq!(file.names().collect::<Vec<_>>(), ["w"]);
/// assert_eq!(file.tensor("w")?, ndarray::array![[1.0, -2.0]].into_dyn());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct Safetensors {
    source: Source,
    header: Header,
}

impl Safetensors {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read; [`Error::Format`] if it is not a safetensors file, or
    /// says anything of the kind listed [above](self).
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

    /// The names of the tensors, in the order of their data.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.header.tensors().iter().map(|tensor| &*tensor.name)
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
    pub fn element_type(&self, name: &str) -> Result<ElementType> {
        Ok(self.describe(name)?.kind)
    }

    /// The shape of a tensor.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn shape(&self, name: &str) -> Result<Vec<usize>> {
        Ok(self.describe(name)?.shape.to_vec())
    }

    /// The bytes of a tensor, little-endian, as they are in the file.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Io`] if the file cannot be read.
    pub fn bytes(&self, name: &str) -> Result<Vec<u8>> {
        let tensor = self.describe(name)?;
        self.source.read_vec(tensor.start, tensor.bytes)
    }

    /// A tensor of F32, F16 or BF16 in floats, exactly.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Unsupported`] for other element types;
    /// [`Error::TooLarge`] if the floats do not fit in memory; [`Error::Io`] if the file cannot be
    /// read.
    pub fn tensor(&self, name: &str) -> Result<ArrayD<f32>> {
        self.read(name, element::to_floats)
    }

    /// A tensor of integers of any type, exactly.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Unsupported`] for other element types and for values of
    /// 2⁶³ and more; [`Error::TooLarge`] if the integers do not fit in memory; [`Error::Io`] if the
    /// file cannot be read.
    pub fn integers(&self, name: &str) -> Result<ArrayD<i64>> {
        self.read(name, element::to_integers)
    }

    fn read<T: Clone + Default>(
        &self,
        name: &str,
        convert: fn(ElementType, &[u8], &mut [T]) -> Result<()>,
    ) -> Result<ArrayD<T>> {
        let tensor = self.describe(name)?;
        // Nothing, so that a type which is not read is refused before memory is taken.
        convert(tensor.kind, &[], &mut [])?;
        let size = tensor.kind.bits() / 8;
        let mut elements = zeroed(tensor.bytes / size)?;
        self.source
            .in_pieces(tensor.start, tensor.bytes, size, |start, bytes| {
                let elements = &mut elements[start / size..][..bytes.len() / size];
                convert(tensor.kind, bytes, elements)
            })?;
        ArrayD::from_shape_vec(IxDyn(&tensor.shape), elements).map_err(Error::other)
    }

    fn describe(&self, name: &str) -> Result<&Description> {
        self.header.tensor(name).ok_or_else(|| Error::NoSuchTensor {
            name: name.into(),
            tensors: self.header.tensors().len(),
        })
    }
}
