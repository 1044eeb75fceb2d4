//! Calibrating a tensor that is at hand, such as weights.

use std::borrow::Cow;

use ndarray::{ArrayRef, ArrayViewD, Dimension, IxDyn};

use super::Calibrator;
use crate::{
    affine::{Range, Ranges, extent},
    error::{Error, Result},
    groups::Groups,
    observe::Statistics,
    parallel::{PIECE, map_pieces},
    scheme::{Granularity, Scheme},
};

/// The range of each group of a tensor of any layout, chosen from its elements themselves.
///
/// `importance` is an array in the shape of the tensor, or of one value for each column (its last
/// axis); calibrators that weigh errors heed it. A group of no elements gets `[0, 0]`.
///
/// # Errors
/// [`Error::NonFinite`] with the position of the first NaN or infinity; [`Error::ShapeMismatch`] for
/// an importance of another shape; [`Error::NoSuchAxis`] if the scheme needs axes the tensor does
/// not have; those of the calibrator.
///
/// ```
/// use lowbit::{Scheme, calibrate::{MeanSquaredError, ranges_of}};
/// use ndarray::{Array2, array};
///
/// let weights = Array2::from_shape_fn((4, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin());
/// let scheme = Scheme::int(3).per_group(32).build()?;
/// let ranges = ranges_of(&MeanSquaredError::default(), &weights, &scheme, None)?;
/// assert_eq!(ranges.shape(), [4, 2]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn ranges_of<D: Dimension>(
    calibrator: &dyn Calibrator,
    x: &ArrayRef<f32, D>,
    scheme: &Scheme,
    importance: Option<ArrayViewD<'_, f32>>,
) -> Result<Ranges> {
    let groups = Groups::new(x.shape(), scheme.granularity())?;
    let ranges = map_groups(x, &groups, importance, |values, importance| {
        if values.is_empty() {
            return Range::new(0.0, 0.0);
        }
        let mut statistics = Statistics::of_values(values)?;
        if let Some(importance) = importance {
            statistics = statistics.with_importance(importance)?;
        }
        calibrator.range(&statistics, scheme)
    })?;
    Ranges::new(&groups.parameter_shape(), ranges)
}

/// What `work(values, importance)` returns for each group of a tensor of any layout, in the order of
/// the parameters; a group of no elements is shown to it too.
///
/// # Errors
/// As [`ranges_of`]; those of `work`.
pub(crate) fn map_groups<D: Dimension, R: Send>(
    x: &ArrayRef<f32, D>,
    groups: &Groups,
    importance: Option<ArrayViewD<'_, f32>>,
    work: impl Fn(&[f32], Option<&[f32]>) -> Result<R> + Send + Sync,
) -> Result<Vec<R>> {
    let values = grouped(x.view().into_dyn(), groups);
    check_finite(x, &values, groups)?;
    let importance = match &importance {
        None => None,
        Some(importance) => Some(grouped(spread(importance, x.shape())?, groups)),
    };
    // Where the elements of each group begin, and where the last ones end.
    let mut starts = vec![0; groups.parameters() + 1];
    for parameter in 0..groups.parameters() {
        starts[parameter + 1] = starts[parameter] + groups.elements_of(parameter);
    }
    let group_size = (groups.len() / groups.parameters().max(1)).max(1);
    let pieces = map_pieces(
        groups.parameters(),
        (PIECE / group_size).max(1),
        |parameters| {
            parameters
                .map(|parameter| {
                    let elements = starts[parameter]..starts[parameter + 1];
                    let importance = importance.as_ref().map(|all| &all[elements.clone()]);
                    work(&values[elements], importance)
                })
                .collect::<Result<Vec<_>>>()
        },
    );
    let results: Vec<Vec<R>> = pieces.into_iter().collect::<Result<_>>()?;
    Ok(results.into_iter().flatten().collect())
}

fn check_finite<D: Dimension>(
    x: &ArrayRef<f32, D>,
    grouped: &[f32],
    groups: &Groups,
) -> Result<()> {
    if let (.., true) = extent(grouped) {
        return Ok(());
    }
    match x.iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((element, &value)) => Err(Error::NonFinite {
            what: "tensor to calibrate",
            expected: "finite numbers",
            position: groups.position(element),
            value: value.into(),
        }),
    }
}

/// The importance of each element of a tensor.
fn spread<'a>(importance: &'a ArrayViewD<'_, f32>, shape: &[usize]) -> Result<ArrayViewD<'a, f32>> {
    let columns = shape.last().copied().into_iter().collect::<Vec<_>>();
    let fits = importance.shape() == shape || importance.shape() == columns;
    match importance.broadcast(IxDyn(shape)) {
        Some(view) if fits => Ok(view),
        _ => Err(Error::ShapeMismatch {
            what: "importance",
            expected: shape.to_vec(),
            got: importance.shape().to_vec(),
        }),
    }
}

