//! Clipping ranges: what a calibrator chooses and parameters are made from.

use ndarray::{ArrayRef, Dimension};

use crate::{
    error::{Error, Result},
    groups::{Groups, element_count},
    parallel::{PIECE, map_pieces},
    scheme::Granularity,
};

/// An interval of real numbers, finite, `min <= max`.
///
/// ```
/// use lowbit::Range;
/// let range = Range::new(-1.0, 2.0)?;
/// assert_eq!((range.min(), range.max()), (-1.0, 2.0));
/// assert!(Range::new(0.0, f32::NAN).is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    min: f32,
    max: f32,
}

impl Range {
    /// The interval from `min` to `max`.
    ///
    /// # Errors
    /// [`Error::InvalidRange`] unless both are finite and `min <= max`.
    pub fn new(min: f32, max: f32) -> Result<Self> {
        if min.is_finite() && max.is_finite() && min <= max {
            Ok(Self { min, max })
        } else {
            Err(Error::InvalidRange { index: 0, min, max })
        }
    }

    /// The lower end.
    #[must_use]
    pub fn min(self) -> f32 {
        self.min
    }

    /// The upper end.
    #[must_use]
    pub fn max(self) -> f32 {
        self.max
    }

    /// The larger magnitude of the two ends.
    #[must_use]
    pub fn magnitude(self) -> f32 {
        self.min.abs().max(self.max.abs())
    }
}

/// A range for each parameter of a tensor, in the shape of the parameters.
///
/// ```
/// use lowbit::{Range, Ranges};
/// let ranges = Ranges::new(&[2], vec![Range::new(-1.0, 1.0)?, Range::new(0.0, 3.0)?])?;
/// assert_eq!(ranges.as_slice()[1].max(), 3.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Ranges {
    shape: Vec<usize>,
    ranges: Vec<Range>,
}

impl Ranges {
    /// Ranges in row-major order, for parameters of the given shape.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if their number is not that of the shape.
    pub fn new(shape: &[usize], ranges: Vec<Range>) -> Result<Self> {
        if element_count("ranges", shape)? != ranges.len() {
            return Err(Error::ShapeMismatch {
                what: "ranges",
                expected: shape.to_vec(),
                got: vec![ranges.len()],
            });
        }
        Ok(Self {
            shape: shape.to_vec(),
            ranges,
        })
    }

    /// One range, for a whole tensor.
    #[must_use]
    pub fn per_tensor(range: Range) -> Self {
        Self {
            shape: vec![],
            ranges: vec![range],
        }
    }

    /// The least and the greatest element of each group of a tensor, of any layout; `[0, 0]` for a
    /// group of no elements.
    ///
    /// # Errors
    /// [`Error::NonFinite`] with the position of the first NaN or infinity; those of
    /// [`Groups::new`].
    ///
    /// ```
    /// use lowbit::{Granularity, Ranges};
    /// use ndarray::array;
    /// let ranges = Ranges::of(&array![[1.0_f32, -2.0], [3.0, 4.0]], Granularity::PerRow)?;
    /// assert_eq!(ranges.as_slice()[1].min(), 3.0);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn of<D: Dimension>(x: &ArrayRef<f32, D>, granularity: Granularity) -> Result<Self> {
        let groups = Groups::new(x.shape(), granularity)?;
        let standard = x.as_standard_layout();
        let x = standard.as_slice().unwrap_or_default();
        let pieces = map_pieces(x.len(), PIECE, |elements| Extents::of(x, &groups, elements));
        let mut whole = Extents::empty(0, groups.parameters());
        for piece in &pieces {
            whole.include(piece);
        }
        if !whole.finite {
            let is_bad = |value: &&f32| !value.is_finite();
            let index = x.iter().position(|value| is_bad(&value)).unwrap_or(0);
            return Err(Error::NonFinite {
                what: "tensor to find the range of",
                expected: "finite numbers",
                position: groups.position(index),
                value: x[index].into(),
            });
        }
        let ranges = whole.min.iter().zip(&whole.max).map(|(&min, &max)| {
            if min <= max {
                Range { min, max }
            } else {
                Range { min: 0.0, max: 0.0 }
            }
        });
        Ok(Self {
            shape: groups.parameter_shape(),
            ranges: ranges.collect(),
        })
    }

    /// The shape of the parameters.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The ranges, in row-major order.
    #[must_use]
    pub fn as_slice(&self) -> &[Range] {
        &self.ranges
    }
}

