//! The scalar definition over slices: loops that the compiler turns into SIMD on every target.
//!
//! Each takes elements of one [`Span`](crate::groups::Span) and its parameters, which [`zip`] goes
//! through in steps. No loop body branches on data, so that each is a handful of vector
//! instructions; all are inlined, for [`wide`](crate::simd::wide) to compile them for what the
//! machine has.

use super::{
    Parameter,
    scalar::{self, Rule},
    steps::zip,
};
use crate::{
    codes::minifloat,
    element::{Code, Real},
    simd::{Ahead, Loops, NOTHING, wide},
};

pub(crate) use super::steps::SpanParameters;

/// The code of each element; whether one of them was NaN.
#[inline(always)]
pub(crate) fn quantize<T: Real, C: Code, A: Copy>(
    x: &[T],
    codes: &mut [C],
    parameters: SpanParameters<'_>,
    rule: Rule<T>,
    ahead: Ahead<'_, A>,
) -> bool {
    match rule {
        Rule::Integer {
            quant_min,
            quant_max,
        } => zip(x, codes, parameters, ahead, |x: T, code, scale, zero: T| {
            let (_, distance) = scalar::integer(x, scale, zero, quant_min, quant_max);
            *code = C::truncate(distance.wrapping_add(zero.round_small().1));
        }),
        Rule::FloatZero {
            quant_min,
            quant_max,
        } => zip(x, codes, parameters, ahead, |x: T, code, scale, zero| {
            *code = C::truncate(scalar::float_zero(x, scale, zero, quant_min, quant_max).1);
        }),
        Rule::Float(float) => zip(
            x,
            codes,
            parameters,
            ahead,
            |x: T, code, scale: T, zero: T| {
                let value = (x / scale + zero).to_f32();
                *code = C::truncate(i32::from(minifloat::encode(value, float)));
            },
        ),
    }
    // A pass of its own over what is in the cache: one sum for all the groups of a block.
    any_nan(x)
}

#[inline(always)]
fn any_nan<T: Real>(x: &[T]) -> bool {
    // Pairs, since one comparison tells of two numbers whether either is NaN.
    let (front, back) = x.split_at(x.len() / 2);
    let pairs = front.iter().zip(back);
    let among_pairs = pairs.fold(false, |any, (a, b)| any | (a.is_nan() | b.is_nan()));
    among_pairs | x.last().is_some_and(|x| x.is_nan())
}

/// The number each code stands for, after `least` is added to it.
#[inline(always)]
pub(crate) fn dequantize<T: Real, C: Code, A: Copy>(
    codes: &[C],
    least: i32,
    x: &mut [T],
    parameters: SpanParameters<'_>,
    rule: Rule<T>,
    ahead: Ahead<'_, A>,
) {
    match rule {
        Rule::Integer { .. } | Rule::FloatZero { .. } => {
            zip(codes, x, parameters, ahead, |code: C, x, scale: T, zero| {
                *x = (T::of_code(code.into() + least) - zero) * scale;
            });
        }
        Rule::Float(float) => zip(codes, x, parameters, ahead, |code: C, x, scale: T, _| {
            let pattern = low_byte(code.into() + least);
            *x = T::of_f32(minifloat::decode(pattern, float)) * scale;
        }),
    }
}

/// What rounding makes of values that share a parameter, by the widest instructions of the machine.
pub(crate) fn images(x: &[f32], images: &mut [f32], parameter: &Parameter, rule: Rule<f32>) {
    wide(Images {
        x,
        images,
        parameters: SpanParameters::shared(parameter, x.len()),
        rule,
    });
}

struct Images<'a> {
    x: &'a [f32],
    images: &'a mut [f32],
    parameters: SpanParameters<'a>,
    rule: Rule<f32>,
}

impl Loops for Images<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        fake_quantize(self.x, self.images, self.parameters, self.rule, NOTHING);
    }
}

