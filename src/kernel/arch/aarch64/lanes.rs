//! Lanes of NEON.

use std::arch::aarch64::{
    float32x4_t, int32x4_t, vaddq_f32, vaddq_s32, vcvtq_f32_s32, vdupq_n_f32, vdupq_n_s32,
    vfmaq_n_f32, vld1q_f32, vld1q_s32, vmlsq_s32, vmulq_f32, vst1q_f32, vst1q_s32, vsubq_f32,
};

use crate::{
    kernel::arch::lanes::Lanes,
    simd::aarch64::{Neon, NeonDotprod, NeonI8mm},
};

macro_rules! lanes {
    ($proof:ty) => {
        impl Lanes for $proof {
            const LANES: usize = 4;
            type Lanes = int32x4_t;
            type Floats = float32x4_t;

            #[inline(always)]
            fn load_lanes(self, from: &[i32]) -> int32x4_t {
                let from = &from[..4];
                // SAFETY: `self` proves NEON; the slice has the 16 bytes that are read.
                unsafe { vld1q_s32(from.as_ptr()) }
            }

            #[inline(always)]
            fn widen_to_lanes(self, from: &[u8]) -> int32x4_t {
                let wide = [from[0], from[1], from[2], from[3]].map(i32::from);
                self.load_lanes(&wide)
            }

            #[inline(always)]
            fn store_lanes(self, to: &mut [i32], lanes: int32x4_t) {
                let to = &mut to[..4];
                // SAFETY: `self` proves NEON; the slice has the 16 bytes that are written.
                unsafe { vst1q_s32(to.as_mut_ptr(), lanes) }
            }

            #[inline(always)]
            fn add_lanes(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vaddq_s32(a, b) }
            }

            #[inline(always)]
            fn splat(self, value: i32) -> int32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vdupq_n_s32(value) }
            }

            #[inline(always)]
            fn subtract_products(
                self,
                lanes: int32x4_t,
                factors: int32x4_t,
                value: i32,
            ) -> int32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vmlsq_s32(lanes, factors, vdupq_n_s32(value)) }
            }

            #[inline(always)]
            fn load_floats(self, from: &[f32]) -> float32x4_t {
                let from = &from[..4];
                // SAFETY: `self` proves NEON; the slice has the 16 bytes that are read.
                unsafe { vld1q_f32(from.as_ptr()) }
            }

            #[inline(always)]
            fn add_scaled(self, sums: &mut [f32], lanes: int32x4_t, scale: float32x4_t) {
                let sums = &mut sums[..4];
                // SAFETY: `self` proves NEON; the slice has the 16 bytes that are read and written.
                unsafe {
                    let product = vmulq_f32(vcvtq_f32_s32(lanes), scale);
                    let sum = vaddq_f32(vld1q_f32(sums.as_ptr()), product);
                    vst1q_f32(sums.as_mut_ptr(), sum);
                }
            }

            #[inline(always)]
            fn add_scaled_from(
                self,
                sums: &mut [f32],
                lanes: int32x4_t,
                (zero, x): (float32x4_t, f32),
                scale: float32x4_t,
            ) {
                let sums = &mut sums[..4];
                // SAFETY: `self` proves NEON; the slice has the 16 bytes that are read and written.
                unsafe {
                    let from = vmulq_f32(zero, vdupq_n_f32(x));
                    let codes = vsubq_f32(vcvtq_f32_s32(lanes), from);
                    let product = vmulq_f32(codes, scale);
                    let sum = vaddq_f32(vld1q_f32(sums.as_ptr()), product);
                    vst1q_f32(sums.as_mut_ptr(), sum);
                }
            }

            #[inline(always)]
            fn scaled(self, lanes: int32x4_t, scale: float32x4_t) -> float32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vmulq_f32(vcvtq_f32_s32(lanes), scale) }
            }

            #[inline(always)]
            fn scaled_from(
                self,
                lanes: int32x4_t,
                zero: float32x4_t,
                scale: float32x4_t,
            ) -> float32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vmulq_f32(vsubq_f32(vcvtq_f32_s32(lanes), zero), scale) }
            }

            #[inline(always)]
            fn multiply_add(self, sums: float32x4_t, x: f32, w: float32x4_t) -> float32x4_t {
                // SAFETY: `self` proves NEON.
                unsafe { vfmaq_n_f32(sums, w, x) }
            }

            #[inline(always)]
            fn store_floats(self, to: &mut [f32], floats: float32x4_t) {
                let to = &mut to[..4];
                // SAFETY: `self` proves NEON; the slice has the 16 bytes that are written.
                unsafe { vst1q_f32(to.as_mut_ptr(), floats) }
            }
        }
    };
}

lanes!(Neon);
lanes!(NeonDotprod);
lanes!(NeonI8mm);
