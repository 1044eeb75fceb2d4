//! The K types: 256 elements under one or two f16, in groups of 16 or 32 with small scales.

use super::{half_at, level, over_blocks};

/// Calls `each(element, bits 2·plane and up of its byte)` for codes of two bits: in each half of a
/// block, byte `l` holds elements `l`, `l + 32`, `l + 64` and `l + 96`.
fn two_bit_planes(codes: &[u8], mut each: impl FnMut(usize, u8)) {
    for (half, codes) in codes.chunks_exact(32).enumerate() {
        for plane in 0..4 {
            for (l, byte) in codes.iter().enumerate() {
                each(half * 128 + plane * 32 + l, byte >> (2 * plane) & 3);
            }
        }
    }
}

/// `u8 scales[16]` (scale low, minimum high); `u8 codes[64]; f16 d, dmin`.
pub(super) fn q2_k(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 84], floats: &mut [f32; 256]| {
            let (d, dmin) = (half_at(bytes, 80), half_at(bytes, 82));
            two_bit_planes(&bytes[16..80], |element, code| {
                let scales = bytes[element / 16];
                let scale = d * level(scales & 15, 0);
                let minimum = dmin * level(scales >> 4, 0);
                floats[element] = scale * level(code, 0) - minimum;
            });
        },
    );
}

/// `u8 high[32]; u8 codes[64]; u8 scales[12]; f16 d`; a set high bit means that 4 is not taken off.
pub(super) fn q3_k(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 110], floats: &mut [f32; 256]| {
            let d = half_at(bytes, 108);
            let packed = &bytes[96..108];
            // Low four bits in the halves of the first eight bytes, high two in the last four.
            let scales: [f32; 16] = std::array::from_fn(|j| {
                let low = packed[j % 8] >> (4 * (j / 8)) & 15;
                let high = packed[8 + j % 4] >> (2 * (j / 4)) & 3;
                d * level(low | high << 4, 32)
            });
            two_bit_planes(&bytes[32..96], |element, code| {
                let high = bytes[element % 32] >> (element / 32) & 1;
                floats[element] = scales[element / 16] * level(code | high << 2, 4);
            });
        },
    );
}

/// The 6-bit scale and minimum of each of eight groups, in 12 bytes.
pub(in crate::io::gguf) fn scales_and_minimums(packed: &[u8]) -> [(u8, u8); 8] {
    std::array::from_fn(|j| {
        if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            (
                packed[j + 4] & 15 | packed[j - 4] >> 6 << 4,
                packed[j + 4] >> 4 | packed[j] >> 6 << 4,
            )
        }
    })
}

/// What Q4_K and Q5_K share: `f16 d, dmin; u8 scales[12]`, then codes of 4 bits, group `2k` in the
/// low halves of 32 bytes and group `2k + 1` in the high ones; `high` adds the fifth bit.
fn four_bits(
    bytes: &[u8],
    codes: &[u8],
    floats: &mut [f32; 256],
    high: impl Fn(usize, usize) -> u8,
) {
    let (d, dmin) = (half_at(bytes, 0), half_at(bytes, 2));
    let scales = scales_and_minimums(&bytes[4..16]);
    for (group, floats) in floats.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scales[group];
        let (scale, minimum) = (d * level(scale, 0), dmin * level(minimum, 0));
        let codes = &codes[group / 2 * 32..];
        for (l, float) in floats.iter_mut().enumerate() {
            let code = codes[l] >> (4 * (group % 2)) & 15 | high(group, l);
            *float = scale * level(code, 0) - minimum;
        }
    }
}

/// `f16 d, dmin; u8 scales[12]; u8 codes[128]`.
pub(super) fn q4_k(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 144], floats| {
        four_bits(bytes, &bytes[16..], floats, |_, _| 0);
    });
}

/// `f16 d, dmin; u8 scales[12]; u8 high[32]; u8 codes[128]`, group `g`'s high bits in bit `g`.
pub(super) fn q5_k(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(bytes, floats, |bytes: &[u8; 176], floats| {
        let high = &bytes[16..48];
        four_bits(bytes, &bytes[48..], floats, |group, l| {
            (high[l] >> group & 1) << 4
        });
    });
}

/// `u8 low[128]; u8 high[64]; i8 scales[16]; f16 d`: per half of a block, low halves of 64 bytes,
/// then their high halves, and two more bits as in [`two_bit_planes`].
pub(super) fn q6_k(bytes: &[u8], floats: &mut [f32]) {
    over_blocks(
        bytes,
        floats,
        |bytes: &[u8; 210], floats: &mut [f32; 256]| {
            let d = half_at(bytes, 208);
            two_bit_planes(&bytes[128..192], |element, high| {
                let (half, within) = (element / 128, element % 128);
                let low = bytes[half * 64 + within % 64] >> (4 * (within / 64)) & 15;
                let scale = d * f32::from(bytes[192 + element / 16].cast_signed());
                floats[element] = scale * level(low | high << 4, 32);
            });
        },
    );
}
