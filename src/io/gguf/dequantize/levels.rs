//! Four bits that index a table of uneven levels.

use super::{half_at, level, over_blocks};

/// The levels of IQ4_NL and IQ4_XS.
pub(in crate::io::gguf) const UNEVEN: [i8; 16] = [
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
];

/// Twice the values of E2M1; the scales beside them are halved. Negative zero is read as zero.
pub(in crate::io::gguf) const TWICE_E2M1: [i8; 16] =
    [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

/// Low halves of the bytes, then their high halves, through a table and times a scale.
fn look_up(table: &[i8; 16], codes: &[u8], scale: f32, floats: &mut [f32]) {
    let (low, high) = floats.split_at_mut(codes.len());
    for ((byte, low), high) in codes.iter().zip(low).zip(high) {
        *low = scale * f32::from(table[usize::from(byte & 15)]);
        *high = scale * f32::from(table[usize::from(byte >> 4)]);
    }
}

/// `f16 d; u8 codes[16]`.
pub(super) fn iq4_nl(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 18], floats: &mut [f32; 32]| {
        look_up(&UNEVEN, &bytes[2..], half_at(bytes, 0), floats);
    });
}

/// `f16 d; u16 high; u8 low[4]; u8 codes[128]`: eight scales of 4 + 2 bits about 32.
pub(super) fn iq4_xs(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 136], floats: &mut [f32; 256]| {
            let d = half_at(bytes, 0);
            let groups = bytes[8..].chunks_exact(16).zip(floats.chunks_exact_mut(32));
            for (group, (codes, floats)) in groups.enumerate() {
                let low = bytes[4 + group / 2] >> (4 * (group % 2)) & 15;
                let high = bytes[2 + group / 4] >> (2 * (group % 4)) & 3;
                look_up(&UNEVEN, codes, d * level(low | high << 4, 32), floats);
            }
        },
    );
}

/// Half of `2^(exponent − 127)`, which is subnormal for the exponents 0 and 1.
pub(in crate::io::gguf) fn half_power_of_two(exponent: u8) -> f32 {
    f32::from_bits(match exponent {
        0 | 1 => 0x0020_0000 << exponent,
        _ => (u32::from(exponent) - 1) << 23,
    })
}

/// `u8 exponent; u8 codes[16]`.
pub(super) fn mxfp4(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 17], floats: &mut [f32; 32]| {
        look_up(
            &TWICE_E2M1,
            &bytes[1..],
            half_power_of_two(bytes[0]),
            floats,
        );
    });
}

/// Half of an unsigned float of 4 exponent bits (bias 7) and 3 mantissa bits; its NaN and the sign
/// bit, which no writer sets, are read as ggml reads them: 0 and nothing.
pub(in crate::io::gguf) fn half_scale(pattern: u8) -> f32 {
    if pattern == 0x7f {
        return 0.0;
    }
    let (exponent, mantissa) = (pattern >> 3 & 15, pattern & 7);
    let implicit = u8::from(exponent > 0) << 3;
    let power = f32::from_bits((u32::from(exponent.max(1)) + 127 - 7 - 3 - 1) << 23);
    f32::from(implicit + mantissa) * power
}

/// `u8 scales[4]; u8 codes[32]`, a scale for 16 elements: 8 low halves, then their high halves.
pub(super) fn nvfp4(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 36], floats: &mut [f32; 64]| {
        let groups = bytes[4..].chunks_exact(8).zip(floats.chunks_exact_mut(16));
        for (&scale, (codes, floats)) in bytes[..4].iter().zip(groups) {
            look_up(&TWICE_E2M1, codes, half_scale(scale), floats);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{FloatFormat, codes::minifloat};

    #[test]
    fn scales_are_half_of_what_their_formats_say() {
        for pattern in 0..0x7f {
            let whole = minifloat::decode(pattern, FloatFormat::E4M3);
            assert_eq!(half_scale(pattern), whole / 2.0);
        }
        for exponent in 0..=254 {
            let whole = 2f64.powi(i32::from(exponent) - 127);
            assert_eq!(f64::from(half_power_of_two(exponent)), whole / 2.0);
        }
    }
}
