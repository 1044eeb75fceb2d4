//! Granularity × shape → which parameter an element uses: the only index arithmetic of the crate.
//!
//! Every granularity is a grid of blocks over a tensor seen as three axes, `outer × middle ×
//! inner`, in row-major order; so one small value answers for all of them without allocating.

mod spans;

use std::ops::Range;

use ndarray::{Dimension, IxDyn};

use crate::{
    error::{Error, Result},
    scheme::Granularity,
};
pub(crate) use spans::{Span, Spans};

/// Parameters at most where there is no element: memory bounds those of a tensor that has some,
/// but nothing those of `[2^40, 0]`, and observers keep a state for each.
const PARAMETERS_OF_NOTHING: usize = 1 << 20;

/// The groups of elements of one tensor that share a scale and a zero point.
///
/// Elements and parameters are both counted in row-major order. Observers, calibrators and
/// quantizers of other crates use this to treat every granularity alike.
///
/// ```
/// use lowbit::{Granularity, Groups};
///
/// // rows of 5 in groups of 2: the last group of a row has one element
/// let groups = Groups::new(&[3, 5], Granularity::PerGroup(2))?;
/// assert_eq!(groups.parameter_shape(), [3, 3]);
/// assert_eq!(groups.parameter_of(5), 3); // element [1, 0]
/// assert_eq!(groups.elements_of(5), 1);
///
/// // the same, as runs of consecutive elements that share a parameter
/// let lengths: Vec<usize> = groups.runs(0..groups.len()).map(|run| run.len).collect();
/// assert_eq!(lengths, [2, 2, 1, 2, 2, 1, 2, 2, 1]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Groups {
    granularity: Granularity,
    /// Shape of the tensor; held inline up to four axes.
    shape: IxDyn,
    /// Extent of outer, middle and inner.
    extent: [usize; 3],
    /// Extent of a block along each; at least 1.
    block: [usize; 3],
    /// Blocks along each.
    blocks: [usize; 3],
}

/// Consecutive elements and the parameters they use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Run {
    /// The first element.
    pub start: usize,
    /// How many elements; at least 1.
    pub len: usize,
    /// The parameter of the first element.
    pub parameter: usize,
    /// Whether each element has a parameter of its own (`parameter`, `parameter + 1`, …); otherwise
    /// all use `parameter`.
    pub each: bool,
}

impl Groups {
    /// The groups of a tensor of the given shape.
    ///
    /// # Errors
    /// [`Error::NoSuchAxis`] if the granularity names an axis the shape does not have (groups and
    /// rows need one axis, blocks two); [`Error::InvalidOption`] for groups of size 0;
    /// [`Error::TooLarge`] for a shape no memory can hold, and for more than 2^20 parameters of a
    /// tensor of no elements.
    pub fn new(shape: &[usize], granularity: Granularity) -> Result<Self> {
        granularity.validate()?;
        element_count("tensor", shape)?;
        let needs = |axis: usize| {
            if axis < shape.len() {
                Ok(axis)
            } else {
                Err(Error::NoSuchAxis {
                    axis,
                    dimensions: shape.len(),
                })
            }
        };
        let around = |axis: usize| {
            [
                shape[..axis].iter().product(),
                shape[axis],
                shape[axis + 1..].iter().product(),
            ]
        };
        let (extent, block) = match granularity {
            Granularity::PerTensor => {
                let len = shape.iter().product();
                ([1, 1, len], [1, 1, len])
            }
            Granularity::PerAxis(axis) => {
                let extent = around(needs(axis)?);
                (extent, [extent[0], 1, extent[2]])
            }
            Granularity::PerGroup(size) => {
                let [rows, columns, _] = around(needs(shape.len().saturating_sub(1))?);
                ([1, rows, columns], [1, 1, size])
            }
            Granularity::PerGroupAlong { axis, size } => (around(needs(axis)?), [1, size, 1]),
            Granularity::PerBlock { rows, columns } => {
                let axis = needs(shape.len().checked_sub(2).unwrap_or(1))?;
                (around(axis), [1, rows, columns])
            }
            Granularity::PerRow => {
                let [rows, columns, _] = around(needs(shape.len().saturating_sub(1))?);
                ([1, rows, columns], [1, 1, columns])
            }
        };
        let mut groups = Self {
            granularity,
            shape: IxDyn(shape),
            extent,
            block: block.map(|size| size.max(1)),
            blocks: [0; 3],
        };
        groups.blocks = std::array::from_fn(|axis| extent[axis].div_ceil(groups.block[axis]));
        // One parameter for a tensor, an index or a row even where it has no element.
        match granularity {
            Granularity::PerTensor => groups.blocks = [1; 3],
            Granularity::PerAxis(_) => groups.blocks = [1, extent[1], 1],
            Granularity::PerRow => groups.blocks = [1, extent[1], 1],
            _ => {}
        }
        if groups.is_empty() && groups.parameters() > PARAMETERS_OF_NOTHING {
            return Err(Error::TooLarge {
                what: "parameters of a tensor of no elements",
                got: groups.parameters().to_string(),
            });
        }
        Ok(groups)
    }

