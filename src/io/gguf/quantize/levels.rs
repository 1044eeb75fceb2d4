//! Four bits that index a table of uneven levels.

use super::{
    all_finite, important, of_greatest_magnitude, over_blocks,
    search::{GROUP_MAX_EPS, nearest_within},
    square_sum, write_half, write_halves,
};
use crate::io::gguf::dequantize::levels::{TWICE_E2M1, UNEVEN, half_power_of_two, half_scale};

/// Scales to either side of the greatest element's that are tried.
const TRIES: i8 = 7;

/// `best_index_int8`: the nearest of the uneven levels; halfway, the upper one.
fn nearest_level(x: f32) -> usize {
    let level = |index: usize| f32::from(UNEVEN[index]);
    if x <= level(0) {
        return 0;
    }
    if x >= level(15) {
        return 15;
    }
    let upper = UNEVEN
        .partition_point(|&level| f32::from(level) <= x)
        .clamp(1, 15);
    if x - level(upper - 1) < level(upper) - x {
        upper - 1
    } else {
        upper
    }
}

/// The scale of a group.
fn search(x: &[f32], weights: &[f32; 32]) -> f32 {
    let max = of_greatest_magnitude(x);
    if max.abs() < GROUP_MAX_EPS {
        return 0.0;
    }
    let sums = |inverse: f32| {
        let (mut sumqx, mut sumq2) = (0.0, 0.0);
        for (&x, &w) in x.iter().zip(weights) {
            let q = f32::from(UNEVEN[nearest_level(inverse * x)]);
            sumqx += w * q * x;
            sumq2 += w * q * q;
        }
        (sumqx, sumq2)
    };
    let lowest = f32::from(UNEVEN[0]);
    let (sumqx, sumq2) = sums(1.0 / (-max / lowest));
    let mut d = if sumq2 > 0.0 { sumqx / sumq2 } else { 0.0 };
    let mut best = d * sumqx;
    for attempt in -TRIES..=TRIES {
        let (sumqx, sumq2) = sums((f32::from(attempt) + lowest) / max);
        if sumq2 > 0.0 && sumqx * sumqx > best * sumq2 {
            d = sumqx / sumq2;
            best = d * sumqx;
        }
    }
    d
}

/// Weights of a group: the squares, or importance times the root of `sigma2` and the square.
fn weights(x: &[f32], sigma2: f32, importance: Option<&[f32]>) -> [f32; 32] {
    match importance {
        None => std::array::from_fn(|j| x[j] * x[j]),
        Some(importance) => important(x, sigma2, importance),
    }
}

/// The codes of a group at a scale.
fn codes(x: &[f32], scale: f32) -> [u8; 32] {
    let inverse = super::inverse(scale);
    std::array::from_fn(|j| u8::try_from(nearest_level(inverse * x[j])).unwrap_or(0))
}

pub(super) fn iq4_nl(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x: &[f32; 32], importance, bytes: &mut [u8; 18]| {
            let sigma2 = square_sum(x) * (2.0 / 32.0);
            let scale = search(x, &weights(x, sigma2, importance));
            write_half(bytes, 0, scale)?;
            write_halves(&codes(x, scale), &mut bytes[2..]);
            Some(())
        },
    )
}

pub(super) fn iq4_xs(row: &[f32], importance: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        importance,
        bytes,
        |x: &[f32; 256], importance, bytes: &mut [u8; 136]| {
            let sigma2 = square_sum(x) * (2.0 / 256.0);
            let mut scales = [0.0; 8];
            for (group, x) in x.chunks_exact(32).enumerate() {
                let importance = importance.map(|importance| &importance[group * 32..]);
                scales[group] = search(x, &weights(x, sigma2, importance));
            }
            all_finite(&scales)?;
            // Codes are found with the scale before it is rounded to f16.
            let d = -of_greatest_magnitude(&scales) / 32.0;
            write_half(bytes, 0, d)?;
            let inverse = super::inverse(d);
            bytes[2..8].fill(0);
            for (group, x) in x.chunks_exact(32).enumerate() {
                let small = nearest_within(inverse * scales[group], -32, 31);
                let codes = codes(x, d * f32::from(small));
                write_halves(&codes, &mut bytes[8 + 16 * group..][..16]);
                let small = u8::try_from(small + 32).unwrap_or(0);
                bytes[4 + group / 2] |= (small & 15) << (4 * (group % 2));
                bytes[2 + group / 4] |= small >> 4 << (2 * (group % 4));
            }
            Some(())
        },
    )
}

/// `best_index_mxfp4`: the nearest of the values; of several, the first.
fn nearest_value(x: f32, half_scale: f32) -> u8 {
    let error = |code: usize| (f32::from(TWICE_E2M1[code]) * half_scale - x).abs();
    let nearest = (1..16).fold(0, |best, code| {
        if error(code) < error(best) {
            code
        } else {
            best
        }
    });
    u8::try_from(nearest).unwrap_or(0)
}

pub(super) fn mxfp4(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 32], _, bytes: &mut [u8; 17]| {
            let largest = of_greatest_magnitude(x).abs();
            // The logarithm is rounded to f32 before it is rounded down, as ggml's is; exponents below
            // that of the least scale, which it lets wrap, are 0.
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an integer, and what is below 0 saturates"
            )]
            let exponent = if largest > 0.0 {
                ((f64::from(largest).log2() as f32).floor() - 2.0 + 127.0) as u8
            } else {
                0
            };
            let scale = half_power_of_two(exponent);
            bytes[0] = exponent;
            write_halves(&x.map(|x| nearest_value(x, scale)), &mut bytes[1..]);
            Some(())
        },
    )
}

/// `ggml_fp32_to_ue4m3`: the nearest unsigned float of 4 exponent and 3 mantissa bits, halfway up,
/// at most 448.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bounded by the comparisons before"
)]
fn scale_pattern(x: f32) -> u8 {
    let x = x.min(448.0);
    let exponent = x.to_bits() >> 23;
    if exponent <= 120 {
        // Subnormal: multiples of 2⁻⁹. Never rounded up to the least normal one.
        return ((x * 512.0 + 0.5) as u8).min(7);
    }
    // A mantissa that rounds up to the next binade carries into the exponent by itself.
    let pattern = ((x.to_bits() >> 19) + 1) >> 1;
    ((pattern - (120 << 3)) as u8).min(0x7e)
}

pub(super) fn nvfp4(row: &[f32], _: Option<&[f32]>, bytes: &mut [u8]) -> Option<()> {
    over_blocks(
        row,
        None,
        bytes,
        |x: &[f32; 64], _, bytes: &mut [u8; 36]| {
            for (group, x) in x.chunks_exact(16).enumerate() {
                let largest = of_greatest_magnitude(x).abs();
                // Beyond, the greatest scale would clip.
                if largest > 448.0 * 6.0 {
                    return None;
                }
                bytes[group] = scale_pattern(largest / 6.0);
                let scale = half_scale(bytes[group]);
                let codes: [u8; 16] = std::array::from_fn(|j| nearest_value(x[j], scale));
                write_halves(&codes, &mut bytes[4 + 8 * group..][..8]);
            }
            Some(())
        },
    )
}
