//! Scales and zero points of a tensor: checked when built, or chosen from ranges.

use half::f16;
use ndarray::{ArrayRef, Dimension};

use super::{Range, Ranges};
use crate::{
    error::{Error, Result},
    groups::{Groups, element_count},
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

/// The parameters of a quantized tensor: a [`Scheme`] with its scales and zero points.
///
/// Zero points are kept as `f32`, which holds every code exactly; they are integers unless the
/// mapping is [`Mapping::AsymmetricFloat`].
///
/// ```
/// use lowbit::{Affine, Range, Ranges, Scheme};
///
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let affine = Affine::from_ranges(&scheme, &Ranges::per_tensor(Range::new(-1.0, 1.55)?))?;
/// assert_eq!(affine.scale(), [0.01]);
/// assert_eq!(affine.zero_point(), [100.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct Affine {
    scheme: Scheme,
    shape: Vec<usize>,
    scale: Vec<f32>,
    zero_point: Vec<f32>,
}

impl Affine {
    /// Parameters of the given shape (see the table of [`Granularity`](crate::Granularity)), in
    /// row-major order.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the numbers of scales or zero points are not that of the shape;
    /// [`Error::InvalidScale`] unless every scale is finite, positive, normal and representable in
    /// the scheme's storage type; [`Error::InvalidZeroPoint`] unless every zero point is an integer
    /// code (asymmetric), the middle code (symmetric) or finite (asymmetric with a float zero
    /// point).
    ///
    /// ```
    /// use lowbit::{Affine, Error, Scheme};
    /// let scheme = Scheme::int(4).asymmetric().per_axis(0).build()?;
    /// let affine = Affine::new(scheme, &[2], vec![0.5, 0.1], vec![0.0, -8.0])?;
    /// assert_eq!(affine.range(1)?.max(), 1.5); // (7 − −8) · 0.1
    ///
    /// let refused = Affine::new(scheme, &[2], vec![0.5, 0.0], vec![0.0, 0.0]);
    /// assert!(matches!(refused, Err(Error::InvalidScale { index: 1, .. })));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn new(
        scheme: Scheme,
        shape: &[usize],
        scale: Vec<f32>,
        zero_point: Vec<f32>,
    ) -> Result<Self> {
        let parameters = element_count("parameters", shape)?;
        for (what, len) in [("scales", scale.len()), ("zero points", zero_point.len())] {
            if len != parameters {
                return Err(Error::ShapeMismatch {
                    what,
                    expected: shape.to_vec(),
                    got: vec![len],
                });
            }
        }
        for (index, &got) in scale.iter().enumerate() {
            check_scale(scheme.scale_kind(), index, got)?;
        }
        for (index, &got) in zero_point.iter().enumerate() {
            check_zero_point(&scheme, index, got)?;
        }
        Ok(Self {
            scheme,
            shape: shape.to_vec(),
            scale,
            zero_point,
        })
    }

    /// Parameters that were checked before.
    pub(crate) fn trusted(
        scheme: Scheme,
        shape: &[usize],
        scale: Vec<f32>,
        zero_point: Vec<f32>,
    ) -> Self {
        Self {
            scheme,
            shape: shape.to_vec(),
            scale,
            zero_point,
        }
    }

    /// One scale and zero point, for a scheme per tensor.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn per_tensor(scheme: Scheme, scale: f32, zero_point: f32) -> Result<Self> {
        Self::new(scheme, &[], vec![scale], vec![zero_point])
    }

    /// Scales of the given shape under a symmetric scheme, whose zero points are its middle code.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub fn symmetric(scheme: Scheme, shape: &[usize], scale: Vec<f32>) -> Result<Self> {
        let zero_point = vec![scheme.middle() as f32; scale.len()];
        Self::new(scheme, shape, scale, zero_point)
    }

    /// The parameters that lay each range onto the codes of the scheme.
    ///
    /// Integer mappings widen each range to contain 0. A range of zero width at 0 gets scale 1, and
    /// one too narrow for a normal scale the smallest normal scale.
    ///
    /// # Errors
    /// [`Error::InvalidScale`] if a range is too wide for the storage type of scales.
    pub fn from_ranges(scheme: &Scheme, ranges: &Ranges) -> Result<Self> {
        let mut scale = Vec::with_capacity(ranges.as_slice().len());
        let mut zero_point = Vec::with_capacity(ranges.as_slice().len());
        for (index, &range) in ranges.as_slice().iter().enumerate() {
            let parameter = Parameter::from_range(scheme, range).map_err(|error| match error {
                Error::InvalidScale { expected, got, .. } => Error::InvalidScale {
                    index,
                    expected,
                    got,
                },
                other => other,
            })?;
            scale.push(parameter.scale);
            zero_point.push(parameter.zero_point);
        }
        Self::new(*scheme, ranges.shape(), scale, zero_point)
    }

    /// The parameters that cover the whole range of a tensor, of any layout: what dynamic
    /// quantization chooses at run time.
    ///
    /// # Errors
    /// Those of [`Ranges::of`] and [`from_ranges`](Self::from_ranges).
    ///
    /// ```
    /// use lowbit::{Affine, Scheme};
    /// use ndarray::array;
    /// let tokens = array![[0.0_f32, 12.7], [-1.27, 0.5]];
    /// let affine = Affine::of(&Scheme::int(8).per_row().build()?, &tokens)?;
    /// assert_eq!(affine.scale(), [0.1, 0.01]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn of<D: Dimension>(scheme: &Scheme, x: &ArrayRef<f32, D>) -> Result<Self> {
        Self::from_ranges(scheme, &Ranges::of(x, scheme.granularity())?)
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The shape of the parameters.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The scales, in row-major order; real units per step.
    #[must_use]
    pub fn scale(&self) -> &[f32] {
        &self.scale
    }

    /// The zero points, in row-major order.
    #[must_use]
    pub fn zero_point(&self) -> &[f32] {
        &self.zero_point
    }

    /// The scale and zero point of one group of elements.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there are not so many.
    pub fn parameter(&self, index: usize) -> Result<Parameter> {
        match (self.scale.get(index), self.zero_point.get(index)) {
            (Some(&scale), Some(&zero_point)) => Ok(Parameter { scale, zero_point }),
            _ => Err(Error::option(
                "parameter",
                format!("less than {}", self.scale.len()),
                index,
            )),
        }
    }

    /// The interval of real numbers that the codes of one group cover.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if there are not so many groups.
    pub fn range(&self, index: usize) -> Result<Range> {
        let Parameter { scale, zero_point } = self.parameter(index)?;
        let (low, high) = code_ends(&self.scheme);
        let bound = |value: f32| value.clamp(f32::MIN, f32::MAX);
        Range::new(
            bound((low - zero_point) * scale),
            bound((high - zero_point) * scale),
        )
    }

    /// The groups of a tensor of the given shape.
    ///
    /// # Errors
    /// [`Error::NoSuchAxis`] as [`Groups::new`]; [`Error::ShapeMismatch`] if a tensor of that shape
    /// has other parameters than these.
    pub fn groups(&self, tensor: &[usize]) -> Result<Groups> {
        let groups = Groups::new(tensor, self.scheme.granularity())?;
        if groups.has_parameter_shape(&self.shape) {
            Ok(groups)
        } else {
            Err(Error::ShapeMismatch {
                what: "parameters",
                expected: groups.parameter_shape(),
                got: self.shape.clone(),
            })
        }
    }
}

