//! Quantizing one number: the definition that all else agrees with, bit for bit.

use super::loops::low_byte;
use crate::{
    codes::minifloat,
    element::Real,
    scheme::{FloatFormat, Format, Mapping, Scheme},
};

/// How codes are computed, apart from scale and zero point: what a loop over elements needs of a
/// [`Scheme`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Rule<T> {
    /// Integers with an integer zero point: round, then add it.
    Integer { quant_min: T, quant_max: T },
    /// Integers with a real zero point: add it, then round.
    FloatZero { quant_min: T, quant_max: T },
    /// Small floats; the zero point is 0.
    Float(FloatFormat),
}

impl<T: Real> Rule<T> {
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub(crate) fn of(scheme: &Scheme) -> Self {
        let quant_min = T::of_f32(scheme.quant_min() as f32);
        let quant_max = T::of_f32(scheme.quant_max() as f32);
        match (scheme.format(), scheme.mapping()) {
            (Format::Float(float), _) => Self::Float(float),
            (Format::Int(_), Mapping::AsymmetricFloat) => Self::FloatZero {
                quant_min,
                quant_max,
            },
            (Format::Int(_), _) => Self::Integer {
                quant_min,
                quant_max,
            },
        }
    }
}

/// `clamp(value, low, high)`, and `low` for NaN; written so that it is two instructions.
#[inline(always)]
pub(crate) fn limit<T: Real>(value: T, low: T, high: T) -> T {
    let value = if value > low { value } else { low };
    if value < high { value } else { high }
}

/// `round(clamp(v, qmin − z, qmax − z)) + z`, with the rounded distance from the zero point beside
/// the code. Clamping to integers before rounding gives what clamping after it gives.
#[inline(always)]
pub(crate) fn integer<T: Real>(x: T, scale: T, zero: T, quant_min: T, quant_max: T) -> (T, i32) {
    limit(x / scale, quant_min - zero, quant_max - zero).round_small()
}

/// `round(clamp(v + z, qmin, qmax))`.
#[inline(always)]
pub(crate) fn float_zero<T: Real>(x: T, scale: T, zero: T, quant_min: T, quant_max: T) -> (T, i32) {
    limit(x / scale + zero, quant_min, quant_max).round_small()
}

/// The code of a number under a scheme: `saturate(round(x / scale) + zero_point)`, or
/// `saturate(round(x / scale + zero_point))` where zero points are real; for small floats the bit
/// pattern nearest to `x / scale + 0`, at most the greatest finite one in magnitude.
///
/// Rounding is half to even; infinities saturate; NaN gives the least code (small floats: NaN), so
/// the array functions refuse it. Scale and zero point are taken to be such as
/// [`Affine::new`](crate::Affine::new) allows; others give a code that means nothing.
///
/// ```
/// use lowbit::{Scheme, affine::scalar};
/// let scheme = Scheme::int(8).asymmetric().build()?;
/// assert_eq!(scalar::quantize(0.5_f32, 0.2, 3.0, &scheme), 5); // 2.5 rounds to 2
/// assert_eq!(scalar::quantize(f32::INFINITY, 0.2, 3.0, &scheme), 127);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[must_use]
pub fn quantize<T: Real>(x: T, scale: f32, zero_point: f32, scheme: &Scheme) -> i32 {
    let (scale, zero) = (T::of_f32(scale), T::of_f32(zero_point));
    match Rule::of(scheme) {
        Rule::Integer {
            quant_min,
            quant_max,
        } => {
            let (_, distance) = integer(x, scale, zero, quant_min, quant_max);
            distance.wrapping_add(zero.round_small().1)
        }
        Rule::FloatZero {
            quant_min,
            quant_max,
        } => float_zero(x, scale, zero, quant_min, quant_max).1,
        Rule::Float(float) => i32::from(minifloat::encode((x / scale + zero).to_f32(), float)),
    }
}

/// The number that a code stands for: `(q − zero_point) · scale`, for small floats
/// `value(q) · scale`.
///
/// ```
/// use lowbit::{Scheme, affine::scalar};
/// let scheme = Scheme::int(8).asymmetric().build()?;
/// assert_eq!(scalar::dequantize::<f32>(5, 0.25, 3.0, &scheme), 0.5);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[must_use]
pub fn dequantize<T: Real>(code: i32, scale: f32, zero_point: f32, scheme: &Scheme) -> T {
    let value = match scheme.format() {
        Format::Int(_) => T::of_code(code) - T::of_f32(zero_point),
        Format::Float(float) => T::of_f32(minifloat::decode(low_byte(code), float)),
    };
    value * T::of_f32(scale)
}
