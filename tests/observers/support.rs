//! Every observer, batches, and what they hold counted one by one.

use lowbit::{
    Granularity, Groups, Observer, Range,
    observe::{
        Fixed, HistogramObserver, Importance, MeanDeviation, MinMax, MovingAverageMinMax,
        Statistics,
    },
};
use ndarray::{ArrayD, IxDyn};
use proptest::prelude::*;

pub(super) const SHAPE: [usize; 3] = [3, 4, 5];

/// Granularities of batches of three axes.
pub(super) const GRANULARITIES: [Granularity; 9] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerAxis(2),
    Granularity::PerRow,
    Granularity::PerGroup(2),
    Granularity::PerGroupAlong { axis: 0, size: 2 },
    Granularity::PerGroupAlong { axis: 1, size: 3 },
    Granularity::PerBlock {
        rows: 3,
        columns: 2,
    },
];

/// One of each kind.
pub(super) fn observers(granularity: Granularity) -> Vec<Box<dyn Observer>> {
    let range = Range::new(-1.0, 2.0).unwrap();
    vec![
        Box::new(MinMax::new(granularity)),
        Box::new(HistogramObserver::new(granularity)),
        Box::new(HistogramObserver::new(granularity).with_bins(7).unwrap()),
        Box::new(Fixed::new(range, granularity)),
        Box::new(MeanDeviation::new(granularity)),
        Box::new(Importance::new(granularity)),
        Box::new(MovingAverageMinMax::new(granularity)),
    ]
}

/// Whether neither the order nor the split of batches changes what an observer holds, to the bit.
pub(super) fn is_exact(observer: &dyn Observer) -> bool {
    let name = format!("{observer:?}");
    ["MinMax", "HistogramObserver", "Fixed"]
        .iter()
        .any(|exact| name.starts_with(exact))
}

/// Whether they change the last bits alone.
pub(super) fn is_a_sum(observer: &dyn Observer) -> bool {
    let name = format!("{observer:?}");
    name.starts_with("MeanDeviation") || name.starts_with("Importance")
}

/// All that an observer holds, for what derives `Debug` hides nothing; but the sign of a zero, which
/// is the least and the greatest element in turn.
pub(super) fn state(observer: &dyn Observer) -> String {
    format!("{observer:?}")
        .replace("-0.0,", "0.0,")
        .replace("-0.0 ", "0.0 ")
}

/// Ordinary numbers, and those at the ends of the finite floats.
pub(super) fn numbers() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![
        6 => -3.0_f32..3.0,
        2 => -1e3_f32..1e3,
        1 => prop::sample::select(vec![0.0, -0.0, 1e-45, -1e-40, 1e30, f32::MAX, f32::MIN]),
        1 => prop::num::f32::NORMAL,
    ]
}

pub(super) fn batches() -> impl Strategy<Value = Vec<ArrayD<f32>>> {
    let len = SHAPE.iter().product::<usize>();
    let batch = prop::collection::vec(numbers(), len)
        .prop_map(|values| ArrayD::from_shape_vec(IxDyn(&SHAPE), values).unwrap());
    prop::collection::vec(batch, 1..5)
}

pub(super) fn granularities() -> impl Strategy<Value = Granularity> {
    prop::sample::select(GRANULARITIES.to_vec())
}

/// The elements of each parameter.
pub(super) fn by_parameter(batches: &[ArrayD<f32>], granularity: Granularity) -> Vec<Vec<f32>> {
    let mut values = vec![];
    for batch in batches {
        let groups = Groups::new(batch.shape(), granularity).unwrap();
        values.resize(groups.parameters(), vec![]);
        for (element, &x) in batch.iter().enumerate() {
            values[groups.parameter_of(element)].push(x);
        }
    }
    values
}

/// Whether two statistics are the same but for the last bits of their moments.
pub(super) fn close(a: &Statistics<'_>, b: &Statistics<'_>) -> bool {
    let moments = match (a.moments(), b.moments()) {
        (Ok(a), Ok(b)) => {
            // A sum of squares about the mean is as exact as the squares are large.
            let spread = a.variance.abs() + a.mean * a.mean;
            (a.mean - b.mean).abs() <= 1e-9 * spread.sqrt()
                && (a.variance - b.variance).abs() <= 1e-9 * spread
        }
        (Err(_), Err(_)) => true,
        _ => false,
    };
    moments && a.count() == b.count() && a.range() == b.range()
}
