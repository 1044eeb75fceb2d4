//! What makes loops over more than the caches hold as fast as memory: asking ahead for what will be
//! read, and moving what is written past the caches, so that it need not be read first.

#[cfg(target_arch = "x86_64")]
use super::x86;
use crate::element::Number;

/// Bytes between what is read and what is asked for: some hundred nanoseconds' worth.
const AHEAD: usize = 8 << 10;

/// The same where little is computed with what is read.
#[cfg(target_arch = "x86_64")]
const FAR_AHEAD: usize = 16 << 10;

/// Bytes from which on an operation is taken to move more than the caches hold for whoever reads
/// its output next.
#[cfg(target_arch = "x86_64")]
const LARGE: usize = 32 << 20;

/// Asks for what lies some thousand bytes after `near`, where an array is read from front to back.
/// There need not be anything.
#[inline(always)]
pub(crate) fn prefetch<T>(near: &[T]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(near.as_ptr(), near.len(), FAR_AHEAD);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = near;
}

/// Asks for an array that is to be read a while from now.
#[inline(always)]
pub(crate) fn ask_for<T>(array: &[T]) {
    #[cfg(target_arch = "x86_64")]
    x86::prefetch(array.as_ptr(), array.len(), 0);
    #[cfg(not(target_arch = "x86_64"))]
    let _ = array;
}

/// What a loop reads from front to back, to be asked for ahead step by step: many requests at once
/// would wait for each other, and the loop for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ahead<'a, T> {
    array: &'a [T],
    bytes: usize,
}

/// Nothing to ask for, for a loop over what is in the caches.
pub(crate) const NOTHING: Ahead<'static, ()> = Ahead {
    array: &[],
    bytes: 0,
};

impl<'a, T: Copy> Ahead<'a, T> {
    /// An array that is one of so many that are read by turns.
    #[inline(always)]
    pub(crate) fn of(array: &'a [T], turns: usize) -> Self {
        Self {
            array,
            bytes: AHEAD / turns,
        }
    }

    /// Asks for what lies some thousand bytes after `STEP` elements, those from `start` on. There
    /// need not be anything.
    #[inline(always)]
    pub(crate) fn ask<const STEP: usize>(self, start: usize) {
        #[cfg(target_arch = "x86_64")]
        if !self.array.is_empty() {
            x86::prefetch(self.array.as_ptr().wrapping_add(start), STEP, self.bytes);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (self.array, self.bytes, start);
    }
}

/// A buffer that begins on a cache line: of vectors as wide as a line that do not, each one takes
/// two.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
pub(crate) struct OnLine<T>(pub(crate) T);

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
