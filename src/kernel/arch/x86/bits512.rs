//! Vectors of 512 bits: AVX-512 BW, and VNNI on top of it.

use std::arch::x86_64::{
    __m512i, _mm256_loadu_si256, _mm512_add_epi16, _mm512_add_epi32, _mm512_and_si512,
    _mm512_cvtepu8_epi16, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_madd_epi16,
    _mm512_maddubs_epi16, _mm512_or_si512, _mm512_permutex2var_epi32, _mm512_set1_epi8,
    _mm512_set1_epi16, _mm512_set1_epi32, _mm512_set1_epi64, _mm512_setr_epi32,
    _mm512_setzero_si512, _mm512_slli_epi16, _mm512_srli_epi16, _mm512_srli_epi32,
    _mm512_storeu_si512, _mm512_xor_si512,
};

use crate::{
    kernel::arch::{
        vector::{Dot, PairSums, Vector, shifted},
        words::{Words, four_words},
    },
    simd::{
        Loops,
        x86::{Avx512, Avx512Vnni},
    },
};

macro_rules! vector {
    ($proof:ty) => {
        impl Vector for $proof {
            const PACKED_TILES: &'static [usize] = &[8, 4, 2, 1];
            const FUSED: bool = true;
            type Bytes = __m512i;
            type Sums = __m512i;

            fn run<L: Loops>(self, loops: L) -> L::Output {
                self.run(loops)
            }

            #[inline(always)]
            fn load(self, bytes: &[u8]) -> __m512i {
                let bytes = &bytes[..64];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are read.
                unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
            }

            #[inline(always)]
            fn store(self, to: &mut [u8], bytes: __m512i) {
                let to = &mut to[..64];
                // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are written.
                unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), bytes) }
            }

            #[inline(always)]
            fn mask(self, bytes: __m512i, mask: u8) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_and_si512(bytes, _mm512_set1_epi8(mask.cast_signed())) }
            }

            #[inline(always)]
            fn flip(self, bytes: __m512i, mask: u8) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_xor_si512(bytes, _mm512_set1_epi8(mask.cast_signed())) }
            }

            #[inline(always)]
            fn or(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_or_si512(a, b) }
            }

            #[inline(always)]
            fn shift_down(self, bytes: __m512i, by: u32) -> __m512i {
                // SAFETY: `self` proves AVX-512 BW.
                unsafe { shifted!(_mm512_srli_epi16, bytes, by) }
            }

            #[inline(always)]
            fn shift_up(self, bytes: __m512i, by: u32) -> __m512i {
                // SAFETY: `self` proves AVX-512 BW.
                unsafe { shifted!(_mm512_slli_epi16, bytes, by) }
            }

            #[inline(always)]
            fn zero(self) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_setzero_si512() }
            }

            #[inline(always)]
            fn add(self, a: __m512i, b: __m512i) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe { _mm512_add_epi32(a, b) }
            }

            #[inline(always)]
            fn lane_bytes(self, bytes: __m512i, t: u32) -> __m512i {
                // SAFETY: `self` proves AVX-512.
                unsafe {
                    let moved = match t {
                        0 => bytes,
                        1 => _mm512_srli_epi32::<8>(bytes),
                        2 => _mm512_srli_epi32::<16>(bytes),
                        _ => _mm512_srli_epi32::<24>(bytes),
                    };
                    _mm512_and_si512(moved, _mm512_set1_epi32(0xff))
                }
            }

            #[inline(always)]
            fn lanes(self, sums: __m512i) -> __m512i {
                sums
            }

            #[inline(always)]
            fn of_lanes(self, lanes: __m512i) -> __m512i {
                lanes
            }
        }
    };
}

vector!(Avx512);
vector!(Avx512Vnni);

impl Dot for Avx512Vnni {
    const NAME: &'static str = "avx512vnni-i8u8i32";
    const TILES: &'static [usize] = &[12, 8, 4, 2, 1];
    const UNSIGNED: bool = true;

    #[inline(always)]
    fn dot(self, sums: __m512i, w: __m512i, x: i32) -> __m512i {
        // SAFETY: `self` proves AVX-512 VNNI.
        unsafe { _mm512_dpbusd_epi32(sums, w, _mm512_set1_epi32(x)) }
    }
}

impl PairSums for Avx512 {
    const NAME: &'static str = "avx512bw-i8u7i32";
    const TILES: &'static [usize] = &[12, 8, 4, 2, 1];
    type Pairs = __m512i;

    #[inline(always)]
    fn no_pairs(self) -> __m512i {
        self.zero()
    }

    #[inline(always)]
    fn add_pairs(self, pairs: __m512i, w: __m512i, x: i32) -> __m512i {
        // SAFETY: `self` proves AVX-512 BW.
        unsafe { _mm512_add_epi16(pairs, _mm512_maddubs_epi16(w, _mm512_set1_epi32(x))) }
    }

    #[inline(always)]
    fn sum_pairs(self, pairs: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 BW.
        unsafe { _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)) }
    }
}

impl Words for Avx512 {
    const NAME: &'static str = "avx512bw-i16u8i32";
    const TILES: &'static [usize] = &[12, 8, 4, 2, 1];
    type Words = __m512i;

    #[inline(always)]
    fn widen(self, bytes: &[u8]) -> __m512i {
        let bytes = &bytes[..32];
        // SAFETY: `self` proves AVX-512 BW; the slice has the 32 bytes that are read.
        unsafe { _mm512_cvtepu8_epi16(_mm256_loadu_si256(bytes.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_words(self, words: &[i16]) -> __m512i {
        let words = &words[..32];
        // SAFETY: `self` proves AVX-512; the slice has the 64 bytes that are read.
        unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn broadcast(self, x: [i16; 4]) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe { _mm512_set1_epi64(four_words(x)) }
    }

    #[inline(always)]
    fn add_products(self, sums: __m512i, w: __m512i, x: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512 BW.
        unsafe { _mm512_add_epi32(sums, _mm512_madd_epi16(w, x)) }
    }

    #[inline(always)]
    fn sum_neighbours(self, low: __m512i, high: __m512i) -> __m512i {
        // SAFETY: `self` proves AVX-512.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
            let first = _mm512_permutex2var_epi32(low, even, high);
            _mm512_add_epi32(first, _mm512_permutex2var_epi32(low, odd, high))
        }
    }
}
