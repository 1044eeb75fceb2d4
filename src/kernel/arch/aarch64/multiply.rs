//! NEON without dot products: bytes are multiplied into 16 bits.
//!
//! A vector of sums is two: every lane's are those of its even and its odd pair of products, side by
//! side, added only when they are stored.

use std::arch::aarch64::{
    int16x8_t, int32x4_t, uint8x16_t, vaddq_s32, vandq_u8, vandq_u32, vdupq_n_s16, vdupq_n_s32,
    vdupq_n_u8, vdupq_n_u32, veorq_u8, vget_low_s8, vld1q_u8, vmlal_high_s8, vmlal_s8,
    vmull_high_s8, vmull_s8, vorrq_u8, vpadalq_s16, vpaddlq_s16, vpaddq_s32, vreinterpretq_s8_s32,
    vreinterpretq_s8_u8, vreinterpretq_s32_u32, vreinterpretq_u32_u8, vshlq_n_u8, vshrq_n_u8,
    vshrq_n_u32, vst1q_u8, vzip1q_s32, vzip2q_s32,
};

use super::neon_bytes;
use crate::{
    kernel::arch::vector::{Dot, PairSums, Vector, shifted},
    simd::{Loops, aarch64::Neon},
};

impl Vector for Neon {
    neon_bytes!();

    type Sums = [int32x4_t; 2];

    #[inline(always)]
    fn zero(self) -> [int32x4_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_s32(0); 2] }
    }

    #[inline(always)]
    fn add(self, a: [int32x4_t; 2], b: [int32x4_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe { [vaddq_s32(a[0], b[0]), vaddq_s32(a[1], b[1])] }
    }

    #[inline(always)]
    fn lanes(self, [low, high]: [int32x4_t; 2]) -> int32x4_t {
        // SAFETY: `self` proves NEON.
        unsafe { vpaddq_s32(low, high) }
    }

    #[inline(always)]
    fn of_lanes(self, lanes: int32x4_t) -> [int32x4_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe {
            let zero = vdupq_n_s32(0);
            [vzip1q_s32(lanes, zero), vzip2q_s32(lanes, zero)]
        }
    }
}

/// Weights of 8 bits. A product of signed bytes fits 16 bits, a sum of two does not (2 · 128 · 128),
/// so that each pair is widened as it is added.
impl Dot for Neon {
    const NAME: &'static str = "neon-i8i8i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn dot(self, [low, high]: [int32x4_t; 2], w: uint8x16_t, x: i32) -> [int32x4_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe {
            let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_s32(vdupq_n_s32(x)));
            [
                vpadalq_s16(low, vmull_s8(vget_low_s8(w), vget_low_s8(x))),
                vpadalq_s16(high, vmull_high_s8(w, x)),
            ]
        }
    }
}

/// Weights of up to 7 bits, which are the same as signed bytes. A sum of 16 bits takes one product of
/// a quad, half of what the sums of [`Pairs`](crate::kernel::arch::products::Pairs) have room for.
impl PairSums for Neon {
    const NAME: &'static str = "neon-i8u7i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    type Pairs = [int16x8_t; 2];

    #[inline(always)]
    fn no_pairs(self) -> [int16x8_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe { [vdupq_n_s16(0); 2] }
    }

    #[inline(always)]
    fn add_pairs(self, [low, high]: [int16x8_t; 2], w: uint8x16_t, x: i32) -> [int16x8_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe {
            let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_s32(vdupq_n_s32(x)));
            [
                vmlal_s8(low, vget_low_s8(w), vget_low_s8(x)),
                vmlal_high_s8(high, w, x),
            ]
        }
    }

    #[inline(always)]
    fn sum_pairs(self, [low, high]: [int16x8_t; 2]) -> [int32x4_t; 2] {
        // SAFETY: `self` proves NEON.
        unsafe { [vpaddlq_s16(low), vpaddlq_s16(high)] }
    }
}
