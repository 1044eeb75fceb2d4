//! Floats of 8 and 4 bits: bit patterns to numbers and back.
//!
//! Source: OCP 8-bit Floating Point Specification 1.0 (E4M3, E5M2), OCP Microscaling Formats 1.0
//! (E2M1).

use crate::scheme::FloatFormat;

/// Exponent bias, mantissa bits and the greatest finite pattern.
fn layout(format: FloatFormat) -> (i32, i32, u8) {
    match format {
        FloatFormat::E4M3 => (7, 3, 0x7e),
        FloatFormat::E5M2 => (15, 2, 0x7b),
        FloatFormat::E2M1 => (1, 1, 0x07),
    }
}

/// `2^exponent` for exponents of normal numbers.
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(u32::try_from((exponent + 127) << 23).unwrap_or(0))
}

/// The bit pattern of the nearest value, ties to the even pattern; magnitudes beyond the greatest
/// finite value, infinity included, saturate to it. NaN becomes NaN, and 0 in E2M1, which has none.
///
/// ```
/// use lowbit::{FloatFormat, codes::minifloat};
/// assert_eq!(minifloat::encode(2.5, FloatFormat::E2M1), 0b0100); // halfway from 2 to 3
/// assert_eq!(minifloat::encode(1e9, FloatFormat::E4M3), 0x7e); // 448
/// ```
#[must_use]
pub fn encode(value: f32, format: FloatFormat) -> u8 {
    let (_, _, greatest) = layout(format);
    encode_with(value, format, greatest)
}

/// [`encode`] without saturation, as C's conversions between floats and ONNX `QuantizeLinear` with
/// `saturate` 0 have it: magnitudes that round to more than the greatest finite value, infinity
/// included, become infinity in E5M2 and NaN in E4M3, with the sign of the value. E2M1, which has
/// neither, saturates.
///
/// ```
/// use lowbit::{FloatFormat, codes::minifloat};
/// assert_eq!(minifloat::encode_unsaturated(-1e9, FloatFormat::E5M2), 0xfc); // minus infinity
/// assert_eq!(minifloat::encode_unsaturated(464.0, FloatFormat::E4M3), 0x7e); // halfway: to 448
/// assert_eq!(minifloat::encode_unsaturated(465.0, FloatFormat::E4M3), 0x7f); // NaN
/// ```
#[must_use]
pub fn encode_unsaturated(value: f32, format: FloatFormat) -> u8 {
    let (_, _, greatest) = layout(format);
    match format {
        FloatFormat::E4M3 | FloatFormat::E5M2 => encode_with(value, format, greatest + 1),
        FloatFormat::E2M1 => encode_with(value, format, greatest),
    }
}

/// The pattern of the nearest value among those up to the pattern `last`, which stands for all
/// magnitudes beyond.
#[inline(always)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "exponents and patterns are bounded by the comparison with the limit"
)]
fn encode_with(value: f32, format: FloatFormat, last: u8) -> u8 {
    let (bias, mantissa, _) = layout(format);
    let sign = u8::from(value.is_sign_negative()) << (format.bits() - 1);
    let magnitude = value.abs();
    if value.is_nan() {
        return match format {
            FloatFormat::E2M1 => 0,
            FloatFormat::E4M3 | FloatFormat::E5M2 => 0x7f,
        };
    }
    // Twice the greatest value rounds to the last pattern, and patterns of all below fit a byte.
    if magnitude >= 2.0 * format.max_value() {
        return sign | last;
    }
    // The exponent of the binade, not below that of the subnormals.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(1 - bias);
    // Powers of two, so that the product is exact and rounding happens once.
    let units = (magnitude * power_of_two(mantissa - exponent)).round_ties_even();
    // A mantissa that rounds up to the next binade carries into the exponent by itself.
    let pattern = ((exponent + bias - 1) << mantissa) + units as i32;
    sign | (pattern as u8).min(last)
}

