//! What every observer promises, for every granularity.

use lowbit::{Observer, ObserverExt, observe::Importance};
use ndarray::{Axis, Slice, concatenate};
use proptest::prelude::*;

use super::support::{
    batches, by_parameter, close, granularities, is_a_sum, is_exact, observers, state,
};

/// Whether two observers hold the same, to the bits that their kind promises.
fn same(a: &dyn Observer, b: &dyn Observer) -> bool {
    if !is_a_sum(a) {
        return state(a) == state(b);
    }
    let parameters = a
        .parameter_shape()
        .map_or(0, |shape| shape.iter().product());
    a.parameter_shape() == b.parameter_shape()
        && (0..parameters).all(|parameter| {
            let (a, b) = (a.statistics(parameter), b.statistics(parameter));
            close(&a.unwrap(), &b.unwrap())
        })
        && importance_is_close(a, b)
}

fn importance_is_close(a: &dyn Observer, b: &dyn Observer) -> bool {
    let as_importance = |observer: &dyn Observer| {
        let any: &dyn std::any::Any = observer;
        let importance = any.downcast_ref::<Importance>()?;
        Some(importance.importance().unwrap())
    };
    match (as_importance(a), as_importance(b)) {
        (Some(a), Some(b)) => a
            .iter()
            .zip(&b)
            .all(|(a, b)| a == b || (a - b).abs() <= 1e-6 * a),
        (None, None) => true,
        _ => false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn count_and_range_are_those_of_the_elements_of_each_group(
        batches in batches(), granularity in granularities(),
    ) {
        let values = by_parameter(&batches, granularity);
        for mut observer in observers(granularity) {
            if state(&*observer).starts_with("MovingAverage") {
                continue;
            }
            let fixed = state(&*observer).starts_with("Fixed");
            prop_assert!(observer.parameter_shape().is_none());
            prop_assert!(observer.statistics(0).is_err());
            for batch in &batches {
                observer.observe(batch).unwrap();
            }
            prop_assert_eq!(observer.granularity(), granularity);
            let shape = observer.parameter_shape().unwrap();
            prop_assert_eq!(shape.iter().product::<usize>(), values.len());
            for (parameter, values) in values.iter().enumerate() {
                let statistics = observer.statistics(parameter).unwrap();
                prop_assert_eq!(statistics.count(), values.len() as u64);
                if !fixed {
                    let min = values.iter().copied().fold(f32::INFINITY, f32::min);
                    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    prop_assert_eq!(statistics.range().min(), min);
                    prop_assert_eq!(statistics.range().max(), max);
                }
            }
            prop_assert!(observer.statistics(values.len()).is_err());
        }
    }

    #[test]
    fn the_order_of_batches_does_not_matter_where_that_is_promised(
        batches in batches(), granularity in granularities(),
    ) {
        for (mut forwards, mut backwards) in
            observers(granularity).into_iter().zip(observers(granularity))
        {
            for (first, last) in batches.iter().zip(batches.iter().rev()) {
                forwards.observe(first).unwrap();
                backwards.observe(last).unwrap();
            }
            if is_exact(&*forwards) || is_a_sum(&*forwards) {
                prop_assert!(same(&*forwards, &*backwards), "{forwards:?} {backwards:?}");
            }
        }
    }

    #[test]
    fn the_split_of_batches_does_not_matter_where_that_is_promised(
        batches in batches(), granularity in granularities(), axis in 0..3_usize,
    ) {
        use lowbit::Granularity::{PerAxis, PerTensor};
        // Those that do not count the axis along which batches are cut.
        let counts = |axis| match granularity {
            PerTensor => false,
            PerAxis(counted) => counted == axis,
            _ => true,
        };
        prop_assume!(!counts(axis));
        let views: Vec<_> = batches.iter().map(|batch| batch.view()).collect();
        let all = concatenate(Axis(axis), &views).unwrap();
        for (mut whole, mut split) in
            observers(granularity).into_iter().zip(observers(granularity))
        {
            whole.observe(&all).unwrap();
            for at in 0..all.len_of(Axis(axis)) {
                split.observe(&all.slice_axis(Axis(axis), Slice::from(at..=at))).unwrap();
            }
            if is_exact(&*whole) || is_a_sum(&*whole) {
                prop_assert!(same(&*whole, &*split), "{whole:?} {split:?}");
            }
        }
    }

    #[test]
    fn merging_is_having_seen_both(
        batches in batches(), granularity in granularities(), cut in 0..5_usize,
    ) {
        let (first, second) = batches.split_at(cut.min(batches.len()));
        for mut whole in observers(granularity) {
            if !is_exact(&*whole) && !is_a_sum(&*whole) {
                continue;
            }
            let (mut ours, mut theirs) = (whole.fork(), whole.fork());
            for batch in &batches {
                whole.observe(batch).unwrap();
            }
            for batch in first {
                ours.observe(batch).unwrap();
            }
            for batch in second {
                theirs.observe(batch).unwrap();
            }
            let before = state(&*theirs);
            ours.merge(&*theirs).unwrap();
            prop_assert!(same(&*ours, &*whole), "{ours:?} {whole:?}");
            prop_assert_eq!(state(&*theirs), before);
        }
    }

    #[test]
    fn any_layout_is_observed_alike(batches in batches(), granularity in granularities()) {
        for mut observer in observers(granularity) {
            let mut other = observer.fork();
            for batch in &batches {
                observer.observe(batch).unwrap();
                let turned = batch.t().as_standard_layout().into_owned();
                other.observe(&turned.t()).unwrap();
            }
            prop_assert_eq!(state(&*observer), state(&*other));
        }
    }

    #[test]
    fn forgetting_and_forking_leave_the_settings_alone(
        batches in batches(), granularity in granularities(),
    ) {
        for mut observer in observers(granularity) {
            let fresh = state(&*observer);
            prop_assert_eq!(state(&*observer.fork()), fresh.as_str());
            for batch in &batches {
                observer.observe(batch).unwrap();
            }
            prop_assert_ne!(state(&*observer), fresh.as_str());
            prop_assert_eq!(state(&*observer.fork()), fresh.as_str());
            let seen = state(&*observer);
            let mut again = observer.fork();
            observer.reset();
            prop_assert_eq!(state(&*observer), fresh.as_str());
            // As good as new: the same batches give the same again.
            for batch in &batches {
                observer.observe(batch).unwrap();
                again.observe(batch).unwrap();
            }
            prop_assert_eq!(state(&*observer), seen.as_str());
            prop_assert_eq!(state(&*again), seen.as_str());
        }
    }

    #[test]
    fn merging_with_one_that_has_seen_nothing_changes_nothing(
        batches in batches(), granularity in granularities(),
    ) {
        for mut observer in observers(granularity) {
            for batch in &batches {
                observer.observe(batch).unwrap();
            }
            let seen = state(&*observer);
            let mut fresh = observer.fork();
            observer.merge(&*fresh).unwrap();
            prop_assert_eq!(state(&*observer), seen.as_str());
            fresh.merge(&*observer).unwrap();
            prop_assert_eq!(state(&*fresh), seen.as_str());
        }
    }
}
