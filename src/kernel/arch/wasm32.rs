//! Vectors of WebAssembly, of 128 bits. Compiled only where the whole module is for them, so that
//! only loads and stores are unsafe.
#![allow(
    unsafe_code,
    reason = "loads and stores of vectors; each block says what makes them sound"
)]

use std::arch::wasm32::{
    f32x4_add, f32x4_convert_i32x4, f32x4_mul, f32x4_splat, f32x4_sub, i16x8_add,
    i16x8_extmul_high_i8x16, i16x8_extmul_low_i8x16, i16x8_load_extend_u8x8, i16x8_shl, i32x4,
    i32x4_add, i32x4_dot_i16x8, i32x4_extadd_pairwise_i16x8, i32x4_mul, i32x4_shuffle, i32x4_splat,
    i32x4_sub, i64x2_splat, u8x16_splat, u16x8_shr, u32x4_shr, v128, v128_and, v128_load, v128_or,
    v128_store, v128_xor,
};

use super::{
    lanes::Lanes,
    vector::{PairSums, Vector},
    words::{Words, four_words},
};
use crate::simd::{Loops, wasm32::WasmSimd128};

impl Vector for WasmSimd128 {
    const PACKED_TILES: &'static [usize] = &[4, 2, 1];
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
    fn store(self, to: &mut [u8], bytes: v128) {
        let to = &mut to[..16];
        // SAFETY: the slice has the 16 bytes that are written.
        unsafe { v128_store(to.as_mut_ptr().cast(), bytes) }
    }

    #[inline(always)]
    fn mask(self, bytes: v128, mask: u8) -> v128 {
        v128_and(bytes, u8x16_splat(mask))
    }

    #[inline(always)]
    fn lane_bytes(self, bytes: v128, t: u32) -> v128 {
        v128_and(u32x4_shr(bytes, 8 * t), i32x4_splat(0xff))
    }

    #[inline(always)]
    fn flip(self, bytes: v128, mask: u8) -> v128 {
        v128_xor(bytes, u8x16_splat(mask))
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
    fn lanes(self, sums: v128) -> v128 {
        sums
    }

    #[inline(always)]
    fn of_lanes(self, lanes: v128) -> v128 {
        lanes
    }
}

impl Lanes for WasmSimd128 {
    const LANES: usize = 4;
    type Lanes = v128;
    type Floats = v128;

    #[inline(always)]
    fn load_lanes(self, from: &[i32]) -> v128 {
        let from = &from[..4];
        // SAFETY: the slice has the 16 bytes that are read.
        unsafe { v128_load(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn widen_to_lanes(self, from: &[u8]) -> v128 {
        let [a, b, c, d] = [from[0], from[1], from[2], from[3]].map(i32::from);
        i32x4(a, b, c, d)
    }

    #[inline(always)]
    fn store_lanes(self, to: &mut [i32], lanes: v128) {
        let to = &mut to[..4];
        // SAFETY: the slice has the 16 bytes that are written.
        unsafe { v128_store(to.as_mut_ptr().cast(), lanes) }
    }

    #[inline(always)]
    fn add_lanes(self, a: v128, b: v128) -> v128 {
        i32x4_add(a, b)
    }

    #[inline(always)]
    fn splat(self, value: i32) -> v128 {
        i32x4_splat(value)
    }

    #[inline(always)]
    fn subtract_products(self, lanes: v128, factors: v128, value: i32) -> v128 {
        i32x4_sub(lanes, i32x4_mul(factors, i32x4_splat(value)))
    }

    #[inline(always)]
    fn load_floats(self, from: &[f32]) -> v128 {
        let from = &from[..4];
        // SAFETY: the slice has the 16 bytes that are read.
        unsafe { v128_load(from.as_ptr().cast()) }
    }

    #[inline(always)]
    fn add_scaled(self, sums: &mut [f32], lanes: v128, scale: v128) {
        let product = f32x4_mul(f32x4_convert_i32x4(lanes), scale);
        let sum = f32x4_add(self.load_floats(sums), product);
        let sums = &mut sums[..4];
        // SAFETY: the slice has the 16 bytes that are written.
        unsafe { v128_store(sums.as_mut_ptr().cast(), sum) }
    }

    #[inline(always)]
    fn add_scaled_from(self, sums: &mut [f32], lanes: v128, (zero, x): (v128, f32), scale: v128) {
        let from = f32x4_mul(zero, f32x4_splat(x));
        let product = f32x4_mul(f32x4_sub(f32x4_convert_i32x4(lanes), from), scale);
        let sum = f32x4_add(self.load_floats(sums), product);
        let sums = &mut sums[..4];
        // SAFETY: the slice has the 16 bytes that are written.
        unsafe { v128_store(sums.as_mut_ptr().cast(), sum) }
    }

    #[inline(always)]
    fn scaled(self, lanes: v128, scale: v128) -> v128 {
        f32x4_mul(f32x4_convert_i32x4(lanes), scale)
    }

    #[inline(always)]
    fn scaled_from(self, lanes: v128, zero: v128, scale: v128) -> v128 {
        f32x4_mul(f32x4_sub(f32x4_convert_i32x4(lanes), zero), scale)
    }

    #[inline(always)]
    fn multiply_add(self, sums: v128, x: f32, w: v128) -> v128 {
        f32x4_add(sums, f32x4_mul(f32x4_splat(x), w))
    }

    #[inline(always)]
    fn store_floats(self, to: &mut [f32], floats: v128) {
        let to = &mut to[..4];
        // SAFETY: the slice has the 16 bytes that are written.
        unsafe { v128_store(to.as_mut_ptr().cast(), floats) }
    }
}

/// Weights of up to 7 bits, which are the same as signed bytes. A sum of 16 bits takes one product of
/// a quad, half of what the sums of [`Pairs`](super::products::Pairs) have room for.
impl PairSums for WasmSimd128 {
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