impl Parameter {
    /// The scale and zero point that lay a range onto the codes of a scheme; see
    /// [`Affine::from_ranges`].
    ///
    /// # Errors
    /// [`Error::InvalidScale`] if the range is too wide for the storage type of scales.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub fn from_range(scheme: &Scheme, range: Range) -> Result<Self> {
        let (low, high) = code_ends(scheme);
        let (min, max) = (range.min(), range.max());
        let middle = scheme.middle() as f32;
        let symmetric = |codes: f32| Self {
            scale: store(scheme.scale_kind(), range.magnitude() / codes),
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
fn code_ends(scheme: &Scheme) -> (f32, f32) {
    match scheme.format() {
        Format::Int(int) => (int.quant_min() as f32, int.quant_max() as f32),
        Format::Float(float) => (-float.max_value(), float.max_value()),
    }
}

/// `(max − min) / codes`, where the difference might not be finite.
fn width(min: f32, max: f32, codes: f32) -> f32 {
    let difference = max - min;
    if difference.is_finite() {
        difference / codes
    } else {
        max / codes - min / codes
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

fn check_scale(kind: ScaleKind, index: usize, got: f32) -> Result<()> {
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
fn check_zero_point(scheme: &Scheme, index: usize, got: f32) -> Result<()> {
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

/// What stored parameters say of themselves, before they are believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "Affine")]
struct Unchecked {
    scheme: Scheme,
    shape: Vec<usize>,
    scale: Vec<f32>,
    zero_point: Vec<f32>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Affine {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        Self::new(
            stored.scheme,
            &stored.shape,
            stored.scale,
            stored.zero_point,
        )
    }
}
