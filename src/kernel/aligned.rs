//! Bytes that begin on a cache line.

use crate::error::{Error, Result};

/// Bytes of a cache line; the widest vector is as wide.
const LINE: usize = 64;

/// Bytes that begin on a cache line and are never moved.
#[derive(Debug)]
pub(super) struct AlignedBytes {
    bytes: Box<[u8]>,
    start: usize,
    len: usize,
}

impl AlignedBytes {
    /// # Errors
    /// [`Error::TooLarge`] if there is no such memory.
    pub(super) fn zeros(len: usize) -> Result<Self> {
        let too_large = || Error::TooLarge {
            what: "packed weights",
            got: format!("{len} bytes"),
        };
        let mut bytes = Vec::new();
        let total = len.checked_add(LINE).ok_or_else(too_large)?;
        bytes.try_reserve_exact(total).map_err(|_| too_large())?;
        bytes.resize(total, 0_u8);
        let bytes = bytes.into_boxed_slice();
        let start = bytes.as_ptr().align_offset(LINE).min(LINE);
        Ok(Self { bytes, start, len })
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.len]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.len]
    }
}
