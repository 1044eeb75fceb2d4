//! Conversions of 16-bit floats by the instructions for them.

use std::arch::x86_64::{
    _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
    _mm256_loadu_ps, _mm256_storeu_ps,
};

use half::f16;

use super::Avx2;

/// Numbers of a vector.
const LANES: usize = 8;

impl Avx2 {
    /// Widens as many numbers as both slices have, exactly; NaN becomes a quiet one.
    #[inline(always)]
    pub(crate) fn widen(self, halves: &[f16], floats: &mut [f32]) {
        let len = halves.len().min(floats.len());
        let (vectors, rest) = halves[..len].as_chunks::<LANES>();
        let (float_vectors, float_rest) = floats[..len].as_chunks_mut::<LANES>();
        // SAFETY: `self` proves AVX2 and F16C.
        unsafe { widen(vectors, float_vectors) };
        if !rest.is_empty() {
            let (mut last, mut widened) = ([f16::ZERO; LANES], [0.0; LANES]);
            last[..rest.len()].copy_from_slice(rest);
            // SAFETY: as above.
            unsafe { widen_one(&last, &mut widened) };
            float_rest.copy_from_slice(&widened[..rest.len()]);
        }
    }

    /// Rounds as many numbers as both slices have, ties to even; NaN becomes a quiet one.
    #[inline(always)]
    pub(crate) fn narrow(self, floats: &[f32], halves: &mut [f16]) {
        let len = halves.len().min(floats.len());
        let (vectors, rest) = floats[..len].as_chunks::<LANES>();
        let (half_vectors, half_rest) = halves[..len].as_chunks_mut::<LANES>();
        // SAFETY: `self` proves AVX2 and F16C.
        unsafe { narrow(vectors, half_vectors) };
        if !rest.is_empty() {
            let (mut last, mut narrowed) = ([0.0; LANES], [f16::ZERO; LANES]);
            last[..rest.len()].copy_from_slice(rest);
            // SAFETY: as above.
            unsafe { narrow_one(&last, &mut narrowed) };
            half_rest.copy_from_slice(&narrowed[..rest.len()]);
        }
    }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn widen(halves: &[[f16; LANES]], floats: &mut [[f32; LANES]]) {
    for (halves, floats) in halves.iter().zip(floats) {
        widen_one(halves, floats);
    }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn widen_one(halves: &[f16; LANES], floats: &mut [f32; LANES]) {
    // SAFETY: eight halves are the 16 bytes that are read, eight floats the 32 that are written;
    // neither need be aligned.
    unsafe {
        let halves = _mm_loadu_si128(halves.as_ptr().cast());
        _mm256_storeu_ps(floats.as_mut_ptr(), _mm256_cvtph_ps(halves));
    }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn narrow(floats: &[[f32; LANES]], halves: &mut [[f16; LANES]]) {
    for (floats, halves) in floats.iter().zip(halves) {
        narrow_one(floats, halves);
    }
}

#[target_feature(enable = "avx2,f16c")]
#[inline]
fn narrow_one(floats: &[f32; LANES], halves: &mut [f16; LANES]) {
    // SAFETY: eight floats are the 32 bytes that are read, eight halves the 16 that are written;
    // neither need be aligned.
    unsafe {
        let floats = _mm256_loadu_ps(floats.as_ptr());
        let rounded = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(floats);
        _mm_storeu_si128(halves.as_mut_ptr().cast(), rounded);
    }
}
