//! Clipping ranges: what a calibrator chooses and parameters are made from.

use ndarray::{ArrayRef, Dimension};

use super::steps::STEP;
use crate::{
    element::BLOCK,
    error::{Error, Result},
    groups::{Groups, Spans, element_count},
    parallel::{PIECE, map_pieces},
    scheme::Granularity,
    simd::{Ahead, Loops, extremes, wide, widen},
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
        let pieces = map_pieces(x.len(), groups.piece(), |elements| {
            Extents::of(x, &groups, elements)
        });
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
        let parameters = groups.parameters_of(elements.clone());
        let mut extents = Self::empty(parameters.start, parameters.len());
        wide(Search {
            x,
            spans: groups.tiles(elements),
            extents: &mut extents,
        });
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

/// Widens extents by the elements of some spans.
struct Search<'a> {
    x: &'a [f32],
    spans: Spans,
    extents: &'a mut Extents,
}

impl Loops for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let Extents {
            first,
            min,
            max,
            finite,
        } = self.extents;
        while let Some(span) = self.spans.next_by_turns(BLOCK) {
            let x = &self.x[span.start..span.start + span.len];
            let at = span.parameter - *first;
            if span.share == 1 {
                let (min, max) = (&mut min[at..][..span.len], &mut max[at..][..span.len]);
                *finite &= widen_each(min, max, x);
            } else {
                let parameters = min[at..].iter_mut().zip(&mut max[at..]);
                for (group, (min, max)) in span.groups().zip(parameters) {
                    let x = &x[group];
                    let (least, greatest, all_finite) =
                        extremes(x, Ahead::of(x, 1), lesser, greater);
                    *min = lesser(*min, least);
                    *max = greater(*max, greatest);
                    *finite &= all_finite;
                }
            }
        }
    }
}

/// Widens the extremes of each parameter by a value, which is asked for ahead; whether all values
/// are finite.
#[inline(always)]
fn widen_each(min: &mut [f32], max: &mut [f32], x: &[f32]) -> bool {
    let ahead = Ahead::of(x, 4);
    let mut wrong = [0.0; STEP];
    let (steps, rest) = x.as_chunks::<STEP>();
    let (min_steps, min_rest) = min.as_chunks_mut::<STEP>();
    let (max_steps, max_rest) = max.as_chunks_mut::<STEP>();
    for (index, (min, max)) in min_steps.iter_mut().zip(max_steps).enumerate() {
        ahead.ask::<STEP>(index * STEP);
        widen(min, max, &mut wrong, &steps[index], lesser, greater);
    }
    let mut finite = wrong.iter().all(|&wrong| wrong == 0.0);
    for (&x, (min, max)) in rest.iter().zip(min_rest.iter_mut().zip(max_rest)) {
        *min = lesser(*min, x);
        *max = greater(*max, x);
        finite &= x.is_finite();
    }
    finite
}

/// The least and the greatest of some values, and whether all were finite.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    min: f32,
    max: f32,
    finite: bool,
}

impl Extent {
    /// That of no values.
    pub(crate) const EMPTY: Self = Self {
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
        finite: true,
    };

    /// With some more values, which lie in the nearest cache, or are asked for ahead.
    #[inline(always)]
    pub(crate) fn widen<A: Copy>(&mut self, x: &[f32], ahead: Ahead<'_, A>) {
        let (min, max, finite) = extremes(x, ahead, lesser, greater);
        self.include(Self { min, max, finite });
    }

    #[inline(always)]
    fn include(&mut self, other: Self) {
        self.min = lesser(self.min, other.min);
        self.max = greater(self.max, other.max);
        self.finite &= other.finite;
    }

    #[inline(always)]
    pub(crate) fn is_finite(&self) -> bool {
        self.finite
    }

    /// As a range, if all values are finite; `[0, 0]` for no values.
    #[inline(always)]
    pub(crate) fn range(&self) -> Range {
        let (min, max) = (self.min, self.max);
        if min <= max {
            Range { min, max }
        } else {
            Range { min: 0.0, max: 0.0 }
        }
    }
}

/// The least and the greatest value, and whether all are finite; infinity and minus infinity for no
/// values.
pub(crate) fn extent(values: &[f32]) -> (f32, f32, bool) {
    struct Whole<'a>(&'a [f32]);

    impl Loops for Whole<'_> {
        type Output = Extent;

        #[inline(always)]
        fn run(self) -> Extent {
            let mut extent = Extent::EMPTY;
            for x in self.0.chunks(BLOCK) {
                extent.widen(x, Ahead::of(x, 1));
            }
            extent
        }
    }

    const PART: usize = 8 * PIECE;
    let whole = if values.len() <= PART {
        wide(Whole(values))
    } else {
        // Parts by size alone, and in their order, so that it stays the same which of two zeros is
        // least.
        let parts = map_pieces(values.len(), PART, |part| wide(Whole(&values[part])));
        let mut whole = Extent::EMPTY;
        for part in parts {
            whole.include(part);
        }
        whole
    };
    (whole.min, whole.max, whole.is_finite())
}