/// The value of a bit pattern, exactly. E2M1 reads the low four bits.
///
/// ```
/// use lowbit::{FloatFormat, codes::minifloat};
/// assert_eq!(minifloat::decode(0b1111, FloatFormat::E2M1), -6.0);
/// assert_eq!(minifloat::decode(0x01, FloatFormat::E5M2), 2f32.powi(-16));
/// ```
#[must_use]
pub fn decode(pattern: u8, format: FloatFormat) -> f32 {
    let (bias, mantissa, _) = layout(format);
    let sign_bit = 1_u8 << (format.bits() - 1);
    let magnitude = pattern & (sign_bit - 1);
    let exponent = i32::from(magnitude >> mantissa);
    let fraction = magnitude & ((1 << mantissa) - 1);
    let value = match format {
        FloatFormat::E4M3 if magnitude == 0x7f => f32::NAN,
        FloatFormat::E5M2 if exponent == 31 => {
            if fraction == 0 {
                f32::INFINITY
            } else {
                f32::NAN
            }
        }
        _ => {
            let implicit = u8::from(exponent > 0) << mantissa;
            f32::from(implicit + fraction) * power_of_two(exponent.max(1) - bias - mantissa)
        }
    };
    if pattern & sign_bit == 0 {
        value
    } else {
        -value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMATS: [FloatFormat; 3] = [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1];

    fn patterns(format: FloatFormat) -> std::ops::RangeInclusive<u8> {
        0..=(((1_u16 << format.bits()) - 1) as u8)
    }

    #[test]
    fn known_values() {
        for (pattern, value) in [
            (0x00, 0.0),
            (0x01, 2f32.powi(-9)),
            (0x08, 2f32.powi(-6)),
            (0x38, 1.0),
            (0x7e, 448.0),
            (0xfe, -448.0),
        ] {
            assert_eq!(decode(pattern, FloatFormat::E4M3), value);
        }
        for (pattern, value) in [
            (0x01, 2f32.powi(-16)),
            (0x3c, 1.0),
            (0x7b, 57_344.0),
            (0xfc, f32::NEG_INFINITY),
        ] {
            assert_eq!(decode(pattern, FloatFormat::E5M2), value);
        }
        let fp4: Vec<f32> = (0..8).map(|p| decode(p, FloatFormat::E2M1)).collect();
        assert_eq!(fp4, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
    }

    #[test]
    fn finite_patterns_survive_a_round_trip() {
        for format in FORMATS {
            for pattern in patterns(format) {
                let value = decode(pattern, format);
                if value.is_finite() {
                    assert_eq!(encode(value, format), pattern, "{format:?}");
                }
            }
        }
    }

    #[test]
    fn encoding_takes_the_nearest_value_and_the_even_one_of_two() {
        for format in FORMATS {
            let mut values: Vec<(f32, u8)> = patterns(format)
                .map(|pattern| (decode(pattern, format), pattern))
                .filter(|(value, _)| value.is_finite() && value.is_sign_positive())
                .collect();
            values.sort_by(|a, b| a.0.total_cmp(&b.0));
            for pair in values.windows(2) {
                let ((low, low_pattern), (high, high_pattern)) = (pair[0], pair[1]);
                let middle = low + (high - low) / 2.0;
                let even = if low_pattern % 2 == 0 {
                    low_pattern
                } else {
                    high_pattern
                };
                assert_eq!(encode(middle, format), even, "{format:?} {middle}");
                assert_eq!(encode(middle.next_down(), format), low_pattern);
                assert_eq!(encode(middle.next_up(), format), high_pattern);
                let sign = 1 << (format.bits() - 1);
                assert_eq!(encode(-middle, format), even | sign);
            }
        }
    }

    #[test]
    fn what_does_not_fit_overflows_without_saturation() {
        for (format, last, beyond) in [
            (FloatFormat::E4M3, 448.0_f32, 464.0_f32),
            (FloatFormat::E5M2, 57_344.0, 61_440.0),
        ] {
            let (_, _, greatest) = layout(format);
            // The middle between the greatest value and what would follow it: to even.
            let tie = if greatest % 2 == 0 {
                beyond
            } else {
                beyond.next_down()
            };
            for value in [last, last.next_up(), tie] {
                assert_eq!(encode_unsaturated(value, format), greatest, "{value}");
                assert_eq!(encode_unsaturated(-value, format), greatest | 0x80);
            }
            for value in [
                tie.next_up(),
                2.0 * last,
                3.0 * last,
                f32::MAX,
                f32::INFINITY,
            ] {
                assert_eq!(encode_unsaturated(value, format), greatest + 1, "{value}");
                assert_eq!(encode_unsaturated(-value, format), (greatest + 1) | 0x80);
            }
            for pattern in 0..greatest {
                let value = decode(pattern, format).next_up();
                assert_eq!(encode_unsaturated(value, format), encode(value, format));
            }
            assert!(decode(encode_unsaturated(f32::NAN, format), format).is_nan());
        }
        assert_eq!(encode_unsaturated(1e9, FloatFormat::E2M1), 0x07);
    }

    #[test]
    fn hostile_values_saturate_or_are_nan() {
        for format in FORMATS {
            let (_, _, greatest) = layout(format);
            for huge in [f32::INFINITY, f32::MAX, format.max_value() * 1.01] {
                assert_eq!(encode(huge, format), greatest);
            }
            for tiny in [f32::MIN_POSITIVE, 1e-45, 0.0] {
                assert_eq!(encode(tiny, format), 0);
            }
        }
        assert!(decode(encode(f32::NAN, FloatFormat::E4M3), FloatFormat::E4M3).is_nan());
        assert!(decode(encode(f32::NAN, FloatFormat::E5M2), FloatFormat::E5M2).is_nan());
        assert_eq!(encode(f32::NAN, FloatFormat::E2M1), 0);
    }
}
