//! Floats, and one scale (and minimum) for 32 codes.

use half::{bf16, f16};

use super::{half_at, level, over_blocks};

pub(super) fn f32(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |&bytes: &[u8; 4], [float]| {
        *float = f32::from_le_bytes(bytes);
    });
}

pub(super) fn f16(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |&bytes: &[u8; 2], [float]| {
        *float = f16::from_le_bytes(bytes).to_f32();
    });
}

pub(super) fn bf16(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |&bytes: &[u8; 2], [float]| {
        *float = bf16::from_le_bytes(bytes).to_f32();
    });
}

/// `f16 d; u8 codes[16]`, element `j` in a low half, `j + 16` in the high one.
pub(super) fn q4_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 18], floats: &mut [f32; 32]| {
        let d = half_at(bytes, 0);
        for (j, byte) in bytes[2..].iter().enumerate() {
            floats[j] = level(byte & 15, 8) * d;
            floats[j + 16] = level(byte >> 4, 8) * d;
        }
    });
}

/// `f16 d, m; u8 codes[16]`.
pub(super) fn q4_1(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 20], floats: &mut [f32; 32]| {
        let (d, m) = (half_at(bytes, 0), half_at(bytes, 2));
        for (j, byte) in bytes[4..].iter().enumerate() {
            floats[j] = level(byte & 15, 0) * d + m;
            floats[j + 16] = level(byte >> 4, 0) * d + m;
        }
    });
}

/// The codes of 5 bits: bit `j` of the first four bytes is the highest of code `j`.
fn five_bits(bytes: &[u8], mut each: impl FnMut(usize, u8)) {
    let high = |j: usize| (bytes[j / 8] >> (j % 8) & 1) << 4;
    for (j, byte) in bytes[4..].iter().enumerate() {
        each(j, byte & 15 | high(j));
        each(j + 16, byte >> 4 | high(j + 16));
    }
}

/// `f16 d; u8 high[4]; u8 codes[16]`.
pub(super) fn q5_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 22], floats: &mut [f32; 32]| {
        let d = half_at(bytes, 0);
        five_bits(&bytes[2..], |j, code| floats[j] = level(code, 16) * d);
    });
}

/// `f16 d, m; u8 high[4]; u8 codes[16]`.
pub(super) fn q5_1(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 24], floats: &mut [f32; 32]| {
        let (d, m) = (half_at(bytes, 0), half_at(bytes, 2));
        five_bits(&bytes[4..], |j, code| floats[j] = level(code, 0) * d + m);
    });
}

/// `f16 d; i8 codes[32]`.
pub(super) fn q8_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 34], floats: &mut [f32; 32]| {
        let d = half_at(bytes, 0);
        for (float, &byte) in floats.iter_mut().zip(&bytes[2..]) {
            *float = f32::from(byte.cast_signed()) * d;
        }
    });
}
