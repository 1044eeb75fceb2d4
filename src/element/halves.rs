//! Conversions of 16-bit floats without a branch, for loops that become vectors on every target.
//!
//! They give the bits of those of the crate [`half`], NaN included.

use half::{bf16, f16};

#[cfg(target_arch = "x86_64")]
use crate::simd::x86::Widest;

/// A 16-bit float in loops.
pub(super) trait Half: Copy {
    /// The value, exactly.
    fn widened(self) -> f32;

    /// The nearest value, ties to even.
    fn narrowed(value: f32) -> Self;

    /// Widens as many values as both slices have.
    #[inline(always)]
    fn widen(halves: &[Self], floats: &mut [f32]) {
        widen_each(halves, floats);
    }

    /// Rounds as many values as both slices have.
    #[inline(always)]
    fn narrow(floats: &[f32], halves: &mut [Self]) {
        narrow_each(floats, halves);
    }
}

#[inline(always)]
fn widen_each<H: Half>(halves: &[H], floats: &mut [f32]) {
    for (float, half) in floats.iter_mut().zip(halves) {
        *float = half.widened();
    }
}

#[inline(always)]
fn narrow_each<H: Half>(floats: &[f32], halves: &mut [H]) {
    for (half, &float) in halves.iter_mut().zip(floats) {
        *half = H::narrowed(float);
    }
}

/// The bits of a float without its sign.
const MAGNITUDE: u32 = 0x7fff_ffff;
const INFINITY: u32 = f32::INFINITY.to_bits();

/// What makes a NaN a quiet one.
const QUIET: u32 = 0x0040_0000;

impl Half for f16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        // 2^112: between the exponents of two floats whose exponent fields hold the same.
        const REBIAS: f32 = f32::from_bits((127 + 112) << 23);
        const INFINITE: u32 = 0x7c00 << 13;
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let finite = (f32::from_bits(magnitude) * REBIAS).to_bits();
        let quiet = if magnitude > INFINITE { QUIET } else { 0 };
        let other = magnitude | INFINITY | quiet;
        let value = if magnitude < INFINITE { finite } else { other };
        f32::from_bits(value | (bits & 0x8000) << 16)
    }

    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "the bits are 16")]
    fn narrowed(value: f32) -> Self {
        /// The least magnitude that becomes a normal number, 2^-14.
        const NORMAL: u32 = (127 - 14) << 23;
        /// Half the least that becomes infinity, and beyond: 65,520.
        const INFINITE: u32 = 65_520.0_f32.to_bits();
        let bits = value.to_bits();
        let magnitude = bits & MAGNITUDE;
        let even = (magnitude + 0x0fff + (magnitude >> 13 & 1)) >> 13;
        let normal = even.wrapping_sub((127 - 15) << 10);
        // The last bit of 0.5 is worth as much as that of a subnormal half: adding it rounds.
        let small = (f32::from_bits(magnitude) + 0.5).to_bits();
        let small = small.wrapping_sub(0.5_f32.to_bits());
        let nan = 0x7e00 | (magnitude >> 13 & 0x03ff);
        let finite = if magnitude < NORMAL { small } else { normal };
        let number = if magnitude < INFINITE { finite } else { 0x7c00 };
        let magnitude = if magnitude > INFINITY { nan } else { number };
        Self::from_bits((magnitude | bits >> 16 & 0x8000) as u16)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn widen(halves: &[Self], floats: &mut [f32]) {
        match Widest::in_use().avx2() {
            Some(avx2) => avx2.widen(halves, floats),
            None => widen_each(halves, floats),
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn narrow(floats: &[f32], halves: &mut [Self]) {
        match Widest::in_use().avx2() {
            Some(avx2) => avx2.narrow(floats, halves),
            None => narrow_each(floats, halves),
        }
    }
}

impl Half for bf16 {
    #[inline(always)]
    fn widened(self) -> f32 {
        let bits = u32::from(self.to_bits()) << 16;
        let quiet = if bits & MAGNITUDE > INFINITY {
            QUIET
        } else {
            0
        };
        f32::from_bits(bits | quiet)
    }

    #[inline(always)]
    fn narrowed(value: f32) -> Self {
        let bits = value.to_bits();
        let even = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let is_nan = bits & MAGNITUDE > INFINITY;
        let rounded = if is_nan { bits | QUIET } else { even };
        Self::from_bits((rounded >> 16) as u16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_is_widened_as_the_crate_does() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            assert_eq!(half.widened().to_bits(), half.to_f32().to_bits());
            assert_eq!(brain.widened().to_bits(), brain.to_f32().to_bits());
        }
    }

    /// What slices of every length are converted to is what each value is.
    fn by_slices<H: Half>(halves: &[H]) {
        for len in (0..20).chain([halves.len()]) {
            let mut floats = vec![-1.0; len];
            H::widen(&halves[halves.len() - len..], &mut floats);
            let expected = halves[halves.len() - len..]
                .iter()
                .map(|half| half.widened());
            assert!(
                floats
                    .iter()
                    .map(|x| x.to_bits())
                    .eq(expected.map(f32::to_bits))
            );
            let mut back = vec![halves[0]; len];
            H::narrow(&floats, &mut back);
            // The bits, since NaN is no number's equal.
            let bits = |half: &H| half.widened().to_bits();
            let expected = floats.iter().map(|&float| bits(&H::narrowed(float)));
            assert!(back.iter().map(bits).eq(expected));
        }
    }

    #[test]
    fn slices_are_converted_as_values_are() {
        by_slices(&(0..=u16::MAX).map(f16::from_bits).collect::<Vec<_>>());
        by_slices(&(0..=u16::MAX).map(bf16::from_bits).collect::<Vec<_>>());
    }

    #[test]
    fn floats_are_narrowed_as_the_crate_does() {
        // Every exponent and sign, with the patterns that rounding looks at.
        let low = [0, 1, 0x0fff, 0x1000, 0x1001, 0x7fff, 0x8000, 0x8001];
        for high in 0..=u16::MAX {
            for low in low {
                for value in [u32::from(high) << 16 | low, u32::from(high) << 13 | low] {
                    let value = f32::from_bits(value);
                    let (half, brain) = (f16::narrowed(value), bf16::narrowed(value));
                    let mut one = [f16::ZERO];
                    f16::narrow(&[value], &mut one);
                    assert_eq!(one[0].to_bits(), half.to_bits(), "{value:?}");
                    assert_eq!(half.to_bits(), f16::from_f32(value).to_bits(), "{value:?}");
                    assert_eq!(
                        brain.to_bits(),
                        bf16::from_f32(value).to_bits(),
                        "{value:?}"
                    );
                }
            }
        }
        for half in 0..0x7c00 {
            // Midway between two halves, and beside it.
            let below = f64::from(f16::from_bits(half));
            let above = f64::from(f16::from_bits(half + 1));
            #[expect(clippy::cast_possible_truncation, reason = "exact, but at infinity")]
            let middle = ((below + above) / 2.0) as f32;
            for value in [middle, middle.next_up(), middle.next_down(), -middle] {
                assert_eq!(
                    f16::narrowed(value).to_bits(),
                    f16::from_f32(value).to_bits()
                );
            }
        }
    }
}
