//! Floats, and one scale (and minimum) for 32 codes.

use half::{bf16, f16};

use super::{
    important, inverse, of_greatest_magnitude, over_blocks,
    search::{Ladder, make_qkx, make_qx},
    square_sum, write_half, write_halves,
};

pub(super) fn f32(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(row, None, bytes, |&[x], _, bytes| {
        *bytes = x.to_le_bytes();
        Some(())
    })
}

pub(super) fn f16(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(row, None, bytes, |&[x], _, bytes| {
        let half = f16::from_f32(x);
        *bytes = half.to_le_bytes();
        half.is_finite().then_some(())
    })
}

pub(super) fn bf16(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(row, None, bytes, |&[x], _, bytes| {
        let brain = bf16::from_f32(x);
        *bytes = brain.to_le_bytes();
        brain.is_finite().then_some(())
    })
}

/// `(x + offset)` cut to an integer from 0 to `high`.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the fraction is to be cut, and what is beyond saturates"
)]
fn cut(x: f32, offset: f32, high: u8) -> u8 {
    ((x + offset) as u8).min(high)
}

/// Importance times the root of the row's mean square and the element's square.
fn weights(row: &[f32], x: &[f32; 32], importance: &[f32]) -> [f32; 32] {
    #[expect(clippy::cast_precision_loss, reason = "as ggml divides")]
    let sigma2 = square_sum(row) / row.len() as f32;
    important(x, sigma2, importance)
}

/// Scale and codes about `middle`: codes are written with it added.
fn symmetric(
    row: &[f32],
    x: &[f32; 32],
    importance: Option<&[f32]>,
    middle: u8,
) -> (f32, [u8; 32]) {
    let mut codes = [0; 32];
    if let Some(importance) = importance {
        let weights = weights(row, x, importance);
        let scale = make_qx(middle.into(), x, Some(&weights), &mut codes);
        return (scale, codes);
    }
    let scale = of_greatest_magnitude(x) / -f32::from(middle);
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = cut(x * inverse, f32::from(middle) + 0.5, 2 * middle - 1);
    }
    (scale, codes)
}

/// Scale, minimum and codes from 0 to `high`.
fn asymmetric(
    row: &[f32],
    x: &[f32; 32],
    importance: Option<&[f32]>,
    high: u8,
) -> (f32, f32, [u8; 32]) {
    let mut codes = [0; 32];
    if let Some(importance) = importance {
        let weights = weights(row, x, importance);
        let (scale, minus_min) = make_qkx(high, x, &weights, &mut codes, Ladder::IMPORTANCE);
        return (scale, -minus_min, codes);
    }
    let (mut min, mut max) = (x[0], x[0]);
    for &x in x {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
    }
    let scale = (max - min) / f32::from(high);
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = cut((x - min) * inverse, 0.5, high);
    }
    (scale, min, codes)
}

pub(super) fn q4_0(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 18]| {
            let (scale, codes) = symmetric(row, x, importance, 8);
            write_half(bytes, 0, scale)?;
            write_halves(&codes, &mut bytes[2..]);
            Some(())
        },
    )
}

pub(super) fn q4_1(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 20]| {
            let (scale, min, codes) = asymmetric(row, x, importance, 15);
            write_half(bytes, 0, scale)?;
            write_half(bytes, 2, min)?;
            write_halves(&codes, &mut bytes[4..]);
            Some(())
        },
    )
}

/// Codes of 5 bits: four bytes of their highest bits, then the rest.
fn write_five_bits(codes: &[u8; 32], bytes: &mut [u8]) {
    bytes[..4].fill(0);
    for (j, code) in codes.iter().enumerate() {
        bytes[j / 8] |= code >> 4 << (j % 8);
    }
    write_halves(&codes.map(|code| code & 15), &mut bytes[4..]);
}

pub(super) fn q5_0(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 22]| {
            let (scale, codes) = symmetric(row, x, importance, 16);
            write_half(bytes, 0, scale)?;
            write_five_bits(&codes, &mut bytes[2..]);
            Some(())
        },
    )
}

pub(super) fn q5_1(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x, importance, bytes: &mut [u8; 24]| {
            let (scale, min, codes) = asymmetric(row, x, importance, 31);
            write_half(bytes, 0, scale)?;
            write_half(bytes, 2, min)?;
            write_five_bits(&codes, &mut bytes[4..]);
            Some(())
        },
    )
}

pub(super) fn q8_0(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 32], _, bytes: &mut [u8; 34]| {
            let scale = of_greatest_magnitude(x).abs() / 127.0;
            write_half(bytes, 0, scale)?;
            let inverse = inverse(scale);
            for (byte, x) in bytes[2..].iter_mut().zip(x) {
                #[expect(clippy::cast_possible_truncation, reason = "rounded, and at most 127")]
                let code = (x * inverse).round() as i8;
                *byte = code.cast_unsigned();
            }
            Some(())
        },
    )
}
