//! Vectors of 256 bits: AVX2, and AVX-VNNI on top of it.

use std::arch::x86_64::{
    __m256i, _mm_loadu_si128, _mm256_add_epi16, _mm256_add_epi32, _mm256_and_si256,
    _mm256_cvtepu8_epi16, _mm256_dpbusd_avx_epi32, _mm256_hadd_epi32, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_or_si256, _mm256_permute4x64_epi64,
    _mm256_set1_epi8, _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_epi64x,
    _mm256_setzero_si256, _mm256_slli_epi16, _mm256_srli_epi16, _mm256_srli_epi32,
    _mm256_storeu_si256, _mm256_xor_si256,
};

use crate::{
    kernel::arch::{
        vector::{Dot, PairSums, Vector, shifted},
        words::{Words, four_words},
    },
    simd::{
        Loops,
        x86::{Avx2, AvxVnni},
    },
};

macro_rules! vector {
    ($proof:ty) => {
        impl Vector for $proof {
            const PACKED_TILES: &'static [usize] = &[4, 2, 1];
            const FUSED: bool = true;
            type Bytes = __m256i;
            type Sums = __m256i;

            fn run<L: Loops>(self, loops: L) -> L::Output {
                self.run(loops)
            }

            #[inline(always)]
            fn load(self, bytes: &[u8]) -> __m256i {
                let bytes = &bytes[..32];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are read.
                unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
            }

            #[inline(always)]
            fn store(self, to: &mut [u8], bytes: __m256i) {
                let to = &mut to[..32];
                // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are written.
                unsafe { _mm256_storeu_si256(to.as_mut_ptr().cast(), bytes) }
            }

            #[inline(always)]
            fn mask(self, bytes: __m256i, mask: u8) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_and_si256(bytes, _mm256_set1_epi8(mask.cast_signed())) }
            }

            #[inline(always)]
            fn flip(self, bytes: __m256i, mask: u8) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_xor_si256(bytes, _mm256_set1_epi8(mask.cast_signed())) }
            }

            #[inline(always)]
            fn or(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_or_si256(a, b) }
            }

            #[inline(always)]
            fn shift_down(self, bytes: __m256i, by: u32) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { shifted!(_mm256_srli_epi16, bytes, by) }
            }

            #[inline(always)]
            fn shift_up(self, bytes: __m256i, by: u32) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { shifted!(_mm256_slli_epi16, bytes, by) }
            }

            #[inline(always)]
            fn zero(self) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_setzero_si256() }
            }

            #[inline(always)]
            fn add(self, a: __m256i, b: __m256i) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe { _mm256_add_epi32(a, b) }
            }

            #[inline(always)]
            fn lane_bytes(self, bytes: __m256i, t: u32) -> __m256i {
                // SAFETY: `self` proves AVX2.
                unsafe {
                    let moved = match t {
                        0 => bytes,
                        1 => _mm256_srli_epi32::<8>(bytes),
                        2 => _mm256_srli_epi32::<16>(bytes),
                        _ => _mm256_srli_epi32::<24>(bytes),
                    };
                    _mm256_and_si256(moved, _mm256_set1_epi32(0xff))
                }
            }

            #[inline(always)]
            fn lanes(self, sums: __m256i) -> __m256i {
                sums
            }

            #[inline(always)]
            fn of_lanes(self, lanes: __m256i) -> __m256i {
                lanes
            }
        }
    };
}

vector!(Avx2);
vector!(AvxVnni);

impl Dot for AvxVnni {
    const NAME: &'static str = "avxvnni-i8u8i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    const UNSIGNED: bool = true;

    #[inline(always)]
    fn dot(self, sums: __m256i, w: __m256i, x: i32) -> __m256i {
        // SAFETY: `self` proves AVX-VNNI.
        unsafe { _mm256_dpbusd_avx_epi32(sums, w, _mm256_set1_epi32(x)) }
    }
}

impl PairSums for Avx2 {
    const NAME: &'static str = "avx2-i8u7i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    type Pairs = __m256i;

    #[inline(always)]
    fn no_pairs(self) -> __m256i {
        self.zero()
    }

    #[inline(always)]
    fn add_pairs(self, pairs: __m256i, w: __m256i, x: i32) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, _mm256_set1_epi32(x))) }
    }

    #[inline(always)]
    fn sum_pairs(self, pairs: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)) }
    }
}

impl Words for Avx2 {
    const NAME: &'static str = "avx2-i16u8i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    type Words = __m256i;

    #[inline(always)]
    fn widen(self, bytes: &[u8]) -> __m256i {
        let bytes = &bytes[..16];
        // SAFETY: `self` proves AVX2; the slice has the 16 bytes that are read.
        unsafe { _mm256_cvtepu8_epi16(_mm_loadu_si128(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_words(self, words: &[i16]) -> __m256i {
        let words = &words[..16];
        // SAFETY: `self` proves AVX2; the slice has the 32 bytes that are read.
        unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn broadcast(self, x: [i16; 4]) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_set1_epi64x(four_words(x)) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m256i, w: __m256i, x: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(w, x)) }
    }

    #[inline(always)]
    fn sum_neighbours(self, low: __m256i, high: __m256i) -> __m256i {
        // SAFETY: `self` proves AVX2.
        unsafe {
            // Columns 0, 1, 4, 5, 2, 3, 6, 7, put in order.
            let mixed = _mm256_hadd_epi32(low, high);
            _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed)
        }
    }
}
