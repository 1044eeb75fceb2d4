//! Copies to compare with: the fastest way that is known here to move bytes.
#![allow(
    unsafe_code,
    reason = "a copy past the caches needs intrinsics; the library's own is what is measured"
)]

use std::hint::black_box;

/// Floats that are copied at most; the two arrays lie far beyond any cache.
const LEN: usize = 24 << 20;

/// Floats of a cache line.
const LINE: usize = 16;

/// Large arrays.
pub(crate) struct Copies {
    from: Vec<f32>,
    to: Vec<f32>,
    /// Never copied: what lies in the caches before a run is of no use to it.
    other: Vec<f32>,
}

impl Copies {
    /// `memcpy`; `memcpy` in pieces of 64 KiB; stores past the caches.
    pub(crate) const KINDS: usize = 3;

    /// The fastest of large copies on most machines.
    pub(crate) const FASTEST: usize = 2;

    pub(crate) fn new() -> Self {
        Self {
            from: (0..LEN).map(|at| at as f32).collect(),
            to: (0..LEN).map(|at| -(at as f32)).collect(),
            other: (0..LEN / 2).map(|at| at as f32).collect(),
        }
    }

    /// Fills the caches with what nobody asks for.
    pub(crate) fn flush(&self) {
        black_box(self.other.iter().fold(0, |bits, x| bits ^ x.to_bits()));
    }

    /// Copies so many bytes, in parts where the arrays are shorter.
    pub(crate) fn run(&mut self, kind: usize, bytes: usize) {
        let mut left = bytes / 4;
        while left > 0 {
            let len = left.min(LEN);
            let (from, to) = (&self.from[..len], &mut self.to[..len]);
            match kind {
                0 => to.copy_from_slice(from),
                1 => {
                    for (from, to) in from.chunks(1 << 14).zip(to.chunks_mut(1 << 14)) {
                        to.copy_from_slice(from);
                    }
                }
                _ => stream(from, to),
            }
            black_box(&mut *to);
            left -= len;
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn stream(from: &[f32], to: &mut [f32]) {
    use std::arch::x86_64::{_mm_sfence, _mm256_loadu_ps, _mm256_stream_ps};

    #[target_feature(enable = "avx")]
    fn lines(from: &[[f32; LINE]], to: &mut [[f32; LINE]]) {
        for (from, to) in from.iter().zip(to) {
            for half in [0, 8] {
                // SAFETY: both lie within an array of 16 floats, and `to` on a multiple of 64
                // bytes, as the caller cut it.
                unsafe {
                    let eight = _mm256_loadu_ps(from.as_ptr().add(half));
                    _mm256_stream_ps(to.as_mut_ptr().add(half), eight);
                }
            }
        }
        _mm_sfence();
    }

    if !is_x86_feature_detected!("avx") {
        return to.copy_from_slice(from);
    }
    let head = to.as_ptr().align_offset(64).min(to.len());
    to[..head].copy_from_slice(&from[..head]);
    let (from_lines, from_rest) = from[head..].as_chunks::<LINE>();
    let (to_lines, to_rest) = to[head..].as_chunks_mut::<LINE>();
    to_rest.copy_from_slice(from_rest);
    // SAFETY: AVX is here.
    unsafe { lines(from_lines, to_lines) };
}

#[cfg(not(target_arch = "x86_64"))]
fn stream(from: &[f32], to: &mut [f32]) {
    to.copy_from_slice(from);
}
