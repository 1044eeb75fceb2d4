//! AVX2: codes of up to 7 bits through `vpmaddubsw`, which then cannot saturate, and 8-bit ones
//! widened to 16 bits.
#![allow(
    unsafe_code,
    reason = "loads, stores and entering code compiled for AVX2; each block has its proof"
)]

mod bytes;
mod words;

pub(in crate::kernel) use bytes::Bytes;
pub(in crate::kernel) use words::Words;

use std::arch::x86_64::{
    __m256i, _mm256_and_si256, _mm256_loadu_si256, _mm256_or_si256, _mm256_set1_epi8,
    _mm256_slli_epi16, _mm256_srli_epi16, _mm256_storeu_si256,
};

use crate::kernel::layout::{Plane, planes};

/// Columns in a vector.
const LANES: usize = 8;

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read; no alignment is needed.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_sums(sums: &[i32; LANES]) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read; no alignment is needed.
    unsafe { _mm256_loadu_si256(sums.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store_sums(sums: &mut [i32; LANES], value: __m256i) {
    // SAFETY: the array has the 32 bytes that are written; no alignment is needed.
    unsafe { _mm256_storeu_si256(sums.as_mut_ptr().cast(), value) }
}

/// The codes of one quad, a byte each, from a block of one vector of columns.
#[inline]
#[target_feature(enable = "avx2")]
fn quad<const BITS: u32, const QUAD: usize>(block: &[[u8; 32]]) -> __m256i {
    let [first, second, third] = planes(BITS);
    let mut code = part(block, first, QUAD);
    if second.width > 0 {
        code = _mm256_or_si256(code, part(block, second, QUAD));
    }
    if third.width > 0 {
        code = _mm256_or_si256(code, part(block, third, QUAD));
    }
    code
}

/// The bits that a plane has of a quad, in their place in the codes.
#[inline]
#[target_feature(enable = "avx2")]
fn part(block: &[[u8; 32]], plane: Plane, quad: usize) -> __m256i {
    let (vector, from) = plane.place(quad);
    let bytes = load(&block[vector]);
    if plane.width == 8 {
        return bytes;
    }
    // Shifts are of 16 bits: the mask takes away what came over from the neighbour.
    let shifted = shift(bytes, from.cast_signed() - plane.low.cast_signed());
    let mask = plane.mask() << plane.low;
    _mm256_and_si256(shifted, _mm256_set1_epi8(mask.cast_signed()))
}

/// Shifted right by `by` bits, left where it is negative.
#[inline]
#[target_feature(enable = "avx2")]
fn shift(bytes: __m256i, by: i32) -> __m256i {
    match by {
        -6 => _mm256_slli_epi16::<6>(bytes),
        -5 => _mm256_slli_epi16::<5>(bytes),
        -4 => _mm256_slli_epi16::<4>(bytes),
        -3 => _mm256_slli_epi16::<3>(bytes),
        -2 => _mm256_slli_epi16::<2>(bytes),
        -1 => _mm256_slli_epi16::<1>(bytes),
        0 => bytes,
        1 => _mm256_srli_epi16::<1>(bytes),
        2 => _mm256_srli_epi16::<2>(bytes),
        3 => _mm256_srli_epi16::<3>(bytes),
        4 => _mm256_srli_epi16::<4>(bytes),
        5 => _mm256_srli_epi16::<5>(bytes),
        6 => _mm256_srli_epi16::<6>(bytes),
        _ => _mm256_srli_epi16::<7>(bytes),
    }
}
