//! One scale and two, three or four levels.

use super::{inverse, of_greatest_magnitude, over_blocks, write_half};

/// `round(x / scale)`, half away from zero, from −1 to `high`, plus 1.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to 0 and more before"
)]
fn level(x: f32, inverse: f32, high: f32) -> u8 {
    ((x * inverse).round().clamp(-1.0, high) + 1.0) as u8
}

pub(super) fn tq1_0(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 256], _, bytes: &mut [u8; 54]| {
            let scale = of_greatest_magnitude(x).abs();
            write_half(bytes, 52, scale)?;
            let inverse = inverse(scale);
            // Where the bytes start, how many they are, and where their elements start.
            for (at, len, first, digits) in [(0, 32, 0, 5), (32, 16, 160, 5), (48, 4, 240, 4)] {
                for (m, byte) in bytes[at..at + len].iter_mut().enumerate() {
                    // A missing fifth digit is 0.
                    let number = (0..5).fold(0_u16, |number, n| {
                        let digit = if n < digits {
                            level(x[first + n * len + m], inverse, 1.0)
                        } else {
                            0
                        };
                        number * 3 + u16::from(digit)
                    });
                    // As a fraction of 256, rounded up, so that the digits come out by multiplying.
                    let [fraction, _] = (number * 256).div_ceil(243).to_le_bytes();
                    *byte = fraction;
                }
            }
            Some(())
        },
    )
}

pub(super) fn tq2_0(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 256], _, bytes: &mut [u8; 66]| {
            let scale = of_greatest_magnitude(x).abs();
            write_half(bytes, 64, scale)?;
            let inverse = inverse(scale);
            for (half, bytes) in bytes[..64].chunks_exact_mut(32).enumerate() {
                for (m, byte) in bytes.iter_mut().enumerate() {
                    let code = |n: usize| level(x[half * 128 + n * 32 + m], inverse, 1.0);
                    *byte = (0..4).fold(0, |byte, n| byte | code(n) << (2 * n));
                }
            }
            Some(())
        },
    )
}

pub(super) fn q1_0(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 128], _, bytes: &mut [u8; 18]| {
            let mut sum = 0.0;
            for x in x {
                sum += x.abs();
            }
            write_half(bytes, 0, sum / 128.0)?;
            for (byte, x) in bytes[2..].iter_mut().zip(x.chunks_exact(8)) {
                *byte = (0..8).fold(0, |byte, j| byte | u8::from(x[j] >= 0.0) << j);
            }
            Some(())
        },
    )
}

pub(super) fn q2_0(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 64], _, bytes: &mut [u8; 18]| {
            let scale = of_greatest_magnitude(x).abs();
            write_half(bytes, 0, scale)?;
            let inverse = inverse(scale);
            for (byte, x) in bytes[2..].iter_mut().zip(x.chunks_exact(4)) {
                *byte = (0..4).fold(0, |byte, j| byte | level(x[j], inverse, 2.0) << (2 * j));
            }
            Some(())
        },
    )
}
