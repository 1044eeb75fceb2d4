//! Lanes of vectors of 512 bits.

use std::arch::x86_64::{
    __m512, __m512i, _mm_loadu_si128, _mm512_add_epi32, _mm512_add_ps, _mm512_cvtepi32_ps,
    _mm512_cvtepu8_epi32, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_mul_ps,
    _mm512_mullo_epi32, _mm512_set1_epi32, _mm512_set1_ps, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_epi32, _mm512_sub_ps,
};

use crate::{
    kernel::arch::lanes::Lanes,
    simd::x86::{Avx512, Avx512Vnni},
};

macro_rules! lanes {
    ($proof:ty) => {
        impl Lanes for $proof {
            const LANES: usize = 16;
            type Lanes = __m512i;
            type Floats = __m512;

            #[inline(always)]
            fn load_lanes(self, from: &[i32]) -> __m512i {
                let from = &from[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are read.
                unsafe { _mm512_loadu_si512(from.as_ptr().cast()) }
            }

            #[inline(always)]
            fn widen_to_lanes(self, from: &[u8]) -> __m512i {
                let from = &from[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 16 bytes that are read.
                unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(from.as_ptr().cast())) }
            }

            #[inline(always)]
            fn store_lanes(self, to: &mut [i32], lanes: __m512i) {
                let to = &mut to[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are written.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), lanes) }
            }

            #[inline(always)]
            fn add_lanes(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_add_epi32(a, b) }
            }

            #[inline(always)]
            fn splat(self, value: i32) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_set1_epi32(value) }
            }

            #[inline(always)]
            fn subtract_products(self, lanes: __m512i, factors: __m512i, value: i32) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe {
                    let products = _mm512_mullo_epi32(factors, _mm512_set1_epi32(value));
                    _mm512_sub_epi32(lanes, products)
                }
            }

            #[inline(always)]
            fn load_floats(self, from: &[f32]) -> __m512 {
                let from = &from[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are read.
                unsafe { _mm512_loadu_ps(from.as_ptr()) }
            }

            #[inline(always)]
            fn add_scaled(self, sums: &mut [f32], lanes: __m512i, scale: __m512) {
                let sums = &mut sums[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are read and
                // written.
                unsafe {
                    let product = _mm512_mul_ps(_mm512_cvtepi32_ps(lanes), scale);
                    let sum = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), product);
                    _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }

            #[inline(always)]
            fn add_scaled_from(
                self,
                sums: &mut [f32],
                lanes: __m512i,
                (zero, x): (__m512, f32),
                scale: __m512,
            ) {
                let sums = &mut sums[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are read and
                // written.
                unsafe {
                    let from = _mm512_mul_ps(zero, _mm512_set1_ps(x));
                    let codes = _mm512_sub_ps(_mm512_cvtepi32_ps(lanes), from);
                    let product = _mm512_mul_ps(codes, scale);
                    let sum = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), product);
                    _mm512_storeu_ps(sums.as_mut_ptr(), sum);
                }
            }

            #[inline(always)]
            fn scaled(self, lanes: __m512i, scale: __m512) -> __m512 {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_mul_ps(_mm512_cvtepi32_ps(lanes), scale) }
            }

            #[inline(always)]
            fn scaled_from(self, lanes: __m512i, zero: __m512, scale: __m512) -> __m512 {
                // SAFETY: `self` proves AVX-512.
                unsafe {
                    let codes = _mm512_sub_ps(_mm512_cvtepi32_ps(lanes), zero);
                    _mm512_mul_ps(codes, scale)
                }
            }

            #[inline(always)]
            fn multiply_add(self, sums: __m512, x: f32, w: __m512) -> __m512 {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_fmadd_ps(_mm512_set1_ps(x), w, sums) }
            }

            #[inline(always)]
            fn store_floats(self, to: &mut [f32], floats: __m512) {
                let to = &mut to[..16];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are written.
                unsafe { _mm512_storeu_ps(to.as_mut_ptr(), floats) }
            }
        }
    };
}

lanes!(Avx512);
lanes!(Avx512Vnni);