/// The elements in the order of the groups they belong to; those of a group in row-major order.
fn grouped<'a>(x: ArrayViewD<'a, f32>, groups: &Groups) -> Cow<'a, [f32]> {
    let in_order = match groups.granularity() {
        Granularity::PerTensor | Granularity::PerRow | Granularity::PerGroup(_) => true,
        Granularity::PerAxis(axis) => groups.shape()[..axis].iter().all(|&extent| extent == 1),
        _ => false,
    };
    if in_order {
        return match x.to_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => Cow::Owned(x.iter().copied().collect()),
        };
    }
    let standard = x.as_standard_layout();
    let values = standard.as_slice().unwrap_or_default();
    let mut next = Vec::with_capacity(groups.parameters());
    let mut start = 0;
    for parameter in 0..groups.parameters() {
        next.push(start);
        start += groups.elements_of(parameter);
    }
    let mut sorted = vec![0.0; values.len()];
    for run in groups.runs(0..values.len()) {
        let run_values = &values[run.start..run.start + run.len];
        if run.each {
            for (next, &value) in next[run.parameter..].iter_mut().zip(run_values) {
                sorted[*next] = value;
                *next += 1;
            }
        } else {
            let next = &mut next[run.parameter];
            sorted[*next..*next + run.len].copy_from_slice(run_values);
            *next += run.len;
        }
    }
    Cow::Owned(sorted)
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, ArrayD, array};

    use super::*;
    use crate::calibrate::{FullRange, MeanSquaredError};

    #[test]
    fn the_full_range_is_that_of_the_groups_for_every_granularity_and_layout() {
        let x = ArrayD::from_shape_fn(vec![3, 4, 5], |at| {
            ((at[0] * 31 + at[1] * 17 + at[2] * 7) % 23) as f32 - 9.0
        });
        for x in [
            x.view(),
            x.t(),
            x.slice(ndarray::s![..;-1, 1.., ..;2]).into_dyn(),
        ] {
            for granularity in [
                Granularity::PerTensor,
                Granularity::PerAxis(0),
                Granularity::PerAxis(1),
                Granularity::PerAxis(2),
                Granularity::PerRow,
                Granularity::PerGroup(2),
                Granularity::PerGroupAlong { axis: 0, size: 2 },
                Granularity::PerBlock {
                    rows: 2,
                    columns: 3,
                },
            ] {
                let scheme = Scheme::int(8).granularity(granularity).build().unwrap();
                let chosen = ranges_of(&FullRange, &x, &scheme, None).unwrap();
                assert_eq!(chosen, Ranges::of(&x, granularity).unwrap());
            }
        }
    }

    #[test]
    fn importance_of_columns_is_that_of_every_row() {
        let x = Array2::from_shape_fn((4, 12), |(i, j)| ((i * 12 + j) as f32).sin());
        let columns = ndarray::Array1::from_shape_fn(12, |j| (j % 3) as f32);
        let all = columns.broadcast((4, 12)).unwrap().to_owned().into_dyn();
        let scheme = Scheme::int(2).per_axis(1).build().unwrap();
        let calibrator = MeanSquaredError::default();
        let of =
            |importance: ArrayViewD<'_, f32>| ranges_of(&calibrator, &x, &scheme, Some(importance));
        let columns = columns.into_dyn();
        assert_eq!(of(columns.view()).unwrap(), of(all.view()).unwrap());
        let wrong = array![1.0_f32, 2.0].into_dyn();
        assert!(matches!(of(wrong.view()), Err(Error::ShapeMismatch { .. })));
        let negative = ArrayD::from_elem(vec![12], -1.0);
        assert!(of(negative.view()).is_err());
    }

    #[test]
    fn a_nan_is_named_by_its_position_and_empty_groups_have_a_range() {
        let scheme = Scheme::int(8).per_axis(0).build().unwrap();
        let x = array![[0.0_f32, 1.0], [2.0, f32::NAN]];
        let error = ranges_of(&FullRange, &x, &scheme, None).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position, .. } if position == [1, 1]));
        let empty = Array2::<f32>::zeros((3, 0));
        let ranges = ranges_of(&FullRange, &empty, &scheme, None).unwrap();
        assert_eq!(ranges.as_slice(), [Range::new(0.0, 0.0).unwrap(); 3]);
    }
}
