//! Proofs of x86-64 instruction sets.
#![allow(
    unsafe_code,
    reason = "entering code compiled for an instruction set is unsafe; a proof makes it sound"
)]

mod amx;
mod halves;

use std::arch::x86_64::{
    __m128i, __m256i, _MM_HINT_T0, _mm_loadu_si128, _mm_prefetch, _mm_sfence, _mm_stream_si128,
    _mm256_loadu_si256, _mm256_stream_si256,
};

use std::sync::OnceLock;

pub(crate) use self::amx::AmxInt8;
use super::{Isa, Loops};
use crate::element::Number;

/// Proof of AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let here = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
        unsafe { enter(loops) }
    }

    /// Copies past the caches, as far as `to` holds whole vectors of 16 bytes; other threads see it
    /// after [`fence`](Self::fence).
    ///
    /// Lines that this fills in part are best filled by the next copy.
    #[inline(always)]
    pub(crate) fn stream<T: Number>(self, from: &[T], to: &mut [T]) {
        const VECTOR: usize = 16;
        const LINE: usize = 64;
        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn vectors(from: *const __m128i, to: *mut __m128i, vectors: usize) {
            for vector in 0..vectors {
                // SAFETY: the caller has so many vectors to be read at `from`, and to be written at
                // `to`, where they are aligned.
                unsafe { _mm_stream_si128(to.add(vector), _mm_loadu_si128(from.add(vector))) };
            }
        }
        #[target_feature(enable = "avx2")]
        #[inline]
        unsafe fn lines(from: *const [__m256i; 2], to: *mut [__m256i; 2], lines: usize) {
            for line in 0..lines {
                // SAFETY: the caller has so many lines to be read at `from`, and to be written at
                // `to`, where they are aligned.
                unsafe {
                    let (from, to) = (from.add(line).cast(), to.add(line).cast());
                    let halves = [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))];
                    _mm256_stream_si256(to, halves[0]);
                    _mm256_stream_si256(to.add(1), halves[1]);
                }
            }
        }
        let len = from.len().min(to.len());
        let (from, to) = (&from[..len], &mut to[..len]);
        let head = to.as_ptr().align_offset(VECTOR).min(len);
        let middle = (len - head) * size_of::<T>() / VECTOR * VECTOR;
        let tail = head + middle / size_of::<T>();
        // Calls of `memcpy` for nothing would cost more than the rest.
        if head > 0 {
            to[..head].copy_from_slice(&from[..head]);
        }
        // SAFETY: `self` proves AVX2. `middle` bytes from element `head` on are whole elements
        // within both slices, and numbers have no padding, so that all of them can be read; `to` is
        // aligned to vectors from `head` on, unless no element is left. The three parts add up to
        // them, and the second one starts on a line, unless it is empty.
        unsafe {
            let (from, to) = (from.as_ptr().add(head), to.as_mut_ptr().add(head));
            let (from, to) = (from.cast::<u8>(), to.cast::<u8>());
            let first = to.align_offset(LINE).min(middle);
            let whole = (middle - first) / LINE * LINE;
            let last = first + whole;
            vectors(from.cast(), to.cast(), first / VECTOR);
            lines(from.add(first).cast(), to.add(first).cast(), whole / LINE);
            vectors(
                from.add(last).cast(),
                to.add(last).cast(),
                (middle - last) / VECTOR,
            );
        }
        if tail < len {
            to[tail..].copy_from_slice(&from[tail..]);
        }
    }

    /// Makes what was streamed visible before what this thread writes afterwards.
    #[inline]
    pub(crate) fn fence(self) {
        // SAFETY: SSE is part of x86-64.
        unsafe { _mm_sfence() };
    }
}

/// Proof of AVX-512 F, BW, DQ and VL, and of what [`Avx2`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    pub(crate) fn detect() -> Option<Self> {
        let here = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has all of them.
        unsafe { enter(loops) }
    }
}

/// Proof of AVX-VNNI, and of what [`Avx2`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AvxVnni(());

impl AvxVnni {
    pub(crate) fn detect() -> Option<Self> {
        let here = Avx2::detect().is_some() && is_x86_feature_detected!("avxvnni");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "avx2,fma,f16c,avxvnni")]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has all of them.
        unsafe { enter(loops) }
    }
}

/// Proof of AVX-512 VNNI, and of what [`Avx512`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx512Vnni(());

impl Avx512Vnni {
    pub(crate) fn detect() -> Option<Self> {
        let here = Avx512::detect().is_some() && is_x86_feature_detected!("avx512vnni");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has all of them.
        unsafe { enter(loops) }
    }
}

/// The widest instruction set in use that plain loops are compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Widest {
    Baseline,
    Avx2(Avx2),
    Avx512(Avx512),
}

impl Widest {
    pub(crate) fn in_use() -> Self {
        static IN_USE: OnceLock<Widest> = OnceLock::new();
        let avx2 = || Avx2::detect().map_or(Self::Baseline, Self::Avx2);
        let avx512 = || Avx512::detect().map_or_else(avx2, Self::Avx512);
        *IN_USE.get_or_init(|| match Isa::selected() {
            Ok(Isa::Portable) => Self::Baseline,
            Ok(Isa::Avx512 | Isa::Avx512Vnni | Isa::AmxInt8) => avx512(),
            _ => avx2(),
        })
    }

    /// AVX2, where it is in use or part of what is.
    pub(crate) fn avx2(self) -> Option<Avx2> {
        match self {
            Self::Baseline => None,
            Self::Avx2(avx2) => Some(avx2),
            Self::Avx512(_) => Some(Avx2(())),
        }
    }
}

/// Asks for the cache lines that lie `ahead` bytes after those of `len` elements at `near`.
#[inline(always)]
pub(crate) fn prefetch<T>(near: *const T, len: usize, ahead: usize) {
    let start = near.cast::<i8>();
    for line in (0..len * size_of::<T>()).step_by(64) {
        // SAFETY: SSE is part of x86-64, and a prefetch of any address is only a hint.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line + ahead)) };
    }
}