/// `dequantize(quantize(x))`, with the bits of doing one after the other; NaN stays NaN.
#[inline(always)]
pub(crate) fn fake_quantize<T: Real, A: Copy>(
    x: &[T],
    out: &mut [T],
    parameters: SpanParameters<'_>,
    rule: Rule<T>,
    ahead: Ahead<'_, A>,
) {
    let keep_nan = |x: T, value: T| if x.is_nan() { x } else { value };
    match rule {
        Rule::Integer {
            quant_min,
            quant_max,
        } => zip(x, out, parameters, ahead, |x: T, out, scale, zero| {
            let (distance, _) = scalar::integer(x, scale, zero, quant_min, quant_max);
            *out = keep_nan(x, distance * scale);
        }),
        Rule::FloatZero {
            quant_min,
            quant_max,
        } => zip(x, out, parameters, ahead, |x: T, out, scale, zero| {
            let (code, _) = scalar::float_zero(x, scale, zero, quant_min, quant_max);
            *out = keep_nan(x, (code - zero) * scale);
        }),
        Rule::Float(float) => zip(x, out, parameters, ahead, |x: T, out, scale: T, zero: T| {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        affine::{self, Affine, Ranges},
        element::BLOCK,
        groups::Span,
        scheme::{FloatFormat, Granularity, Mapping, Scheme},
        simd::{Loops, NOTHING, on_each},
    };

    /// Ties, ends of ranges, and what floats have at their own ends.
    fn numbers() -> Vec<f64> {
        let mut numbers = vec![
            0.0,
            -0.0,
            1e-45,
            f64::from(f32::MIN_POSITIVE),
            1e30,
            f64::INFINITY,
        ];
        numbers.extend((0..600).map(|half| f64::from(half) * 0.25));
        let negative: Vec<f64> = numbers.iter().map(|x| -x).collect();
        numbers.extend(negative);
        numbers
    }

    /// All three operations with the parameters of an element each, of groups, and of everything.
    struct All<'a, T> {
        x: &'a [T],
        affine: &'a Affine,
        share: usize,
    }

    impl<T: Real> Loops for All<'_, T> {
        type Output = (Vec<i16>, Vec<u64>, Vec<u64>, bool);

        #[inline(always)]
        fn run(self) -> Self::Output {
            let Self { x, affine, share } = self;
            let rule = Rule::<T>::of(affine.scheme());
            let span = Span {
                start: 0,
                len: x.len(),
                parameter: 0,
                share,
                skip: 1 % share,
            };
            let parameters = SpanParameters::of(affine, &span);
            let mut codes = vec![0_i16; x.len()];
            let (mut real, mut fake) = (vec![T::zero(); x.len()], vec![T::zero(); x.len()]);
            let nans = quantize(x, &mut codes, parameters, rule, NOTHING);
            dequantize(&codes, 0, &mut real, parameters, rule, NOTHING);
            fake_quantize(x, &mut fake, parameters, rule, NOTHING);
            let bits = |x: &T| Into::<f64>::into(*x).to_bits();
            (
                codes,
                real.iter().map(bits).collect(),
                fake.iter().map(bits).collect(),
                nans,
            )
        }
    }

    fn compare<T: Real>(scheme: &Scheme, len: usize, share: usize) {
        let numbers = numbers();
        let x: Vec<T> = (0..len)
            .map(|at| {
                T::from_real(num_traits::NumCast::from(numbers[at * 7 % numbers.len()]).unwrap())
            })
            .collect();
        let parameters = len + 1;
        let small = |number: usize| f32::from(u8::try_from(number).unwrap());
        let range = |at: usize| affine::Range::new(-small(at % 13), small(at % 29) + 1.0).unwrap();
        let ranges = Ranges::new(&[parameters], (0..parameters).map(range).collect()).unwrap();
        let affine = &Affine::from_ranges(scheme, &ranges).unwrap();
        for (codes, real, fake, nans) in on_each(|| All {
            x: &x,
            affine,
            share,
        }) {
            assert!(!nans);
            for (at, &x) in x.iter().enumerate() {
                let of = (1 % share + at) / share;
                let (scale, zero) = (affine.scale()[of], affine.zero_point()[of]);
                let code = scalar::quantize(x, scale, zero, scheme);
                let value: f64 = scalar::dequantize::<T>(code, scale, zero, scheme).into();
                assert_eq!(i32::from(codes[at]), code, "{scheme} {x:?}");
                assert_eq!(real[at], value.to_bits(), "{scheme} {x:?}");
                assert_eq!(fake[at], value.to_bits(), "{scheme} {x:?}");
            }
        }
    }

    #[test]
    fn every_instruction_set_gives_the_bits_of_the_definition() {
        let integers = [
            Mapping::Symmetric,
            Mapping::Asymmetric,
            Mapping::AsymmetricFloat,
        ]
        .map(|mapping| Scheme::int(8).mapping(mapping));
        let floats = [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1].map(Scheme::float);
        for builder in integers.into_iter().chain(floats) {
            let scheme = builder
                .granularity(Granularity::PerAxis(0))
                .build()
                .unwrap();
            for len in [0, 1, 7, 31, BLOCK, 1_000] {
                for share in [1, 2, 7, 32, 100, BLOCK, 100_000] {
                    compare::<f32>(&scheme, len, share);
                    compare::<f64>(&scheme, len, share);
                }
            }
        }
    }

    #[test]
    fn a_nan_is_found_wherever_it_is() {
        for len in [1_usize, 2, 3, 17, BLOCK] {
            for at in 0..len {
                let mut x = vec![f32::INFINITY; len];
                assert!(!any_nan(&x));
                x[at] = -f32::NAN;
                assert!(any_nan(&x), "{at} of {len}");
            }
        }
    }
}
