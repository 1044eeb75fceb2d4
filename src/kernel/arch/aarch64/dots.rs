//! NEON with dot products of bytes: `sdot` takes signed weights, `usdot` unsigned ones.
//!
//! By inline assembly: the intrinsics of both are unstable.

use std::arch::{
    aarch64::{
        int8x16_t, int32x4_t, uint8x16_t, vaddq_s32, vandq_u8, vandq_u32, vdupq_n_s32, vdupq_n_u8,
        vdupq_n_u32, veorq_u8, vld1q_u8, vorrq_u8, vreinterpretq_s8_s32, vreinterpretq_s32_u32,
        vreinterpretq_u32_u8, vshlq_n_u8, vshrq_n_u8, vshrq_n_u32, vst1q_u8,
    },
    asm,
};

use super::neon_bytes;
use crate::{
    kernel::arch::vector::{Dot, Vector, shifted},
    simd::{
        Loops,
        aarch64::{NeonDotprod, NeonI8mm},
    },
};

macro_rules! vector {
    ($proof:ty) => {
        impl Vector for $proof {
            neon_bytes!();

            type Sums = int32x4_t;

            #[inline(always)]
            fn zero(self) -> int32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vdupq_n_s32(0) }
            }

            #[inline(always)]
            fn add(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vaddq_s32(a, b) }
            }

            #[inline(always)]
            fn lanes(self, sums: int32x4_t) -> int32x4_t {
                sums
            }

            #[inline(always)]
            fn of_lanes(self, lanes: int32x4_t) -> int32x4_t {
                lanes
            }
        }
    };
}

vector!(NeonDotprod);
vector!(NeonI8mm);

impl Dot for NeonDotprod {
    const NAME: &'static str = "neondotprod-i8i8i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    const UNSIGNED: bool = false;

    #[inline(always)]
    fn dot(self, sums: int32x4_t, w: uint8x16_t, x: i32) -> int32x4_t {
        #[target_feature(enable = "neon,dotprod")]
        #[inline]
        fn sdot(mut sums: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
            // SAFETY: the function has the instruction, which changes nothing but its first operand.
            unsafe {
                asm!(
                    "sdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
                    sums = inout(vreg) sums,
                    w = in(vreg) w,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sums
        }
        // SAFETY: `self` proves NEON and its dot products.
        unsafe { sdot(sums, w, vreinterpretq_s8_s32(vdupq_n_s32(x))) }
    }
}

impl Dot for NeonI8mm {
    const NAME: &'static str = "neoni8mm-i8u8i32";
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    const UNSIGNED: bool = true;

    #[inline(always)]
    fn dot(self, sums: int32x4_t, w: uint8x16_t, x: i32) -> int32x4_t {
        #[target_feature(enable = "neon,i8mm")]
        #[inline]
        fn usdot(mut sums: int32x4_t, w: uint8x16_t, x: int8x16_t) -> int32x4_t {
            // SAFETY: the function has the instruction, which changes nothing but its first operand.
            unsafe {
                asm!(
                    "usdot {sums:v}.4s, {w:v}.16b, {x:v}.16b",
                    sums = inout(vreg) sums,
                    w = in(vreg) w,
                    x = in(vreg) x,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sums
        }
        // SAFETY: `self` proves NEON and i8mm.
        unsafe { usdot(sums, w, vreinterpretq_s8_s32(vdupq_n_s32(x))) }
    }
}
