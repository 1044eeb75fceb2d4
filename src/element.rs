//! The float types that tensors hold and the integer types that codes are kept in.

mod halves;

use half::{bf16, f16};

use halves::Half;

/// Elements that loops take at a time: buffers of them lie on the stack, in the fastest cache.
pub(crate) const BLOCK: usize = 512;

mod sealed {
    /// The numbers that arrays hold here: plain bits, without padding.
    pub trait Number: Copy + Default + Send + Sync + 'static {}
}
pub(crate) use sealed::Number;

/// A float type that tensors hold: `f32`, `f64`, [`half::f16`] and [`half::bf16`].
///
/// The two 16-bit types are widened to `f32`, exactly, and computed with there; `f64` is computed
/// with as it is.
///
/// ```
/// use half::f16;
/// use lowbit::{Affine, Scheme, fake_quantize};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
/// let halves = array![0.8_f32, -2.3].mapv(f16::from_f32);
/// assert_eq!(fake_quantize(&halves, &affine)?.mapv(f16::to_f32), array![1.0, -2.5]);
/// assert_eq!(fake_quantize(&array![0.8_f64, -2.3], &affine)?, array![1.0, -2.5]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Element: sealed::Number + std::fmt::Debug {
    /// The type that is computed with.
    type Real: Real;

    /// The value, widened exactly.
    fn to_real(self) -> Self::Real;

    /// The nearest value of this type.
    fn from_real(real: Self::Real) -> Self;

    /// The elements widened: in the buffer, or as they are. They are one block at most.
    #[doc(hidden)]
    fn widen<'a>(elements: &'a [Self], buffer: &'a mut [Self::Real; BLOCK]) -> &'a [Self::Real];

    /// Where to write elements before they are [narrowed](Self::narrow): in the buffer, or where
    /// they belong.
    #[doc(hidden)]
    fn wide<'a>(
        elements: &'a mut [Self],
        buffer: &'a mut [Self::Real; BLOCK],
    ) -> &'a mut [Self::Real];

    /// Keeps what was written to [`wide`](Self::wide), which had the same arguments.
    #[doc(hidden)]
    fn narrow(elements: &mut [Self], buffer: &[Self::Real; BLOCK]);
}

/// The float types that are computed with: `f32` and `f64`.
///
/// ```
/// use lowbit::{Scheme, affine::scalar};
/// let scheme = Scheme::int(8).build()?;
/// // 2.5 rounds to even; f64 tells its neighbour from it
/// assert_eq!(scalar::quantize(2.500_000_001_f32, 1.0, 0.0, &scheme), 2);
/// assert_eq!(scalar::quantize(2.500_000_001_f64, 1.0, 0.0, &scheme), 3);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Real:
    Element<Real = Self> + num_traits::Float + num_traits::FromPrimitive + Into<f64>
{
    #[doc(hidden)]
    fn of_f32(value: f32) -> Self;

    /// An f32 to round to fewer bits from: where the value is none itself, the one beside it whose
    /// last bit is set, so that rounding twice gives what rounding once would.
    #[doc(hidden)]
    fn to_f32(self) -> f32;

    /// The value of a code of at most 16 bits.
    #[doc(hidden)]
    fn of_code(code: i32) -> Self;

    /// Half-to-even rounding of values below 2^22 in magnitude, in two additions that every target
    /// vectorizes; the second result holds the integer in its low 32 bits.
    #[doc(hidden)]
    fn round_small(self) -> (Self, i32);
}

impl sealed::Number for f32 {}
impl Element for f32 {
    type Real = f32;

    #[inline(always)]
    fn to_real(self) -> f32 {
        self
    }

    #[inline(always)]
    fn from_real(real: f32) -> Self {
        real
    }

    #[inline(always)]
    fn widen<'a>(elements: &'a [Self], _: &'a mut [Self::Real; BLOCK]) -> &'a [f32] {
        elements
    }

    #[inline(always)]
    fn wide<'a>(elements: &'a mut [Self], _: &'a mut [Self::Real; BLOCK]) -> &'a mut [f32] {
        elements
    }

    #[inline(always)]
    fn narrow(_: &mut [Self], _: &[Self::Real; BLOCK]) {}
}

impl Real for f32 {
    #[inline(always)]
    fn of_f32(value: f32) -> Self {
        value
    }

    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }

    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    fn of_code(code: i32) -> Self {
        code as f32
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_wrap,
        reason = "the difference of two bit patterns is the integer, in two's complement"
    )]
    fn round_small(self) -> (Self, i32) {
        // 1.5 · 2^23: adding it leaves no bit below the units, and rounds as every addition does.
        const MAGIC: f32 = 12_582_912.0;
        let shifted = self + MAGIC;
        let code = shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
        (shifted - MAGIC, code)
    }
}

impl sealed::Number for f64 {}
impl Element for f64 {
    type Real = f64;

    #[inline(always)]
    fn to_real(self) -> f64 {
        self
    }

