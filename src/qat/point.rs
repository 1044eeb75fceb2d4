//! From an input and its parameters to a [`Point`], by the rule of each number format.
//!
//! `level · scale` has the bits of the forward pass: the same functions in the same order, apart
//! from a clamp one step wider before rounding, which shows whether the tight one did anything.

use super::Point;
use crate::{affine::scalar::limit, codes::minifloat, element::Real, scheme::FloatFormat};

#[inline(always)]
fn or_nan(x: f32, level: f32) -> f32 {
    if x.is_nan() { x } else { level }
}

/// Integers with an integer zero point.
#[inline(always)]
pub(super) fn integer(x: f32, scale: f32, zero: f32, quant_min: f32, quant_max: f32) -> Point {
    let (least, greatest) = (quant_min - zero, quant_max - zero);
    let position = x / scale;
    let (rounded, _) = limit(position, least - 1.0, greatest + 1.0).round_small();
    let level = limit(rounded, least, greatest);
    Point {
        x,
        scale,
        zero_point: zero,
        position,
        level: or_nan(x, level),
        least,
        greatest,
        inside: rounded == level,
        integers: true,
    }
}

/// Integers with a real zero point.
#[inline(always)]
pub(super) fn float_zero(x: f32, scale: f32, zero: f32, quant_min: f32, quant_max: f32) -> Point {
    let position = x / scale;
    let (rounded, _) = limit(position + zero, quant_min - 1.0, quant_max + 1.0).round_small();
    let code = limit(rounded, quant_min, quant_max);
    Point {
        x,
        scale,
        zero_point: zero,
        position,
        level: or_nan(x, code - zero),
        least: quant_min - zero,
        greatest: quant_max - zero,
        inside: rounded == code,
        integers: false,
    }
}

/// Small floats.
#[inline(always)]
pub(super) fn float(x: f32, scale: f32, zero: f32, format: FloatFormat) -> Point {
    let greatest = format.max_value();
    let position = x / scale;
    let level = minifloat::decode(minifloat::encode(position + zero, format), format);
    Point {
        x,
        scale,
        zero_point: zero,
        position,
        level: or_nan(x, level),
        least: -greatest,
        greatest,
        inside: position.abs() <= greatest,
        integers: false,
    }
}
