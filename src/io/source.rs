//! Bytes read by position, from a file or from memory.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
    sync::{Mutex, PoisonError},
};

use crate::error::{Error, Result};

/// Longest name or value that an error message quotes, in characters.
const QUOTED: usize = 60;

/// Bytes of a tensor that are in memory at a time while it is read as floats.
const AT_A_TIME: usize = 1 << 22;

trait Bytes: Read + Seek + Send {}
impl<R: Read + Seek + Send> Bytes for R {}

/// Bytes of a known length. Reads go to a position, so that threads may share one.
pub(super) struct Source {
    bytes: Mutex<Box<dyn Bytes>>,
    len: u64,
    from: String,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let from = path.display().to_string();
        // Opening a pipe would wait for a writer.
        let file = match std::fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                "expected a regular file, got a directory, a pipe or a device",
            )),
            Ok(_) => File::open(path),
            Err(error) => Err(error),
        };
        match file {
            Ok(file) => Self::new(file, from),
            Err(source) => Err(Error::Io { from, source }),
        }
    }

    /// `from` is what error messages call it.
    pub(super) fn new(bytes: impl Read + Seek + Send + 'static, from: String) -> Result<Self> {
        let mut bytes: Box<dyn Bytes> = Box::new(bytes);
        match bytes.seek(SeekFrom::End(0)) {
            Ok(len) => Ok(Self {
                bytes: Mutex::new(bytes),
                len,
                from,
            }),
            Err(source) => Err(Error::Io { from, source }),
        }
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` with the bytes from `at` on.
    pub(super) fn read(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        // Every read starts with a seek, so a reader that panicked in another thread does no harm.
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes
            .seek(SeekFrom::Start(at))
            .and_then(|_| bytes.read_exact(buffer))
            .map_err(|source| self.failure(source))
    }

    /// The `len` bytes from `at` on, which the caller has checked to lie in the file.
    pub(super) fn read_vec(&self, at: u64, len: usize) -> Result<Vec<u8>> {
        let mut buffer = zeroed(len)?;
        self.read(at, &mut buffer)?;
        Ok(buffer)
    }

    /// Calls `work(start, bytes)` with `len` bytes from `at` on, a few megabytes at a time, in pieces
    /// of a multiple of `block` bytes.
    pub(super) fn in_pieces(
        &self,
        at: u64,
        len: usize,
        block: usize,
        mut work: impl FnMut(usize, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let piece = (AT_A_TIME / block).max(1).saturating_mul(block).min(len);
        let mut buffer = zeroed(piece)?;
        for start in (0..len).step_by(piece.max(1)) {
            let bytes = &mut buffer[..piece.min(len - start)];
            self.read(at + start as u64, bytes)?;
            work(start, bytes)?;
        }
        Ok(())
    }

    /// Calls `parse` with a reader at the start.
    #[cfg(feature = "gguf")]
    pub(super) fn at_start<R>(&self, parse: impl FnOnce(&mut dyn Read) -> Result<R>) -> Result<R> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes
            .seek(SeekFrom::Start(0))
            .map_err(|source| self.failure(source))?;
        parse(&mut std::io::BufReader::new(&mut *bytes))
    }

    pub(super) fn failure(&self, source: std::io::Error) -> Error {
        Error::Io {
            from: self.from.clone(),
            source,
        }
    }
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("from", &self.from)
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

/// `len` default values, or an error where they do not fit in memory.
pub(super) fn zeroed<T: Clone + Default>(len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| Error::TooLarge {
        what: "tensor",
        got: format!("{len} elements of {} bytes", size_of::<T>()),
    })?;
    values.resize(len, T::default());
    Ok(values)
}

/// A name from a file as error messages show it: escaped, and cut if it is long.
pub(super) fn quoted(name: &str) -> String {
    match name.char_indices().nth(QUOTED) {
        None => format!("{name:?}"),
        Some((end, _)) => format!("{:?}… ({} bytes)", &name[..end], name.len()),
    }
}