    /// The granularity these groups were made for.
    #[must_use]
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// Elements of the tensor.
    #[must_use]
    pub fn len(&self) -> usize {
        self.extent.iter().product()
    }

    /// Whether the tensor has no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many parameters the tensor has.
    #[must_use]
    pub fn parameters(&self) -> usize {
        self.blocks.iter().product()
    }

    /// The shape of the tensor.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        self.shape.slice()
    }

    /// The shape of the parameters, as the table of [`Granularity`] gives it.
    #[must_use]
    pub fn parameter_shape(&self) -> Vec<usize> {
        (0..self.parameter_axes())
            .map(|axis| self.parameter_extent(axis))
            .collect()
    }

    /// Whether parameters of this shape are the ones these groups use; allocates nothing.
    pub(crate) fn has_parameter_shape(&self, parameters: &[usize]) -> bool {
        parameters.len() == self.parameter_axes()
            && (0..parameters.len()).all(|axis| parameters[axis] == self.parameter_extent(axis))
    }

    fn parameter_axes(&self) -> usize {
        let axes = self.shape().len();
        match self.granularity {
            Granularity::PerTensor => 0,
            Granularity::PerAxis(_) => 1,
            Granularity::PerRow => axes - 1,
            _ => axes,
        }
    }

    fn parameter_extent(&self, axis: usize) -> usize {
        let shape = self.shape();
        let last = shape.len() - 1;
        match self.granularity {
            Granularity::PerAxis(_) => self.extent[1],
            Granularity::PerGroup(_) if axis == last => self.blocks[2],
            Granularity::PerGroupAlong { axis: cut, .. } if axis == cut => self.blocks[1],
            Granularity::PerBlock { .. } if axis + 1 == last => self.blocks[1],
            Granularity::PerBlock { .. } if axis == last => self.blocks[2],
            _ => shape[axis],
        }
    }

    /// The parameter that an element uses.
    #[must_use]
    pub fn parameter_of(&self, element: usize) -> usize {
        let [outer, middle, inner] = self.coordinates(element);
        ((outer / self.block[0]) * self.blocks[1] + middle / self.block[1]) * self.blocks[2]
            + inner / self.block[2]
    }

    /// How many elements share a parameter: less than the group size in a shorter tail group, 0 for
    /// a parameter that is not there.
    #[must_use]
    pub fn elements_of(&self, parameter: usize) -> usize {
        let at = [
            parameter / (self.blocks[1] * self.blocks[2]).max(1),
            parameter / self.blocks[2].max(1) % self.blocks[1].max(1),
            parameter % self.blocks[2].max(1),
        ];
        (0..3)
            .map(|axis| {
                let start = at[axis].saturating_mul(self.block[axis]);
                self.block[axis].min(self.extent[axis].saturating_sub(start))
            })
            .product()
    }

    /// [`elements_of`](Self::elements_of) each parameter, in order.
    pub(crate) fn sizes(&self) -> impl Iterator<Item = usize> {
        let Self {
            extent,
            block,
            blocks,
            ..
        } = *self;
        let side = move |axis: usize| {
            (0..blocks[axis]).map(move |at| {
                let start = at * block[axis];
                block[axis].min(extent[axis].saturating_sub(start))
            })
        };
        side(0).flat_map(move |outer| {
            side(1).flat_map(move |middle| side(2).map(move |inner| outer * middle * inner))
        })
    }

    /// The runs of consecutive elements that make up `elements`, in order.
    ///
    /// `elements` may start and end anywhere, so that threads can share the work.
    #[must_use]
    pub fn runs(&self, elements: Range<usize>) -> Runs {
        Runs(self.spans(elements))
    }

    /// The index of an element, an entry for each axis.
    #[must_use]
    pub fn position(&self, element: usize) -> Vec<usize> {
        let mut rest = element;
        let mut position = self.shape().to_vec();
        for entry in position.iter_mut().rev() {
            let extent = (*entry).max(1);
            *entry = rest % extent;
            rest /= extent;
        }
        position
    }

    fn coordinates(&self, element: usize) -> [usize; 3] {
        let inner = self.extent[2].max(1);
        let middle = self.extent[1].max(1);
        [
            element / inner / middle,
            element / inner % middle,
            element % inner,
        ]
    }
}