    #[inline(always)]
    fn from_real(real: f64) -> Self {
        real
    }

    #[inline(always)]
    fn widen<'a>(elements: &'a [Self], _: &'a mut [Self::Real; BLOCK]) -> &'a [f64] {
        elements
    }

    #[inline(always)]
    fn wide<'a>(elements: &'a mut [Self], _: &'a mut [Self::Real; BLOCK]) -> &'a mut [f64] {
        elements
    }

    #[inline(always)]
    fn narrow(_: &mut [Self], _: &[Self::Real; BLOCK]) {}
}

impl Real for f64 {
    #[inline(always)]
    fn of_f32(value: f32) -> Self {
        Self::from(value)
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32, then moved to the one that is asked for"
    )]
    fn to_f32(self) -> f32 {
        let nearest = self as f32;
        let beyond = u32::from(Self::from(nearest).abs() > self.abs());
        let inexact = u32::from(Self::from(nearest) != self && !self.is_nan());
        f32::from_bits((nearest.to_bits() - beyond) | inexact)
    }

    #[inline(always)]
    fn of_code(code: i32) -> Self {
        Self::from(code)
    }

    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits of the difference are the integer, in two's complement"
    )]
    fn round_small(self) -> (Self, i32) {
        // 1.5 · 2^52, as above.
        const MAGIC: f64 = 6_755_399_441_055_744.0;
        let shifted = self + MAGIC;
        let code = shifted.to_bits().wrapping_sub(MAGIC.to_bits()) as i32;
        (shifted - MAGIC, code)
    }
}

macro_rules! element_of_16_bits {
    ($half:ty) => {
        impl sealed::Number for $half {}
        impl Element for $half {
            type Real = f32;

            #[inline(always)]
            fn to_real(self) -> f32 {
                self.to_f32()
            }

            #[inline(always)]
            fn from_real(real: f32) -> Self {
                Self::from_f32(real)
            }

            #[inline(always)]
            fn widen<'a>(elements: &'a [Self], buffer: &'a mut [Self::Real; BLOCK]) -> &'a [f32] {
                let reals = &mut buffer[..elements.len()];
                Half::widen(elements, reals);
                reals
            }

            #[inline(always)]
            fn wide<'a>(
                elements: &'a mut [Self],
                buffer: &'a mut [Self::Real; BLOCK],
            ) -> &'a mut [f32] {
                &mut buffer[..elements.len()]
            }

            #[inline(always)]
            fn narrow(elements: &mut [Self], buffer: &[Self::Real; BLOCK]) {
                Half::narrow(buffer, elements);
            }
        }
    };
}

element_of_16_bits!(f16);
element_of_16_bits!(bf16);

/// An integer type that codes are kept in, one a value: `i8`, `u8`, `i16`, `u16` and `i32`.
///
/// It must hold every code of the format: `i8` serves signed formats up to 8 bits, `u8` unsigned
/// ones and small floats.
///
/// ```
/// use lowbit::{Affine, Error, Scheme, quantize};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(8).build()?, 1.0, 0.0)?;
/// assert_eq!(quantize::<_, i16, _>(&array![-3.0_f32], &affine)?, array![-3]);
/// let refused = quantize::<_, u8, _>(&array![-3.0_f32], &affine);
/// assert!(matches!(refused, Err(Error::CodeType { min: -128, max: 127, .. })));
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Code:
    sealed::Number + std::fmt::Debug + num_traits::PrimInt + num_traits::FromPrimitive + Into<i32>
{
    #[doc(hidden)]
    const NAME: &'static str;

    /// The low bits of `code`, which callers have checked to fit.
    #[doc(hidden)]
    fn truncate(code: i32) -> Self;
}

macro_rules! code {
    ($($integer:ty),*) => {$(
        impl sealed::Number for $integer {}
        impl Code for $integer {
            const NAME: &'static str = stringify!($integer);

            #[inline(always)]
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::unnecessary_cast,
                reason = "truncation is what this does; its callers check the format against the type"
            )]
            fn truncate(code: i32) -> Self {
                code as Self
            }
        }
    )*};
}

code!(i8, u8, i16, u16, i32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_additions_round_as_round_ties_even_does() {
        let mut values: Vec<f32> = vec![0.0, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45];
        for half in -2_000_i32..2_000 {
            let middle = half as f32 * 0.5;
            values.extend([middle, middle.next_up(), middle.next_down()]);
            let wide = half as f32 * 1_048.5;
            values.extend([wide, wide.next_up(), wide.next_down()]);
        }
        for value in values {
            let (rounded, code) = value.round_small();
            assert_eq!(rounded, value.round_ties_even());
            assert_eq!(code, value.round_ties_even() as i32);
            let (rounded, code) = f64::from(value).round_small();
            assert_eq!(rounded, f64::from(value).round_ties_even());
            assert_eq!(code, value.round_ties_even() as i32);
        }
    }
}
