//! The scale and zero point of one group of elements: chosen from a range, rounded as they are stored,
//! checked.

use half::f16;

use super::Range;
use crate::{
    error::{Error, Result},
    scheme::{Format, Mapping, ScaleKind, Scheme},
};

/// The scale and zero point of one group of elements.
///
/// ```
/// use lowbit::{Parameter, Range, Scheme};
/// let scheme = Scheme::int(8).asymmetric().build()?;
/// let parameter = Parameter::from_range(&scheme, Range::new(0.0, 2.55)?)?;
/// assert_eq!((parameter.scale, parameter.zero_point), (0.01, -128.0));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Parameter {
    /// Real units per step; finite, positive and normal.
    pub scale: f32,
    /// The code, integer or real, that stands for 0.
    pub zero_point: f32,
}

impl Parameter {
    /// The scale and zero point that lay a range onto the codes of a scheme; see
    /// [`Affine::from_ranges`](crate::Affine::from_ranges).
    ///
    /// # Errors
    /// [`Error::InvalidScale`] if the range is too wide for the storage type of scales.
    pub fn from_range(scheme: &Scheme, range: Range) -> Result<Self> {
        Self::from_range_with_least_scale(scheme, range, 0.0)
    }

    /// [`from_range`](Self::from_range) with a scale of at least `least_scale`, real units per step;
    /// see [`Affine::from_ranges_with_least_scale`](crate::Affine::from_ranges_with_least_scale).
    ///
    /// # Errors
    /// Those of [`from_range`](Self::from_range); [`Error::InvalidOption`] for a least scale that is
    /// negative or not finite.
    ///
    /// ```
    /// use lowbit::{Parameter, Range, Scheme};
    /// let scheme = Scheme::int(8).asymmetric().build()?;
    /// let parameter = Parameter::from_range_with_least_scale(&scheme, Range::new(-0.25, 1.0)?, 0.125)?;
    /// assert_eq!((parameter.scale, parameter.zero_point), (0.125, -126.0));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub fn from_range_with_least_scale(
        scheme: &Scheme,
        range: Range,
        least_scale: f32,
    ) -> Result<Self> {
        if !(least_scale >= 0.0 && least_scale.is_finite()) {
            let expected = "a finite number of at least 0";
            return Err(Error::option("least scale", expected, least_scale));
        }
        let (low, high) = code_ends(scheme);
        let (min, max) = (range.min(), range.max());
        let middle = scheme.middle() as f32;
        let store = |kind, scale: f32| store(kind, scale.max(least_scale));
        let symmetric = |codes: f32| Self {
            scale: store(scheme.scale_kind(), step(range.magnitude(), codes)),
            zero_point: middle,
        };
        let parameter = match scheme.mapping() {
            Mapping::Symmetric => symmetric(high - middle),
            Mapping::SymmetricHalfRange => symmetric((high - low) / 2.0),
            Mapping::Asymmetric => {
                let (min, max) = (min.min(0.0), max.max(0.0));
                let scale = store(scheme.scale_kind(), width(min, max, high - low));
                Self {
                    scale,
                    zero_point: (low - (min / scale).round_ties_even()).clamp(low, high),
                }
            }
            Mapping::AsymmetricFloat if min == max && min != 0.0 => {
                // One value: a step of its size away from 0, so that it is exact.
                let scale = store(scheme.scale_kind(), min.abs());
                Self {
                    scale,
                    zero_point: low - min / scale,
                }
            }
            Mapping::AsymmetricFloat => {
                let steps = width(min, max, high - low);
                let scale = store(scheme.scale_kind(), steps);
                Self {
                    scale,
                    zero_point: low - min / scale,
                }
            }
        };
        check_scale(scheme.scale_kind(), 0, parameter.scale)?;
        Ok(parameter)
    }
}

/// The real numbers that the least and the greatest code stand for at scale 1 and zero point 0.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
pub(super) fn code_ends(scheme: &Scheme) -> (f32, f32) {
    match scheme.format() {
        Format::Int(int) => (int.quant_min() as f32, int.quant_max() as f32),
        Format::Float(float) => (-float.max_value(), float.max_value()),
    }
}

/// `(max − min) / codes`, where the difference might not be finite.
fn width(min: f32, max: f32, codes: f32) -> f32 {
    let difference = max - min;
    if difference.is_finite() {
        step(difference, codes)
    } else {
        max / codes - min / codes
    }
}

/// `extent / codes`, which is 0 for an extent of 0 alone.
fn step(extent: f32, codes: f32) -> f32 {
    if extent > 0.0 {
        (extent / codes).max(f32::MIN_POSITIVE)
    } else {
        0.0
    }
}

/// The scale as its storage type holds it: 1 for 0, at least the smallest normal value.
pub(crate) fn store(kind: ScaleKind, scale: f32) -> f32 {
    if scale == 0.0 {
        return 1.0;
    }
    match kind {
        ScaleKind::F32 => scale.max(f32::MIN_POSITIVE),
        ScaleKind::F16 => f16::from_f32(scale).max(f16::MIN_POSITIVE).to_f32(),
        ScaleKind::PowerOfTwo => {
            let scale = scale.max(f32::MIN_POSITIVE);
            let floor = f32::from_bits(scale.to_bits() & 0x7f80_0000);
            if floor == scale { scale } else { floor * 2.0 }
        }
    }
}

pub(super) fn check_scale(kind: ScaleKind, index: usize, got: f32) -> Result<()> {
    let (valid, expected) = match kind {
        ScaleKind::F32 => (true, "a finite, positive, normal number"),
        ScaleKind::F16 => (
            f16::from_f32(got).to_f32() == got && got >= f16::MIN_POSITIVE.to_f32(),
            "a finite, positive, normal 16-bit float",
        ),
        ScaleKind::PowerOfTwo => (
            got.to_bits() & 0x007f_ffff == 0,
            "a finite, positive, normal power of two",
        ),
    };
    if valid && got.is_normal() && got > 0.0 {
        Ok(())
    } else {
        Err(Error::InvalidScale {
            index,
            expected,
            got,
        })
    }
}

#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
pub(super) fn check_zero_point(scheme: &Scheme, index: usize, got: f32) -> Result<()> {
    let middle = scheme.middle() as f32;
    let (valid, expected) = match scheme.mapping() {
        Mapping::Symmetric | Mapping::SymmetricHalfRange => (
            got == middle,
            format!("{middle}, the middle code of a symmetric scheme"),
        ),
        Mapping::Asymmetric => {
            let (low, high) = code_ends(scheme);
            (
                got.fract() == 0.0 && (low..=high).contains(&got),
                format!("an integer from {low} to {high}"),
            )
        }
        Mapping::AsymmetricFloat => (got.is_finite(), "a finite number".into()),
    };
    if valid {
        Ok(())
    } else {
        Err(Error::InvalidZeroPoint {
            index,
            expected,
            got,
        })
    }
}