/// The least and the greatest element of consecutive parameters, and whether all were finite.
struct Extents {
    first: usize,
    min: Vec<f32>,
    max: Vec<f32>,
    finite: bool,
}

impl Extents {
    fn empty(first: usize, parameters: usize) -> Self {
        Self {
            first,
            min: vec![f32::INFINITY; parameters],
            max: vec![f32::NEG_INFINITY; parameters],
            finite: true,
        }
    }

    fn of(x: &[f32], groups: &Groups, elements: std::ops::Range<usize>) -> Self {
        // Runs do not go through the parameters in order where groups lie across rows.
        let (mut first, mut end) = (usize::MAX, 0);
        for run in groups.runs(elements.clone()) {
            first = first.min(run.parameter);
            end = end.max(run.parameter + if run.each { run.len } else { 1 });
        }
        let mut extents = Self::empty(first.min(end), end - first.min(end));
        for run in groups.runs(elements) {
            let values = &x[run.start..run.start + run.len];
            let at = run.parameter - extents.first;
            if run.each {
                let (min, max) = (&mut extents.min[at..], &mut extents.max[at..]);
                let mut bad = 0_u32;
                for ((&value, min), max) in values.iter().zip(min).zip(max) {
                    *min = lesser(*min, value);
                    *max = greater(*max, value);
                    bad |= u32::from(!value.is_finite());
                }
                extents.finite &= bad == 0;
            } else {
                let (min, max, finite) = extent(values);
                extents.min[at] = lesser(extents.min[at], min);
                extents.max[at] = greater(extents.max[at], max);
                extents.finite &= finite;
            }
        }
        extents
    }

    fn include(&mut self, piece: &Self) {
        let at = piece.first - self.first;
        for (index, (&min, &max)) in piece.min.iter().zip(&piece.max).enumerate() {
            self.min[at + index] = lesser(self.min[at + index], min);
            self.max[at + index] = greater(self.max[at + index], max);
        }
        self.finite &= piece.finite;
    }
}

#[inline(always)]
fn lesser(a: f32, b: f32) -> f32 {
    if b < a { b } else { a }
}

#[inline(always)]
fn greater(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// The least and the greatest value, and whether all are finite: a finite sum of `x − x` is 0.
#[expect(clippy::eq_op, reason = "x − x is NaN where x is not finite")]
pub(crate) fn extent(values: &[f32]) -> (f32, f32, bool) {
    const LANES: usize = 32;
    let (mut min, mut max) = ([f32::INFINITY; LANES], [f32::NEG_INFINITY; LANES]);
    let mut nothing = [0.0_f32; LANES];
    let mut lanes = values.chunks_exact(LANES);
    for chunk in &mut lanes {
        for lane in 0..LANES {
            min[lane] = lesser(min[lane], chunk[lane]);
            max[lane] = greater(max[lane], chunk[lane]);
            nothing[lane] += chunk[lane] - chunk[lane];
        }
    }
    for (lane, &value) in lanes.remainder().iter().enumerate() {
        min[lane] = lesser(min[lane], value);
        max[lane] = greater(max[lane], value);
        nothing[lane] += value - value;
    }
    (
        min.into_iter().fold(f32::INFINITY, lesser),
        max.into_iter().fold(f32::NEG_INFINITY, greater),
        nothing.into_iter().all(|zero| zero == 0.0),
    )
}
