//! One scale and two, three or four levels.

use super::{half_at, level, over_blocks};

/// `u8 codes[48]; u8 rest[4]; f16 d`: five base-3 digits a byte, the first the highest, as a
/// fraction of 256; elements of a digit lie side by side: 32 bytes, then 16, then 4 of four digits.
pub(super) fn tq1_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 54], floats: &mut [f32; 256]| {
            let d = half_at(bytes, 52);
            let mut at = 0;
            for (codes, digits) in [(&bytes[..32], 5), (&bytes[32..48], 5), (&bytes[48..52], 4)] {
                let mut power = 1_u8;
                for _ in 0..digits {
                    for byte in codes {
                        // What lies above the byte are digits already read.
                        let fraction = u16::from(byte.wrapping_mul(power));
                        let [_, digit] = (fraction * 3).to_le_bytes();
                        floats[at] = level(digit, 1) * d;
                        at += 1;
                    }
                    power = power.wrapping_mul(3);
                }
            }
        },
    );
}

/// `u8 codes[64]; f16 d`: per half of a block, byte `l` holds elements `l`, `l + 32`, `l + 64` and
/// `l + 96`.
pub(super) fn tq2_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 66], floats: &mut [f32; 256]| {
            let d = half_at(bytes, 64);
            for (element, float) in floats.iter_mut().enumerate() {
                let byte = bytes[element / 128 * 32 + element % 32];
                *float = level(byte >> (2 * (element / 32 % 4)) & 3, 1) * d;
            }
        },
    );
}

/// `f16 d; u8 signs[16]`: a set bit is `d`, a clear one `−d`.
pub(super) fn q1_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 18], floats: &mut [f32; 128]| {
            let d = half_at(bytes, 0);
            for (element, float) in floats.iter_mut().enumerate() {
                let positive = bytes[2 + element / 8] >> (element % 8) & 1 == 1;
                *float = if positive { d } else { -d };
            }
        },
    );
}

/// `f16 d; u8 codes[16]`: levels −1, 0, 1 and 2, four to a byte.
pub(super) fn q2_0(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 18], floats: &mut [f32; 64]| {
        let d = half_at(bytes, 0);
        for (element, float) in floats.iter_mut().enumerate() {
            *float = level(bytes[2 + element / 4] >> (2 * (element % 4)) & 3, 1) * d;
        }
    });
}
