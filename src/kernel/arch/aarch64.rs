//! Vectors of aarch64, of 128 bits.
#![allow(
    unsafe_code,
    reason = "instructions that not every machine has; each block says what proves them"
)]

mod dots;
mod lanes;
mod multiply;

/// What [`Vector`](super::vector::Vector) asks for bytes, which is the same wherever NEON is.
macro_rules! neon_bytes {
    () => {
        const PACKED_TILES: &'static [usize] = &[4, 2, 1];
        const FUSED: bool = true;
        type Bytes = uint8x16_t;

        fn run<L: Loops>(self, loops: L) -> L::Output {
            self.run(loops)
        }

        #[inline(always)]
        fn load(self, bytes: &[u8]) -> uint8x16_t {
            let bytes = &bytes[..16];
            // SAFETY: `self` proves NEON; the slice has the 16 bytes that are read.
            unsafe { vld1q_u8(bytes.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, to: &mut [u8], bytes: uint8x16_t) {
            let to = &mut to[..16];
            // SAFETY: `self` proves NEON; the slice has the 16 bytes that are written.
            unsafe { vst1q_u8(to.as_mut_ptr(), bytes) }
        }

        #[inline(always)]
        fn mask(self, bytes: uint8x16_t, mask: u8) -> uint8x16_t {
            // SAFETY: `self` proves NEON.
            unsafe { vandq_u8(bytes, vdupq_n_u8(mask)) }
        }

        #[inline(always)]
        fn lane_bytes(self, bytes: uint8x16_t, t: u32) -> int32x4_t {
            // SAFETY: `self` proves NEON.
            unsafe {
                let words = vreinterpretq_u32_u8(bytes);
                let moved = match t {
                    0 => words,
                    1 => vshrq_n_u32::<8>(words),
                    2 => vshrq_n_u32::<16>(words),
                    _ => vshrq_n_u32::<24>(words),
                };
                vreinterpretq_s32_u32(vandq_u32(moved, vdupq_n_u32(0xff)))
            }
        }

        #[inline(always)]
        fn flip(self, bytes: uint8x16_t, mask: u8) -> uint8x16_t {
            // SAFETY: `self` proves NEON.
            unsafe { veorq_u8(bytes, vdupq_n_u8(mask)) }
        }

        #[inline(always)]
        fn or(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
            // SAFETY: `self` proves NEON.
            unsafe { vorrq_u8(a, b) }
        }

        #[inline(always)]
        fn shift_down(self, bytes: uint8x16_t, by: u32) -> uint8x16_t {
            // SAFETY: `self` proves NEON.
            unsafe { shifted!(vshrq_n_u8, bytes, by) }
        }

        #[inline(always)]
        fn shift_up(self, bytes: uint8x16_t, by: u32) -> uint8x16_t {
            // SAFETY: `self` proves NEON.
            unsafe { shifted!(vshlq_n_u8, bytes, by) }
        }
    };
}

use neon_bytes;
