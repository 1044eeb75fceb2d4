//! From exact sums to 8-bit codes.

use crate::{
    affine::Affine,
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
#[derive(Debug)]
pub(super) struct FixedPoint {
    multiplier: Vec<Multiplier>,
    bias: Vec<i32>,
    zero: i32,
    least: i32,
    greatest: i32,
}

impl FixedPoint {
    /// # Errors
    /// [`Error::InvalidOption`] for a multiplier out of range; [`Error::NonFinite`] for a bias that
    /// 32 bits do not hold.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer zero point, and a bias that was checked"
    )]
    pub(super) fn new(
        output: &Affine,
        input_scale: f32,
        column_scales: &[f32],
        bias: Option<&[f32]>,
    ) -> Result<Self> {
        let output_scale = f64::from(output.scale()[0]);
        let unit = |scale: f32| f64::from(input_scale) * f64::from(scale);
        let multiplier = column_scales
            .iter()
            .map(|&scale| Multiplier::new(unit(scale) / output_scale));
        let in_units = |(index, &scale): (usize, &f32)| {
            let value = bias.map_or(0.0, |bias| bias[index]);
            let steps = (f64::from(value) / unit(scale)).round_ties_even();
            if steps.abs() < f64::from(i32::MAX) {
                Ok(steps as i32)
            } else {
                Err(Error::NonFinite {
                    what: "bias in units of the sums",
                    expected: "a 32-bit integer",
                    position: vec![index],
                    value: steps,
                })
            }
        };
        Ok(Self {
            multiplier: multiplier.collect::<Result<_>>()?,
            bias: column_scales
                .iter()
                .enumerate()
                .map(in_units)
                .collect::<Result<_>>()?,
            zero: output.zero_point()[0] as i32,
            least: output.scheme().quant_min(),
            greatest: output.scheme().quant_max(),
        })
    }

    /// The code of a sum of a column.
    pub(super) fn code(&self, column: usize, sum: i32) -> i32 {
        let sum = sum.saturating_add(self.bias[column]);
        let steps = self.multiplier[column].apply(sum).saturating_add(self.zero);
        steps.clamp(self.least, self.greatest)
    }
}
