//! Lanes of vectors of 256 bits.

use std::arch::x86_64::{
    __m256, __m256i, _mm_loadl_epi64, _mm256_add_epi32, _mm256_add_ps, _mm256_cvtepi32_ps,
    _mm256_cvtepu8_epi32, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256, _mm256_mul_ps,
    _mm256_mullo_epi32, _mm256_set1_epi32, _mm256_set1_ps, _mm256_storeu_ps, _mm256_storeu_si256,
    _mm256_sub_epi32, _mm256_sub_ps,
};

use crate::{
    kernel::arch::lanes::Lanes,
    simd::x86::{Avx2, AvxVnni},
};

macro_rules! lanes {
    ($proof:ty) => {
        impl Lanes for $proof {
            const LANES: usize = 8;
            type Lanes = __m256i;
            type Floats = __m256;

            #[inline(always)]
            fn load_lanes(self, from: &[i32]) -> __m256i {
                let from = &from[..8];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are read.
                unsafe { _mm256_loadu_si256(from.as_ptr().cast()) }
            }

            #[inline(always)]
            fn widen_to_lanes(self, from: &[u8]) -> __m256i {
                let from = &from[..8];
                // SAFETY: `self` proves AVX2; the slice has the 8 bytes that are read.
                unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(from.as_ptr().cast())) }
            }

            #[inline(always)]
            fn store_lanes(self, to: &mut [i32], lanes: __m256i) {
                let to = &mut to[..8];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are written.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), lanes) }
            }

            #[inline(always)]
            fn add_lanes(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_add_epi32(a, b) }
            }

            #[inline(always)]
            fn splat(self, value: i32) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_set1_epi32(value) }
            }

            #[inline(always)]
            fn subtract_products(self, lanes: __m256i, factors: __m256i, value: i32) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe {
                    let products = _mm256_mullo_epi32(factors, _mm256_set1_epi32(value));
                    _mm256_sub_epi32(lanes, products)
                }
            }

            #[inline(always)]
            fn load_floats(self, from: &[f32]) -> __m256 {
                let from = &from[..8];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are read.
                unsafe { _mm256_loadu_ps(from.as_ptr()) }
            }

            #[inline(always)]
            fn add_scaled(self, sums: &mut [f32], lanes: __m256i, scale: __m256) {
                let sums = &mut sums[..8];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are read and
                // written.
                unsafe {
                    let product = _mm256_mul_ps(_mm256_cvtepi32_ps(lanes), scale);
                    let sum = _mm256_add_ps(_mm256_loadu_ps(sums.as_ptr()), product);
                    _mm256_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }

            #[inline(always)]
            fn add_scaled_from(
                self,
                sums: &mut [f32],
                lanes: __m256i,
                (zero, x): (__m256, f32),
                scale: __m256,
            ) {
                let sums = &mut sums[..8];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are read and
                // written.
                unsafe {
                    let from = _mm256_mul_ps(zero, _mm256_set1_ps(x));
                    let codes = _mm256_sub_ps(_mm256_cvtepi32_ps(lanes), from);
                    let product = _mm256_mul_ps(codes, scale);
                    let sum = _mm256_add_ps(_mm256_loadu_ps(sums.as_ptr()), product);
                    _mm256_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }

            #[inline(always)]
            fn scaled(self, lanes: __m256i, scale: __m256) -> __m256 {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_mul_ps(_mm256_cvtepi32_ps(lanes), scale) }
            }

            #[inline(always)]
            fn scaled_from(self, lanes: __m256i, zero: __m256, scale: __m256) -> __m256 {
                // SAFETY: `self` proves AVX2.
                unsafe {
                    let codes = _mm256_sub_ps(_mm256_cvtepi32_ps(lanes), zero);
                    _mm256_mul_ps(codes, scale)
                }
            }

            #[inline(always)]
            fn multiply_add(self, sums: __m256, x: f32, w: __m256) -> __m256 {
                // SAFETY: `self` proves AVX2 and FMA.
                unsafe { _mm256_fmadd_ps(_mm256_set1_ps(x), w, sums) }
            }

            #[inline(always)]
            fn store_floats(self, to: &mut [f32], floats: __m256) {
                let to = &mut to[..8];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are written.
                unsafe { _mm256_storeu_ps(to.as_mut_ptr(), floats) }
            }
        }
    };
}

lanes!(Avx2);
lanes!(AvxVnni);
