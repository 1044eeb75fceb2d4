//! What observers refuse, and that it leaves them as they were.

use lowbit::observe::{Fixed, HistogramObserver, MovingAverageMinMax};
use lowbit::{Error, Granularity, Observer, ObserverExt, observe::MinMax};
use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn, arr0, array};
use proptest::prelude::*;

use super::support::{GRANULARITIES, SHAPE, batches, granularities, observers, state};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_not_finite_is_named_and_leaves_the_statistics_as_they_were(
        batches in batches(), granularity in granularities(),
        bad in prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY]),
        at in (0..3_usize, 0..4_usize, 0..5_usize),
    ) {
        let at = [at.0, at.1, at.2];
        for mut observer in observers(granularity) {
            for batch in &batches {
                let mut poisoned = batch.clone();
                poisoned[IxDyn(&at)] = bad;
                poisoned[IxDyn(&[2, 3, 4])] = f32::NAN; // the last one, which is not named first
                let before = state(&*observer);
                match observer.observe(&poisoned) {
                    Err(Error::NonFinite { position, value, .. }) => {
                        prop_assert_eq!(position, at);
                        prop_assert!(value.is_nan() || value == f64::from(bad));
                    }
                    other => prop_assert!(false, "{:?}", other),
                }
                prop_assert_eq!(state(&*observer), before);
                observer.observe(batch).unwrap();
            }
            // In another layout the position is that of the array as it is indexed.
            let mut poisoned = batches[0].clone();
            poisoned[IxDyn(&at)] = bad;
            let mut fresh = observer.fork();
            if let Err(Error::NonFinite { position, .. }) = fresh.observe(&poisoned.t()) {
                prop_assert_eq!(position, [at[2], at[1], at[0]]);
            } else {
                prop_assert!(false);
            }
        }
    }

    #[test]
    fn any_batch_of_any_shape_is_taken_or_refused_with_a_reason(
        shape in prop::collection::vec(0..4_usize, 0..5),
        values in prop::collection::vec(prop::num::f32::ANY, 1..20),
        axis in 0..5_usize, size in prop_oneof![0..4_usize, Just(usize::MAX)],
    ) {
        let mut next = values.iter().copied().cycle();
        let x = ArrayD::from_shape_simple_fn(shape, || next.next().unwrap());
        for granularity in [
            Granularity::PerTensor,
            Granularity::PerAxis(axis),
            Granularity::PerGroup(size),
            Granularity::PerGroupAlong { axis, size },
            Granularity::PerBlock { rows: size, columns: 2 },
            Granularity::PerRow,
        ] {
            for mut observer in observers(granularity) {
                match observer.observe(&x) {
                    Ok(()) => prop_assert!(x.iter().all(|x| x.is_finite())),
                    Err(Error::NonFinite { .. }) => prop_assert!(x.iter().any(|x| !x.is_finite())),
                    Err(Error::NoSuchAxis { .. }) => prop_assert!(x.ndim() <= axis.max(1)),
                    Err(Error::InvalidOption { .. }) => prop_assert_eq!(size, 0),
                    Err(error) => prop_assert!(false, "{}", error),
                }
                for parameter in [0, 1, usize::MAX] {
                    if let Ok(statistics) = observer.statistics(parameter) {
                        prop_assert!(statistics.count() > 0);
                    }
                }
            }
        }
    }
}

#[test]
fn a_batch_of_other_parameters_is_refused_and_leaves_the_statistics_as_they_were() {
    for granularity in GRANULARITIES {
        for mut observer in observers(granularity) {
            observer
                .observe(&ArrayD::<f32>::ones(IxDyn(&SHAPE)))
                .unwrap();
            let before = state(&*observer);
            let other = ArrayD::<f32>::zeros(IxDyn(&[9, 9, 9]));
            let result = observer.observe(&other);
            if granularity == Granularity::PerTensor {
                result.unwrap();
                continue;
            }
            assert!(matches!(result, Err(Error::ShapeMismatch { .. })));
            assert_eq!(state(&*observer), before);
            let mut theirs = observer.fork();
            theirs.observe(&other).unwrap();
            let result = observer.merge(&*theirs);
            assert!(matches!(result, Err(Error::ShapeMismatch { .. })));
            assert_eq!(state(&*observer), before);
        }
    }
}

