//! The scalar definition over slices: loops that the compiler turns into SIMD on every target.
//!
//! Each takes one [`Run`]'s worth of elements and its parameters. No loop body branches on data, so
//! that each is a handful of vector instructions.

use super::{
    Affine,
    scalar::{self, Rule},
};
use crate::{
    codes::minifloat,
    element::{Code, Real},
    groups::Run,
};

/// The parameters of a run: one for all, or one for each element.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RunParameters<'a> {
    One { scale: f32, zero: f32 },
    Each { scale: &'a [f32], zero: &'a [f32] },
}

impl<'a> RunParameters<'a> {
    /// The parameters that a run of a tensor with parameters `affine` uses.
    #[inline]
    pub(crate) fn of(affine: &'a Affine, run: &Run) -> Self {
        let (scale, zero) = (affine.scale(), affine.zero_point());
        let first = run.parameter;
        if run.each {
            Self::Each {
                scale: &scale[first..first + run.len],
                zero: &zero[first..first + run.len],
            }
        } else {
            Self::One {
                scale: scale[first],
                zero: zero[first],
            }
        }
    }
}

impl RunParameters<'_> {
    /// The parameters of `len` elements of the run, from element `at` on.
    #[inline]
    pub(crate) fn part(self, at: usize, len: usize) -> Self {
        match self {
            Self::One { .. } => self,
            Self::Each { scale, zero } => RunParameters::Each {
                scale: &scale[at..at + len],
                zero: &zero[at..at + len],
            },
        }
    }
}

/// Calls `body(element, scale, zero)` for each element of a run with what it writes to.
#[inline(always)]
fn zip<T: Real, I: Copy, O>(
    input: &[I],
    output: &mut [O],
    parameters: RunParameters<'_>,
    mut body: impl FnMut(I, &mut O, T, T),
) {
    match parameters {
        RunParameters::One { scale, zero } => {
            let (scale, zero) = (T::of_f32(scale), T::of_f32(zero));
            for (&x, out) in input.iter().zip(output) {
                body(x, out, scale, zero);
            }
        }
        RunParameters::Each { scale, zero } => {
            for (((&x, out), &scale), &zero) in input.iter().zip(output).zip(scale).zip(zero) {
                body(x, out, T::of_f32(scale), T::of_f32(zero));
            }
        }
    }
}

/// The code of each element; whether one of them was NaN.
pub(crate) fn quantize<T: Real, C: Code>(
    x: &[T],
    codes: &mut [C],
    parameters: RunParameters<'_>,
    rule: Rule<T>,
) -> bool {
    // The sum of x − x, which is NaN where x is NaN or infinite, would need a second look;
    // a count of x ≠ x vectorizes as well.
    let mut nans = 0_u32;
    match rule {
        Rule::Integer {
            quant_min,
            quant_max,
        } => zip(x, codes, parameters, |x: T, code, scale, zero: T| {
            let (_, distance) = scalar::integer(x, scale, zero, quant_min, quant_max);
            *code = C::truncate(distance.wrapping_add(zero.round_small().1));
            nans |= u32::from(x.is_nan());
        }),
        Rule::FloatZero {
            quant_min,
            quant_max,
        } => zip(x, codes, parameters, |x: T, code, scale, zero| {
            *code = C::truncate(scalar::float_zero(x, scale, zero, quant_min, quant_max).1);
            nans |= u32::from(x.is_nan());
        }),
        Rule::Float(float) => zip(x, codes, parameters, |x: T, code, scale: T, zero: T| {
            let value = (x / scale + zero).to_f32();
            *code = C::truncate(i32::from(minifloat::encode(value, float)));
            nans |= u32::from(x.is_nan());
        }),
    }
    nans != 0
}

/// The number each code stands for.
pub(crate) fn dequantize<T: Real, C: Code>(
    codes: &[C],
    x: &mut [T],
    parameters: RunParameters<'_>,
    rule: Rule<T>,
) {
    match rule {
        Rule::Integer { .. } | Rule::FloatZero { .. } => {
            zip(codes, x, parameters, |code: C, x, scale: T, zero| {
                *x = (T::of_code(code.into()) - zero) * scale;
            });
        }
        Rule::Float(float) => zip(codes, x, parameters, |code: C, x, scale: T, _| {
            *x = T::of_f32(minifloat::decode(low_byte(code.into()), float)) * scale;
        }),
    }
}

/// `dequantize(quantize(x))`, with the bits of doing one after the other; NaN stays NaN.
pub(crate) fn fake_quantize<T: Real>(
    x: &[T],
    out: &mut [T],
    parameters: RunParameters<'_>,
    rule: Rule<T>,
) {
    let keep_nan = |x: T, value: T| if x.is_nan() { x } else { value };
    match rule {
        Rule::Integer {
            quant_min,
            quant_max,
        } => zip(x, out, parameters, |x: T, out, scale, zero| {
            let (distance, _) = scalar::integer(x, scale, zero, quant_min, quant_max);
            *out = keep_nan(x, distance * scale);
        }),
        Rule::FloatZero {
            quant_min,
            quant_max,
        } => zip(x, out, parameters, |x: T, out, scale, zero| {
            let (code, _) = scalar::float_zero(x, scale, zero, quant_min, quant_max);
            *out = keep_nan(x, (code - zero) * scale);
        }),
        Rule::Float(float) => zip(x, out, parameters, |x: T, out, scale: T, zero: T| {
            let code = minifloat::encode((x / scale + zero).to_f32(), float);
            *out = keep_nan(x, T::of_f32(minifloat::decode(code, float)) * scale);
        }),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low byte is the bit pattern, also of codes kept in i8"
)]
pub(crate) fn low_byte(code: i32) -> u8 {
    code as u8
}
