//! Numbers that begin on a cache line.

use std::fmt;

use crate::error::{Error, Result};

/// Bytes of a cache line; the widest vector is as wide.
const LINE: usize = 64;

/// Numbers that begin on a cache line.
pub(super) struct Aligned<T> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    /// # Errors
    /// [`Error::TooLarge`] if there is no such memory.
    pub(super) fn zeros(what: &'static str, len: usize) -> Result<Self> {
        let too_large = || Error::TooLarge {
            what,
            got: format!("{len} times {} bytes", size_of::<T>()),
        };
        let mut values = Vec::new();
        let total = len.checked_add(LINE).ok_or_else(too_large)?;
        values.try_reserve_exact(total).map_err(|_| too_large())?;
        values.resize(total, T::default());
        let start = start(&values);
        Ok(Self { values, start, len })
    }

    /// So many numbers that may be anything, in the same memory as before where that is enough.
    pub(super) fn of_len(&mut self, len: usize) -> &mut [T] {
        if self.values.len() < len + LINE {
            self.values.clear();
            self.values.resize(len + LINE, T::default());
            self.start = start(&self.values);
        }
        self.len = len;
        self.as_mut_slice()
    }

    #[inline(always)]
    pub(super) fn as_slice(&self) -> &[T] {
        &self.values[self.start..self.start + self.len]
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.len]
    }
}

/// The first of some numbers that is on a cache line.
fn start<T>(values: &[T]) -> usize {
    values.as_ptr().align_offset(LINE).min(LINE)
}

impl<T> Default for Aligned<T> {
    fn default() -> Self {
        Self {
            values: vec![],
            start: 0,
            len: 0,
        }
    }
}

/// A copy would begin elsewhere: numbers are not shown, and not cloned.
impl<T> fmt::Debug for Aligned<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} aligned numbers", self.len)
    }
}
