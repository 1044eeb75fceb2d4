//! What makes loops over more than the caches hold as fast as memory: asking ahead for what will be
//! read, and moving what is written past the caches, so that it need not be read first.

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::element::Number;

/// Bytes between what is read and what is asked for: some hundred nanoseconds' worth.
#[cfg(target_arch = "x86_64")]
const AHEAD: usize = 16 << 10;

/// Bytes from which on an operation is taken to move more than the caches hold for whoever reads
/// its output next.
#[cfg(target_arch = "x86_64")]
const LARGE: usize = 32 << 20;

/// Asks for what lies some thousand bytes after `near`, where an array is read from front to back.
/// There need not be anything.
#[inline(always)]
pub(crate) fn prefetch<T>(near: &[T]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(near, AHEAD);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = near;
}

/// Copies past the caches: for outputs that are larger than those, and written once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Streaming(
    #[cfg(target_arch = "x86_64")] x86::Avx2,
    #[cfg(not(target_arch = "x86_64"))] std::convert::Infallible,
);

impl Streaming {
    /// Where it pays for an operation that moves so many bytes.
    pub(crate) fn of(bytes: usize) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if bytes >= LARGE {
            return x86::Widest::in_use().avx2().map(Self);
        }
        let _ = bytes;
        None
    }

    /// Copies the numbers of a buffer that is in the cache; other threads see them after
    /// [`fence`](Self::fence).
    #[inline(always)]
    pub(crate) fn copy<T: Number>(self, from: &[T], to: &mut [T]) {
        #[cfg(target_arch = "x86_64")]
        self.0.stream(from, to);
        #[cfg(not(target_arch = "x86_64"))]
        match (self.0, from, to) {}
    }

    /// Makes what was copied visible before what this thread does next.
    #[inline]
    pub(crate) fn fence(self) {
        #[cfg(target_arch = "x86_64")]
        self.0.fence();
        #[cfg(not(target_arch = "x86_64"))]
        match self.0 {}
    }
}
