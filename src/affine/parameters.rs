//! Scales and zero points of a tensor: checked when built, or chosen from ranges.

use ndarray::{ArrayRef, Dimension};

use super::{
    Range, Ranges,
    parameter::{Parameter, check_scale, check_zero_point, code_ends},
};
use crate::{
    error::{Error, Result},
    groups::{Groups, element_count},
    scheme::Scheme,
};

/// The parameters of a quantized tensor: a [`Scheme`] with its scales and zero points.
///
/// Zero points are kept as `f32`, which holds every code exactly; they are integers unless the
/// mapping is [`Mapping::AsymmetricFloat`](crate::Mapping::AsymmetricFloat).
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
        Self::from_ranges_with_least_scale(scheme, ranges, 0.0)
    }

    /// [`from_ranges`](Self::from_ranges) with scales of at least `least_scale`, real units per
    /// step: torch.ao's `eps`, which its observers set to 2⁻²³. A range that is narrower, of zero
    /// width too, gets that scale and the zero point that belongs to it.
    ///
    /// # Errors
    /// Those of [`from_ranges`](Self::from_ranges); [`Error::InvalidOption`] for a least scale that
    /// is negative or not finite.
    ///
    /// ```
    /// use lowbit::{Affine, Range, Ranges, Scheme};
    ///
    /// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
    /// let nothing = Ranges::per_tensor(Range::new(0.0, 0.0)?);
    /// let affine = Affine::from_ranges_with_least_scale(&scheme, &nothing, f32::EPSILON)?;
    /// assert_eq!(affine.scale(), [f32::EPSILON]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn from_ranges_with_least_scale(
        scheme: &Scheme,
        ranges: &Ranges,
        least_scale: f32,
    ) -> Result<Self> {
        let mut scale = Vec::with_capacity(ranges.as_slice().len());
        let mut zero_point = Vec::with_capacity(ranges.as_slice().len());
        for (index, &range) in ranges.as_slice().iter().enumerate() {
            let parameter = Parameter::from_range_with_least_scale(scheme, range, least_scale);
            let parameter = parameter.map_err(|error| match error {
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
