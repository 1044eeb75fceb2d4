//! The ONNX formulas spelled out in f64, independent of the crate's arithmetic: a division, a sum or
//! a product of two f32 that is computed in f64 and then rounded is what f32 arithmetic gives.

use half::{bf16, f16};
use lowbit::{Element, FloatFormat, Format, Mapping, Scheme};

/// A float type as the oracle sees it.
pub(super) trait Number: Element + PartialEq {
    /// Whether it is computed with in f64.
    const DOUBLE: bool;

    fn of(value: f64) -> Self;

    fn value(self) -> f64;

    /// The value nearest to a result of the type that is computed with.
    fn nearest(value: f64) -> f64;

    /// A number as the type that is computed with holds it.
    fn working(value: f64) -> f64 {
        if Self::DOUBLE {
            value
        } else {
            f64::from(value as f32)
        }
    }
}

impl Number for f32 {
    const DOUBLE: bool = false;

    fn of(value: f64) -> Self {
        value as Self
    }

    fn value(self) -> f64 {
        self.into()
    }

    fn nearest(value: f64) -> f64 {
        value
    }
}

impl Number for f64 {
    const DOUBLE: bool = true;

    fn of(value: f64) -> Self {
        value
    }

    fn value(self) -> f64 {
        self
    }

    fn nearest(value: f64) -> f64 {
        value
    }
}

impl Number for f16 {
    const DOUBLE: bool = false;

    fn of(value: f64) -> Self {
        Self::from_f64(value)
    }

    fn value(self) -> f64 {
        self.into()
    }

    fn nearest(value: f64) -> f64 {
        round_to(value, 10, -14, 65_504.0)
    }
}

impl Number for bf16 {
    const DOUBLE: bool = false;

    fn of(value: f64) -> Self {
        Self::from_f64(value)
    }

    fn value(self) -> f64 {
        self.into()
    }

    fn nearest(value: f64) -> f64 {
        round_to(value, 7, -126, Self::MAX.into())
    }
}

/// The nearest binary float of so many fraction bits, ties to even.
fn round_to(value: f64, fraction: i32, least_exponent: i32, greatest: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let mut exponent = value.abs().log2().floor() as i32;
    // The logarithm may round across a power of two.
    exponent += i32::from(value.abs() >= 2_f64.powi(exponent + 1));
    exponent -= i32::from(value.abs() < 2_f64.powi(exponent));
    let unit = 2_f64.powi(exponent.max(least_exponent) - fraction);
    let rounded = half_to_even(value / unit) * unit;
    if rounded.abs() > greatest {
        f64::INFINITY.copysign(value)
    } else {
        rounded.copysign(value)
    }
}

pub(super) fn half_to_even(value: f64) -> f64 {
    let below = value.floor();
    let even = below % 2.0 == 0.0;
    match (value - below).partial_cmp(&0.5) {
        None => value, // infinite
        Some(std::cmp::Ordering::Less) => below,
        Some(std::cmp::Ordering::Equal) if even => below,
        _ => below + 1.0,
    }
}

/// `saturate(round(x / scale) + zero_point)`; where the zero point is real, it is added first.
pub(super) fn code<A: Number>(x: A, scale: f32, zero_point: f32, scheme: &Scheme) -> i32 {
    let steps = A::working(x.value() / f64::from(scale));
    let zero_point = f64::from(zero_point);
    let code = match (scheme.format(), scheme.mapping()) {
        (Format::Float(format), _) => return i32::from(nearest_pattern(steps, format)),
        (_, Mapping::AsymmetricFloat) => half_to_even(A::working(steps + zero_point)),
        _ => half_to_even(steps) + zero_point,
    };
    code.clamp(scheme.quant_min().into(), scheme.quant_max().into()) as i32
}

/// `(q − zero_point) · scale`, for small floats `value(q) · scale`.
pub(super) fn number<A: Number>(code: i32, scale: f32, zero_point: f32, scheme: &Scheme) -> f64 {
    let steps = match scheme.format() {
        Format::Float(format) => pattern_value(code as u8, format),
        _ => A::working(f64::from(code) - f64::from(zero_point)),
    };
    A::nearest(A::working(steps * f64::from(scale)))
}

/// Exponent bits, fraction bits and bias, from the OCP specifications.
fn fields(format: FloatFormat) -> (u32, u32, i32) {
    match format {
        FloatFormat::E4M3 => (4, 3, 7),
        FloatFormat::E5M2 => (5, 2, 15),
        FloatFormat::E2M1 => (2, 1, 1),
        _ => unreachable!("a format this test does not know"),
    }
}

fn pattern_value(pattern: u8, format: FloatFormat) -> f64 {
    let (exponent_bits, fraction_bits, bias) = fields(format);
    let fraction = f64::from(u32::from(pattern) & ((1 << fraction_bits) - 1));
    let exponent = (u32::from(pattern) >> fraction_bits) & ((1 << exponent_bits) - 1);
    let part = fraction / f64::from(1_u32 << fraction_bits);
    let magnitude = match (format, exponent, fraction as u32) {
        (FloatFormat::E4M3, 15, 7) => f64::NAN,
        (FloatFormat::E5M2, 31, 0) => f64::INFINITY,
        (FloatFormat::E5M2, 31, _) => f64::NAN,
        (_, 0, _) => part * 2_f64.powi(1 - bias),
        _ => (1.0 + part) * 2_f64.powi(exponent as i32 - bias),
    };
    if pattern >> (exponent_bits + fraction_bits) & 1 == 1 {
        -magnitude
    } else {
        magnitude
    }
}

/// The pattern of the nearest finite value by looking at all of them; of two, the even one.
fn nearest_pattern(value: f64, format: FloatFormat) -> u8 {
    let (exponent_bits, fraction_bits, _) = fields(format);
    let sign = u8::from(value < 0.0) << (exponent_bits + fraction_bits);
    let magnitude = value.abs().min(1e6);
    let patterns = 0..1_u8 << (exponent_bits + fraction_bits);
    let finite = patterns.filter(|&pattern| pattern_value(pattern, format).is_finite());
    let distance = |pattern: u8| (pattern_value(pattern, format) - magnitude).abs();
    let nearer = |a: &u8, b: &u8| {
        let (far_a, far_b) = (distance(*a), distance(*b));
        far_a.total_cmp(&far_b).then((a % 2).cmp(&(b % 2)))
    };
    sign | finite.min_by(nearer).unwrap()
}
