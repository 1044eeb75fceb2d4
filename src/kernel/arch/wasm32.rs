//! Vectors of WebAssembly, of 128 bits. Compiled only where the whole module is for them, so that
//! only loads and stores are unsafe.
#![allow(
    unsafe_code,
    reason = "loads and stores of vectors; each block says what makes them sound"
)]

use std::arch::wasm32::{
    i16x8_add, i16x8_extmul_high_i8x16, i16x8_extmul_low_i8x16, i16x8_load_extend_u8x8, i16x8_shl,
    i32x4_add, i32x4_dot_i16x8, i32x4_extadd_pairwise_i16x8, i32x4_shuffle, i32x4_splat,
    i64x2_splat, u8x16_splat, u16x8_shr, v128, v128_and, v128_load, v128_or, v128_store,
};

use super::{
    pairs::Pairs,
    vector::Vector,
    words::{Words, four_words},
};
use crate::simd::{Loops, wasm32::WasmSimd128};

impl Vector for WasmSimd128 {
    const LANES: usize = 4;
    const FUSED: bool = false;
    type Bytes = v128;
    type Sums = v128;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.run(loops)
    }

    #[inline(always)]
    fn load(self, bytes: &[u8]) -> v128 {
        let bytes = &bytes[..16];
        // SAFETY: the slice has the 16 bytes that are read.
        unsafe { v128_load(bytes.as_ptr().cast()) }
    }

    #[inline(always)]
    fn mask(self, bytes: v128, mask: u8) -> v128 {
        v128_and(bytes, u8x16_splat(mask))
    }

    #[inline(always)]
    fn or(self, a: v128, b: v128) -> v128 {
        v128_or(a, b)
    }

    #[inline(always)]
    fn shift_down(self, bytes: v128, by: u32) -> v128 {
        u16x8_shr(bytes, by)
    }

    #[inline(always)]
    fn shift_up(self, bytes: v128, by: u32) -> v128 {
        i16x8_shl(bytes, by)
    }

    #[inline(always)]
    fn zero(self) -> v128 {
        i32x4_splat(0)
    }

    #[inline(always)]
    fn add(self, a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }

    #[inline(always)]
    fn add_to(self, sums: &mut [i32], value: v128) {
        let sums = &mut sums[..Self::LANES];
        // SAFETY: the slice has the 16 bytes that are read and written.
        unsafe {
            let before = v128_load(sums.as_ptr().cast());
            v128_store(sums.as_mut_ptr().cast(), i32x4_add(before, value));
        }
    }

    #[inline(always)]
    fn store(self, sums: &mut [i32], value: v128) {
        let sums = &mut sums[..Self::LANES];
        // SAFETY: the slice has the 16 bytes that are written.
        unsafe { v128_store(sums.as_mut_ptr().cast(), value) }
    }
}

/// Weights of up to 7 bits, which are the same as signed bytes. A sum of 16 bits takes one product of
/// a quad, half of what the sums of [`Pairs`] have room for.
impl Pairs for WasmSimd128 {
    const NAME: &'static str = "wasmsimd128-i8u7i32";
    const TILES: &'static [usize] = &[2, 1];
    type Pairs = [v128; 2];

    #[inline(always)]
    fn no_pairs(self) -> [v128; 2] {
        [i32x4_splat(0); 2]
    }

    #[inline(always)]
    fn add_pairs(self, [low, high]: [v128; 2], w: v128, x: i32) -> [v128; 2] {
        let x = i32x4_splat(x);
        [
            i16x8_add(low, i16x8_extmul_low_i8x16(w, x)),
            i16x8_add(high, i16x8_extmul_high_i8x16(w, x)),
        ]
    }

    #[inline(always)]
    fn sum_pairs(self, [low, high]: [v128; 2]) -> v128 {
        self.sum_neighbours(
            i32x4_extadd_pairwise_i16x8(low),
            i32x4_extadd_pairwise_i16x8(high),
        )
    }
}

impl Words for WasmSimd128 {
    const NAME: &'static str = "wasmsimd128-i16u8i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    type Words = v128;

    #[inline(always)]
    fn widen(self, bytes: &[u8]) -> v128 {
        let bytes = &bytes[..8];
        // SAFETY: the slice has the 8 bytes that are read.
        unsafe { i16x8_load_extend_u8x8(bytes.as_ptr()) }
    }

    #[inline(always)]
    fn load_words(self, words: &[i16]) -> v128 {
        let words = &words[..8];
        // SAFETY: the slice has the 16 bytes that are read.
        unsafe { v128_load(words.as_ptr().cast()) }
    }

    #[inline(always)]
    fn broadcast(self, x: [i16; 4]) -> v128 {
        i64x2_splat(four_words(x))
    }

    #[inline(always)]
    fn add_products(self, sums: v128, w: v128, x: v128) -> v128 {
        i32x4_add(sums, i32x4_dot_i16x8(w, x))
    }

    #[inline(always)]
    fn sum_neighbours(self, low: v128, high: v128) -> v128 {
        i32x4_add(
            i32x4_shuffle::<0, 2, 4, 6>(low, high),
            i32x4_shuffle::<1, 3, 5, 7>(low, high),
        )
    }
}
