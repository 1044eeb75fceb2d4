//! Q3_K and Q6_K: 256 elements under one f16, in groups of 16 with a small scale.

use super::{
    all_finite, important, of_greatest_magnitude, over_blocks,
    search::{GROUP_MAX_EPS, make_q3, make_qx, nearest_int, nearest_within},
    square_sum, write_half, write_halves, write_two_bit_planes,
};

pub(super) fn q3_k(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x: &[f32; 256], importance, bytes: &mut [u8; 110]| {
            let mut codes = [0; 256];
            let (mut scales, mut sums) = ([0.0; 16], [0.0; 16]);
            let sigma2 = 2.0 * square_sum(x) / 256.0;
            for (j, (x, codes)) in x
                .chunks_exact(16)
                .zip(codes.chunks_exact_mut(16))
                .enumerate()
            {
                scales[j] = match importance {
                    None => make_q3(4, x, codes),
                    Some(importance) => {
                        let weights: [f32; 16] = important(x, sigma2, &importance[j * 16..]);
                        sums[j] = weights.iter().fold(0.0, |sum, w| sum + w);
                        make_qx(4, x, Some(&weights), codes)
                    }
                };
            }
            all_finite(&scales)?;
            // With 32 added.
            let mut small = [0_u8; 16];
            let d = if importance.is_some() {
                make_qx(32, &scales, Some(&sums), &mut small)
            } else {
                let max = of_greatest_magnitude(&scales);
                if max == 0.0 {
                    0.0
                } else {
                    let inverse = -32.0 / max;
                    for (small, scale) in small.iter_mut().zip(scales) {
                        let code = nearest_within(inverse * scale, -32, 31);
                        *small = u8::try_from(code + 32).unwrap_or(0);
                    }
                    1.0 / inverse
                }
            };
            let d = write_half(bytes, 108, d)?;
            for j in 0..4 {
                let high = |plane: usize| small[plane * 4 + j] >> 4 << (2 * plane);
                bytes[96 + j] = small[j] & 15 | (small[j + 8] & 15) << 4;
                bytes[100 + j] = small[j + 4] & 15 | (small[j + 12] & 15) << 4;
                bytes[104 + j] = (0..4).fold(0, |byte, plane| byte | high(plane));
            }
            for (j, (x, codes)) in x
                .chunks_exact(16)
                .zip(codes.chunks_exact_mut(16))
                .enumerate()
            {
                let scale = d * (f32::from(small[j]) - 32.0);
                if scale != 0.0 {
                    for (code, x) in codes.iter_mut().zip(x) {
                        *code = u8::try_from(nearest_within(x / scale, -4, 3) + 4).unwrap_or(0);
                    }
                }
            }
            for (l, byte) in bytes[..32].iter_mut().enumerate() {
                let high = |plane: usize| codes[plane * 32 + l] >> 2 << plane;
                *byte = (0..8).fold(0, |byte, plane| byte | high(plane));
            }
            write_two_bit_planes(|element| codes[element] & 3, &mut bytes[32..96]);
            Some(())
        },
    )
}

pub(super) fn q6_k(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x: &[f32; 256], importance, bytes: &mut [u8; 210]| {
            let mut codes = [0; 256];
            let mut scales = [0.0; 16];
            for (j, (x, codes)) in x
                .chunks_exact(16)
                .zip(codes.chunks_exact_mut(16))
                .enumerate()
            {
                let importance = importance.map(|importance| &importance[j * 16..][..16]);
                scales[j] = make_qx(32, x, importance, codes);
            }
            all_finite(&scales)?;
            let max = of_greatest_magnitude(&scales);
            if max.abs() < GROUP_MAX_EPS {
                bytes.fill(0);
                return Some(());
            }
            let inverse = -128.0 / max;
            let d = write_half(bytes, 208, 1.0 / inverse)?;
            for (j, (x, codes)) in x
                .chunks_exact(16)
                .zip(codes.chunks_exact_mut(16))
                .enumerate()
            {
                let small =
                    i8::try_from(nearest_int(inverse * scales[j]).clamp(-128, 127)).unwrap_or(0);
                bytes[192 + j] = small.cast_unsigned();
                let scale = d * f32::from(small);
                if scale != 0.0 {
                    for (code, x) in codes.iter_mut().zip(x) {
                        *code = u8::try_from(nearest_within(x / scale, -32, 31) + 32).unwrap_or(0);
                    }
                }
            }
            for (half, bytes) in bytes[..128].chunks_exact_mut(64).enumerate() {
                let low: [u8; 128] = std::array::from_fn(|l| codes[half * 128 + l] & 15);
                write_halves(&low, bytes);
            }
            write_two_bit_planes(|element| codes[element] >> 4, &mut bytes[128..192]);
            Some(())
        },
    )
}