/// The elements of a shape, where they can be counted: as for every array, the product of the axes
/// that are not 0 must fit.
pub(crate) fn element_count(what: &'static str, shape: &[usize]) -> Result<usize> {
    let limit = isize::MAX.unsigned_abs();
    shape
        .iter()
        .try_fold(1_usize, |product, &extent| {
            product.checked_mul(extent.max(1))
        })
        .filter(|&product| product <= limit)
        .map(|product| if shape.contains(&0) { 0 } else { product })
        .ok_or_else(|| Error::TooLarge {
            what,
            got: format!("{shape:?}"),
        })
}

/// Iterator over [`Groups::runs`].
#[derive(Debug, Clone)]
pub struct Runs(Spans);

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        let span = self.0.next_group()?;
        Some(Run {
            start: span.start,
            len: span.len,
            parameter: span.parameter,
            each: span.share == 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, from the table of `Granularity`, index by index.
    fn parameter_by_definition(shape: &[usize], granularity: Granularity, at: &[usize]) -> usize {
        let last = shape.len().saturating_sub(1);
        let (index, extent): (Vec<usize>, Vec<usize>) = match granularity {
            Granularity::PerTensor => (vec![], vec![]),
            Granularity::PerAxis(axis) => (vec![at[axis]], vec![shape[axis]]),
            Granularity::PerRow => (at[..last].to_vec(), shape[..last].to_vec()),
            other => {
                let mut block = vec![1; shape.len()];
                match other {
                    Granularity::PerGroup(size) => block[last] = size,
                    Granularity::PerGroupAlong { axis, size } => block[axis] = size,
                    Granularity::PerBlock { rows, columns } => {
                        block[last - 1] = rows;
                        block[last] = columns;
                    }
                    _ => unreachable!(),
                }
                (0..shape.len())
                    .map(|axis| (at[axis] / block[axis], shape[axis].div_ceil(block[axis])))
                    .unzip()
            }
        };
        index
            .iter()
            .zip(&extent)
            .fold(0, |flat, (i, n)| flat * n + i)
    }

    fn granularities(shape: &[usize]) -> Vec<Granularity> {
        let mut all = vec![Granularity::PerTensor];
        for axis in 0..shape.len() {
            all.push(Granularity::PerAxis(axis));
            for size in [1, 2, 3, 100] {
                all.push(Granularity::PerGroupAlong { axis, size });
            }
        }
        if !shape.is_empty() {
            all.push(Granularity::PerRow);
            all.extend([1, 2, 3, 4, 100].map(Granularity::PerGroup));
        }
        if shape.len() > 1 {
            for (rows, columns) in [(1, 1), (1, 3), (2, 1), (2, 2), (3, 2), (100, 2), (2, 100)] {
                all.push(Granularity::PerBlock { rows, columns });
            }
        }
        all
    }

    #[test]
    fn every_granularity_agrees_with_its_definition() {
        let shapes: [&[usize]; 12] = [
            &[],
            &[1],
            &[7],
            &[0],
            &[3, 5],
            &[1, 6],
            &[6, 1],
            &[0, 4],
            &[4, 0],
            &[2, 3, 4],
            &[2, 1, 3],
            &[2, 3, 2, 5],
        ];
        for shape in shapes {
            for granularity in granularities(shape) {
                let groups = Groups::new(shape, granularity).unwrap();
                let len: usize = shape.iter().product();
                assert_eq!(groups.len(), len);
                assert_eq!(
                    groups.parameters(),
                    groups.parameter_shape().iter().product::<usize>(),
                    "{shape:?} {granularity:?}"
                );
                let mut counts = vec![0; groups.parameters()];
                for element in 0..len {
                    let at = groups.position(element);
                    let expected = parameter_by_definition(shape, granularity, &at);
                    assert_eq!(groups.parameter_of(element), expected);
                    counts[expected] += 1;
                }
                assert_eq!(groups.sizes().collect::<Vec<_>>(), counts);
                let in_order = (0..len).map(|element| groups.parameter_of(element));
                assert!(groups.parameters_of_elements().eq(in_order));
                for (parameter, &count) in counts.iter().enumerate() {
                    assert_eq!(
                        groups.elements_of(parameter),
                        count,
                        "{shape:?} {granularity:?}"
                    );
                }
                for start in 0..=len {
                    let mut spans = groups.spans(start..len);
                    let mut next = start;
                    for limit in [usize::MAX, 1, 2, 7].into_iter().cycle() {
                        let Some(span) = spans.next_within(limit) else {
                            break;
                        };
                        assert_eq!(span.start, next);
                        assert!((1..=limit).contains(&span.len) && span.skip < span.share);
                        for at in 0..span.len {
                            let parameter = span.parameter + (span.skip + at) / span.share;
                            assert_eq!(groups.parameter_of(next + at), parameter);
                        }
                        let last = groups.parameter_of(next + span.len - 1);
                        assert_eq!(span.parameter + span.parameters() - 1, last);
                        next += span.len;
                    }
                    assert_eq!(next, len);
                    let mut next = start;
                    for run in groups.runs(start..len) {
                        assert_eq!(run.start, next);
                        assert!(run.len > 0);
                        for offset in 0..run.len {
                            let parameter = run.parameter + if run.each { offset } else { 0 };
                            assert_eq!(groups.parameter_of(run.start + offset), parameter);
                        }
                        next += run.len;
                    }
                    assert_eq!(next, len);
                }
            }
        }
    }

    #[test]
    fn by_turns_every_element_comes_once() {
        let shapes: [&[usize]; 7] = [
            &[9, 32],
            &[4, 1_040],
            &[11, 16],
            &[2, 5, 48],
            &[100],
            &[5, 0],
            &[9, 33],
        ];
        for (shape, limit) in shapes.into_iter().flat_map(|s| [(s, 512), (s, 7)]) {
            for granularity in granularities(shape) {
                let groups = Groups::new(shape, granularity).unwrap();
                for start in [0, 1, 16].map(|start| groups.len().min(start)) {
                    let mut spans = groups.tiles(start..groups.len());
                    let mut taken = vec![0; groups.len()];
                    while let Some(span) = spans.next_by_turns(limit) {
                        assert!((1..=limit).contains(&span.len));
                        for at in 0..span.len {
                            let parameter = span.parameter + (span.skip + at) / span.share;
                            assert_eq!(groups.parameter_of(span.start + at), parameter);
                            taken[span.start + at] += 1;
                        }
                    }
                    let (before, after) = taken.split_at(start);
                    assert!(before.iter().all(|&times| times == 0));
                    assert!(after.iter().all(|&times| times == 1));
                }
            }
        }
    }

    #[test]
    fn an_axis_that_is_not_there_is_an_error() {
        for (shape, granularity) in [
            (&[][..], Granularity::PerAxis(0)),
            (&[], Granularity::PerRow),
            (&[], Granularity::PerGroup(2)),
            (&[3], Granularity::PerAxis(1)),
            (
                &[3],
                Granularity::PerBlock {
                    rows: 1,
                    columns: 1,
                },
            ),
            (&[3, 4], Granularity::PerGroupAlong { axis: 2, size: 1 }),
        ] {
            assert!(matches!(
                Groups::new(shape, granularity),
                Err(Error::NoSuchAxis { .. })
            ));
        }
    }
}
