//! Multiplication by a real number in integers, for requantization without floats.
//!
//! As gemmlowp and the integer-only kernels of mobile runtimes have it: a multiplier in [½, 1) with
//! 31 bits behind the point, and a shift (Jacob et al. 2018, arXiv:1712.05877, section 2.2).

use crate::error::{Error, Result};

/// A positive real multiplier as `mantissa · 2^(exponent − 31)`, mantissa in `[2³⁰, 2³¹)`.
///
/// ```
/// use lowbit::codes::Multiplier;
/// let third = Multiplier::new(1.0 / 3.0)?;
/// assert_eq!(third.apply(300), 100);
/// assert_eq!(third.apply(-5), -2);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Multiplier {
    mantissa: i32,
    exponent: i32,
}

impl Multiplier {
    /// The multiplier nearest to a real number.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is positive, finite, and, to 31 bits, less than 2³⁰.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a mantissa of at most 2^31, an exponent of at most 11 bits"
    )]
    pub fn new(real: f64) -> Result<Self> {
        // Half the last bit of a mantissa below 2^30, from where on the nearest multiplier is 2^30.
        let limit = f64::from(1 << 30) - 0.25;
        if !(real > 0.0 && real < limit) {
            return Err(Error::option(
                "multiplier",
                "greater than 0 and less than 2^30",
                real,
            ));
        }
        // real = fraction · 2^exponent with a fraction in [½, 1), exactly; subnormals count as the
        // least normal number, both being 0 after the shift.
        let normal = real.max(f64::MIN_POSITIVE);
        let biased = (normal.to_bits() >> 52) as i32;
        let mut exponent = biased - 1022;
        let fraction = f64::from_bits((normal.to_bits() & ((1 << 52) - 1)) | (1022 << 52));
        let mut mantissa = (fraction * f64::from(1_u32 << 31)).round() as i64;
        if mantissa == 1 << 31 {
            mantissa /= 2;
            exponent += 1;
        }
        Ok(Self {
            mantissa: mantissa as i32,
            exponent,
        })
    }

    /// The product, rounded to the nearest integer and saturated at 32 bits.
    ///
    /// Rounding happens twice, as in gemmlowp: half away from zero after the multiplication by the
    /// mantissa (towards +∞ where that is negative and exactly between), half away from zero after
    /// the shift.
    #[must_use]
    pub fn apply(self, value: i32) -> i32 {
        let left = self.exponent.max(0).unsigned_abs();
        let right = self.exponent.min(0).unsigned_abs();
        let product = i64::from(value) * i64::from(self.mantissa);
        divide_by_power_of_two(divide_with_nudge(product, 31 - left), right)
    }
}

/// `round(product / 2^exponent)`, saturated; exponent from 1 to 31.
#[expect(clippy::cast_possible_truncation, reason = "saturated before")]
fn divide_with_nudge(product: i64, exponent: u32) -> i32 {
    let half = 1_i64 << (exponent - 1);
    let nudge = if product >= 0 { half } else { 1 - half };
    let quotient = (product + nudge) / (1_i64 << exponent);
    quotient.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

/// `round(x / 2^exponent)`, half away from zero.
fn divide_by_power_of_two(x: i32, exponent: u32) -> i32 {
    if exponent > 31 {
        return 0;
    }
    let mask = (1_i64 << exponent) - 1;
    let remainder = i64::from(x) & mask;
    let threshold = (mask >> 1) + i64::from(x < 0);
    let up = i32::from(remainder > threshold);
    (if exponent == 31 {
        x >> 31
    } else {
        x >> exponent
    }) + up
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_product_is_within_one_of_the_real_one(
            value in any::<i32>(),
            real in prop_oneof![1e-12..1e-6_f64, 1e-6..1.0_f64, 1.0..1e9_f64],
        ) {
            let exact = f64::from(value) * real;
            let got = f64::from(Multiplier::new(real).unwrap().apply(value));
            let expected = exact.clamp(i32::MIN.into(), i32::MAX.into());
            // Half for each rounding, and the 31 bits of the mantissa.
            prop_assert!((got - expected).abs() <= 1.0 + expected.abs() * 2.0_f64.powi(-30));
        }
    }

    #[test]
    fn known_products() {
        let times = |real: f64, value| Multiplier::new(real).unwrap().apply(value);
        assert_eq!(times(0.5, 3), 2);
        assert_eq!(times(0.5, -3), -1);
        assert_eq!(times(0.25, 2), 1);
        assert_eq!(times(0.25, -2), -1);
        assert_eq!(times(1.0, i32::MIN), i32::MIN);
        assert_eq!(times(1.0, i32::MAX), i32::MAX);
        assert_eq!(times(4.0, i32::MAX), i32::MAX);
        assert_eq!(times(4.0, i32::MIN), i32::MIN);
        assert_eq!(times(4.0, -3), -12);
        assert_eq!(times(1e9, -1), -1_000_000_000);
        let greatest = (f64::from(1 << 30) - 0.25).next_down();
        assert_eq!(times(greatest, 1), 1 << 30);
        assert_eq!(times(greatest, -1), 1 - (1 << 30));
        assert_eq!(times(1e-300, i32::MAX), 0);
        assert_eq!(times(5e-324, i32::MIN), 0);
        assert_eq!(times(1.0 - f64::EPSILON, 1 << 30), 1 << 30);
    }

    #[test]
    fn numbers_that_are_no_multiplier_are_refused() {
        for real in [
            0.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            1e300,
            f64::from(1 << 30),
            // The nearest multiplier is 2^30.
            f64::from(1 << 30).next_down(),
            f64::from(1 << 30) - 0.25,
        ] {
            assert!(Multiplier::new(real).is_err(), "{real}");
        }
    }
}
