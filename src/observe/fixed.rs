//! Ranges that are known without looking.

use ndarray::ArrayViewD;

use super::{
    Observer, Statistics,
    min_max::Extremes,
    tally::{Tally, nothing_seen, same_kind},
};
use crate::{
    affine::Range,
    error::{Error, Result},
    scheme::{Format, Granularity, Scheme},
};

/// The range of a function's outputs, whatever is seen: for sigmoid, softmax and tanh.
///
/// Under an asymmetric scheme and [`FullRange`](crate::calibrate::FullRange) the parameters are those
/// that LiteRT and PyTorch fix: scale `2^−b` and zero point `qmin` for sigmoid and softmax, scale
/// `2^(1−b)` and the middle code for tanh. The range ends a step before 1.
///
/// ```
/// use lowbit::{Affine, ObserverExt, Scheme, calibrate::{FullRange, ranges}, observe::Fixed};
/// use ndarray::array;
///
/// let scheme = Scheme::int(8).asymmetric().build()?;
/// let mut observer = Fixed::sigmoid(&scheme)?;
/// observer.observe(&array![0.2_f32, 0.3])?;
/// let affine = Affine::from_ranges(&scheme, &ranges(&FullRange, &observer, &scheme)?)?;
/// assert_eq!((affine.scale(), affine.zero_point()), (&[1.0 / 256.0][..], &[-128.0][..]));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct Fixed {
    min: f32,
    max: f32,
    tally: Tally<Extremes>,
}

impl Fixed {
    /// Any range.
    #[must_use]
    pub fn new(range: Range, granularity: Granularity) -> Self {
        Self {
            min: range.min(),
            max: range.max(),
            tally: Tally::new(granularity),
        }
    }

    /// The outputs of a sigmoid, 0 to 1, at the granularity of a scheme of integers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for small floats.
    pub fn sigmoid(scheme: &Scheme) -> Result<Self> {
        let step = 1.0 / levels(scheme)?;
        Ok(Self::new(
            Range::new(0.0, 1.0 - step)?,
            scheme.granularity(),
        ))
    }

    /// The outputs of a softmax, 0 to 1: as [`sigmoid`](Self::sigmoid).
    ///
    /// # Errors
    /// [`Error::Unsupported`] for small floats.
    pub fn softmax(scheme: &Scheme) -> Result<Self> {
        Self::sigmoid(scheme)
    }

    /// The outputs of a hyperbolic tangent, −1 to 1, at the granularity of a scheme of integers.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for small floats.
    pub fn tanh(scheme: &Scheme) -> Result<Self> {
        let step = 2.0 / levels(scheme)?;
        Ok(Self::new(
            Range::new(-1.0, 1.0 - step)?,
            scheme.granularity(),
        ))
    }
}

/// The number of codes, all of them even where the range is narrow: it is the step that is fixed.
fn levels(scheme: &Scheme) -> Result<f32> {
    match scheme.format() {
        Format::Int(int) => Ok(f32::from(u16::try_from(int.bits()).unwrap_or(16)).exp2()),
        Format::Float(_) => Err(Error::Unsupported {
            operation: "a fixed range",
            expected: "a scheme of integers",
            got: scheme.to_string(),
        }),
    }
}

impl Observer for Fixed {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        self.tally.observe(batch, Extremes::take)
    }

    fn granularity(&self) -> Granularity {
        self.tally.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.tally.shape()
    }

    /// The fixed range, with the number of elements seen.
    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        match self.tally.state(parameter)?.count {
            0 => Err(nothing_seen("fixed range")),
            count => Ok(Statistics::new(
                "fixed range",
                count,
                Range::new(self.min, self.max)?,
            )),
        }
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        let other = same_kind::<Self>(other)?;
        if (self.min, self.max) != (other.min, other.max) {
            return Err(Error::Mismatch {
                what: "fixed range",
                expected: format!("[{}, {}]", self.min, self.max),
                got: format!("[{}, {}]", other.min, other.max),
            });
        }
        self.tally.merge(&other.tally, Extremes::merge)
    }

    fn reset(&mut self) {
        self.tally.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self {
            min: self.min,
            max: self.max,
            tally: Tally::new(self.granularity()),
        })
    }
}

/// What a stored observer says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Fixed")]
struct Unchecked {
    min: f32,
    max: f32,
    tally: Tally<Extremes>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Fixed {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let range = Range::new(stored.min, stored.max)?;
        stored.tally.check(Extremes::is_valid)?;
        let mut fixed = Self::new(range, stored.tally.granularity());
        fixed.tally = stored.tally;
        Ok(fixed)
    }
}