#[test]
fn axes_that_are_not_there_are_refused() {
    for granularity in &GRANULARITIES[1..] {
        for mut observer in observers(*granularity) {
            let error = observer.observe(&arr0(1.0)).unwrap_err();
            assert!(matches!(error, Error::NoSuchAxis { .. }), "{error}");
        }
    }
}

#[test]
fn observers_of_other_kinds_or_settings_do_not_merge() {
    let everyone = observers(Granularity::PerTensor);
    let coarser = observers(Granularity::PerRow);
    for (i, ours) in everyone.iter().enumerate() {
        for (j, theirs) in everyone.iter().enumerate() {
            let mut ours = ours.fork();
            ours.observe(&array![1.0_f32]).unwrap();
            let before = state(&*ours);
            let mut theirs = theirs.fork();
            theirs.observe(&array![2.0_f32]).unwrap();
            let merged = ours.merge(&*theirs);
            assert_eq!(merged.is_ok(), i == j, "{ours:?} {theirs:?}");
            if let Err(error) = merged {
                assert!(matches!(error, Error::Mismatch { .. }), "{error}");
                assert_eq!(state(&*ours), before);
            }
        }
        let error = ours.fork().merge(&*coarser[i]).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    }
    let range = |max| lowbit::Range::new(0.0, max).unwrap();
    let mut one = Fixed::new(range(1.0), Granularity::PerTensor);
    let two = Fixed::new(range(2.0), Granularity::PerTensor);
    assert!(one.merge(&two).is_err());
    let slow = MovingAverageMinMax::new(Granularity::PerTensor);
    let mut fast = slow.clone().with_averaging_constant(0.5).unwrap();
    assert!(fast.merge(&slow).is_err());
}

#[test]
fn settings_outside_what_they_may_be_are_refused() {
    let refused = |error: Error| matches!(error, Error::InvalidOption { .. });
    for bad in [0.0, -0.1, 1.1, f32::NAN, f32::INFINITY] {
        let observer = MovingAverageMinMax::new(Granularity::PerTensor);
        assert!(refused(observer.with_averaging_constant(bad).unwrap_err()));
    }
    for bad in [0, 1, (1 << 20) + 1, usize::MAX] {
        let observer = HistogramObserver::new(Granularity::PerTensor);
        assert!(refused(observer.with_bins(bad).unwrap_err()));
    }
    // Bins are counted from the first batch on.
    let mut observer = HistogramObserver::new(Granularity::PerTensor);
    observer.observe(&array![1.0_f32, -2.0, 0.3]).unwrap();
    for bins in [2, 1 << 20] {
        assert!(refused(observer.clone().with_bins(bins).unwrap_err()));
    }
}

#[test]
fn groups_of_no_element_have_seen_nothing_until_they_have() {
    for mut observer in observers(Granularity::PerAxis(0)) {
        observer.observe(&Array2::<f32>::zeros((3, 0))).unwrap();
        assert_eq!(observer.parameter_shape(), Some(&[3][..]));
        assert!(matches!(observer.statistics(2), Err(Error::Empty { .. })));
        observer
            .observe(&Array1::from_elem(3, 2.0).insert_axis(Axis(1)))
            .unwrap();
        assert_eq!(observer.statistics(2).unwrap().count(), 1);
    }
}

#[test]
fn counts_that_no_number_holds_are_refused() {
    for mut observer in observers(Granularity::PerTensor) {
        observer.observe(&array![1.0_f32, 2.0]).unwrap();
        // Each merge with itself doubles what was seen.
        let mut doubled = None;
        for doublings in 0..70 {
            let twin = twin_of(&*observer);
            let before = state(&*observer);
            if let Err(error) = observer.merge(&*twin) {
                assert!(matches!(error, Error::TooLarge { .. }), "{error}");
                assert_eq!(state(&*observer), before);
                doubled = Some(doublings);
                break;
            }
        }
        assert!(
            doubled.is_some_and(|doublings| doublings > 40),
            "{observer:?}"
        );
    }
    assert!(MinMax::new(Granularity::PerTensor).statistics(0).is_err());
}

/// An observer that has seen the same.
fn twin_of(observer: &dyn Observer) -> Box<dyn Observer> {
    let mut twin = observer.fork();
    twin.merge(observer).unwrap();
    twin
}
