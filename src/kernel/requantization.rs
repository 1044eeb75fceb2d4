//! From exact sums to 8-bit codes.

use super::output::Epilogue;
use crate::{
    affine::{Affine, scalar},
    codes::Multiplier,
    error::{Error, Result},
    scheme::{Format, Granularity, Mapping},
};

/// How a [`PackedLinear`](super::PackedLinear) turns its sums into codes for the next layer.
///
/// ```
/// use lowbit::{Affine, Requantization, Scheme};
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let output = Affine::per_tensor(scheme, 0.05, 110.0)?;
/// let in_floats = Requantization::float(output.clone())?;
/// let in_integers = Requantization::fixed_point(output)?;
/// # let _ = (in_floats, in_integers);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Requantization {
    pub(super) output: Affine,
    pub(super) arithmetic: Arithmetic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    Float,
    FixedPoint,
}

impl Requantization {
    /// The codes of the float output: what quantizing the result of
    /// [`forward`](super::PackedLinear::forward) gives, bit for bit.
    ///
    /// # Errors
    /// [`Error::Unsupported`] unless the parameters are per tensor, of integers of at most 8 bits
    /// with an integer zero point.
    pub fn float(output: Affine) -> Result<Self> {
        Self::new(output, Arithmetic::Float)
    }

    /// In integers alone, as mobile and microcontroller runtimes have it: the bias rounded to units
    /// of `x scale · w scale`, the sum multiplied by a [`Multiplier`] of
    /// `x scale · w scale / output scale`, the zero point added, the result saturated.
    ///
    /// Rounding differs from [`float`](Self::float)'s on some values that lie between two codes. It
    /// needs [static](super::Activations::Static) activations and weights with one scale an output.
    ///
    /// # Errors
    /// As [`float`](Self::float).
    pub fn fixed_point(output: Affine) -> Result<Self> {
        Self::new(output, Arithmetic::FixedPoint)
    }

    fn new(output: Affine, arithmetic: Arithmetic) -> Result<Self> {
        let scheme = output.scheme();
        if matches!(scheme.format(), Format::Int(_))
            && scheme.bits() <= 8
            && scheme.granularity() == Granularity::PerTensor
            && scheme.mapping() != Mapping::AsymmetricFloat
        {
            return Ok(Self { output, arithmetic });
        }
        Err(Error::Unsupported {
            operation: "requantization",
            expected: "integers of at most 8 bits with an integer zero point, per tensor",
            got: scheme.to_string(),
        })
    }
}

/// Requantization in fixed point, ready for the columns of a layer.
#[derive(Debug, Default)]
pub(super) struct FixedPoint {
    multiplier: Vec<Multiplier>,
    bias: Vec<i32>,
    zero: i32,
    least: i32,
    greatest: i32,
}

impl FixedPoint {
    /// Makes ready for a layer.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a multiplier out of range; [`Error::NonFinite`] for a bias that
    /// 32 bits do not hold.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer zero point, and a bias that was checked"
    )]
    pub(super) fn prepare(
        &mut self,
        output: &Affine,
        input_scale: f32,
        column_scales: &[f32],
        epilogue: &Epilogue<'_>,
    ) -> Result<()> {
        let scheme = output.scheme();
        let (output_scale, zero) = (output.scale()[0], output.zero_point()[0]);
        let unit = |scale: f32| f64::from(input_scale) * f64::from(scale);
        self.multiplier.clear();
        self.bias.clear();
        for (index, &scale) in column_scales.iter().enumerate() {
            let multiplier = Multiplier::new(unit(scale) / f64::from(output_scale))?;
            let value = epilogue.bias.map_or(0.0, |bias| bias[index]);
            let steps = (f64::from(value) / unit(scale)).round_ties_even();
            if steps.abs() >= f64::from(i32::MAX) {
                return Err(Error::NonFinite {
                    what: "bias in units of the sums",
                    expected: "a 32-bit integer",
                    position: vec![index],
                    value: steps,
                });
            }
            self.multiplier.push(multiplier);
            self.bias.push(steps as i32);
        }
        let (low, high) = epilogue.clamp.unwrap_or((f32::NEG_INFINITY, f32::INFINITY));
        let code = |end: f32| scalar::quantize(end, output_scale, zero, scheme);
        (self.least, self.greatest) = (code(low), code(high));
        self.zero = zero as i32;
        Ok(())
    }

    /// The code of a sum of a column.
    pub(super) fn code(&self, column: usize, sum: i32) -> i32 {
        let sum = sum.saturating_add(self.bias[column]);
        let steps = self.multiplier[column].apply(sum).saturating_add(self.zero);
        steps.clamp(self.least, self.greatest)
    }
}
