//! Threads and shards see what one session sees.

use std::sync::atomic::{AtomicU64, Ordering};

use lowbit::{
    Error, Granularity, Observer, ObserverExt, Result, Scheme,
    flow::{Calibration, Site},
    observe::{MinMax, Statistics},
};
use ndarray::{ArrayViewD, array};

use super::support::{activations, averaged, bell, forward, said, session};

const BATCHES: u64 = 24;

fn alone() -> String {
    let calibration = session();
    for batch in 0..BATCHES {
        forward(&calibration, batch).unwrap();
    }
    said(&calibration.finish().unwrap())
}

#[test]
fn tapping_from_many_threads_is_tapping_from_one() {
    let expected = alone();
    for threads in [2, 8] {
        let calibration = session();
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let batch = next.fetch_add(1, Ordering::Relaxed);
                        if batch >= BATCHES {
                            break;
                        }
                        forward(&calibration, batch).unwrap();
                    }
                });
            }
        });
        assert_eq!(said(&calibration.finish().unwrap()), expected);
    }
}

#[test]
fn merged_shards_are_one_session_whatever_their_order() {
    let expected = alone();
    for order in [[0, 1, 2], [2, 0, 1]] {
        let mut whole = session();
        let shards = [whole.fork(), whole.fork(), whole.fork()];
        for batch in 0..BATCHES {
            forward(&shards[batch as usize % 3], batch).unwrap();
        }
        for shard in order {
            whole.merge(&shards[shard]).unwrap();
        }
        assert_eq!(said(&whole.finish().unwrap()), expected);
    }
}

#[test]
fn a_site_that_only_a_shard_has_seen_is_merged_too() {
    let mut whole = session();
    let shard = whole.fork();
    for batch in 0..3 {
        forward(&whole, batch).unwrap();
        forward(&shard, batch).unwrap();
    }
    shard.tap("late", &array![1.0_f32, 2.55]).unwrap();
    whole.merge(&shard).unwrap();
    let calibrated = whole.finish().unwrap();
    assert_eq!(calibrated.report("late").unwrap().elements, 2);
    assert_eq!(calibrated.report("input").unwrap().elements, 2 * 3 * 128);
}

#[test]
fn a_fork_has_the_settings_and_has_seen_nothing() {
    let calibration = session();
    forward(&calibration, 0).unwrap();
    let fork = calibration.fork();
    assert!(matches!(fork.finish(), Err(Error::Empty { .. })));
    forward(&fork, 0).unwrap();
    let expected = said(&calibration.finish().unwrap());
    assert_eq!(said(&fork.finish().unwrap()), expected);
    // Finishing changes nothing: it can be done again.
    assert_eq!(said(&calibration.finish().unwrap()), expected);
}

#[test]
fn an_observer_of_its_own_is_what_the_calibrator_reads() {
    let calibration = Calibration::new(averaged());
    calibration.tap("x", &array![0.0_f32, 4.0]).unwrap();
    calibration.tap("x", &array![0.0_f32, 8.0]).unwrap();
    let calibrated = calibration.finish().unwrap();
    assert_eq!(calibrated.affine("x").unwrap().scale(), [6.0 / 255.0]);
    // The report is of all that was seen.
    let report = calibrated.report("x").unwrap();
    assert_eq!((report.seen, report.elements), ((0.0, 8.0), 4));
    assert_eq!(report.clipped, 0.25);
}

#[test]
fn sessions_of_other_settings_do_not_merge() {
    let with = |site: Site| {
        let calibration = Calibration::new(site);
        calibration.tap("x", &bell(4, 8, 1)).unwrap();
        calibration
    };
    let plain = || with(Site::new(activations()).unwrap());
    let channels = Scheme::int(8).per_axis(1).build().unwrap();
    let others = [
        with(Site::new(channels).unwrap()),
        with(averaged()),
        with(
            Site::new(activations())
                .unwrap()
                .with_observer(MinMax::new(Granularity::PerTensor))
                .unwrap(),
        ),
    ];
    for (index, other) in others.iter().enumerate() {
        let error = plain().merge(other).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{index}: {error}");
        for theirs in &others[..index] {
            let mut ours = theirs.fork();
            ours.merge(theirs).unwrap();
            assert!(ours.merge(other).is_err());
        }
    }
    let mut observed = with(averaged());
    assert!(observed.merge(&plain()).is_err());
}

/// Refuses whatever exceeds 1.
#[derive(Debug, Clone)]
struct Picky(MinMax);

impl Observer for Picky {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        if batch.iter().any(|&x| x > 1.0) {
            return Err(Error::other("too large for me"));
        }
        self.0.observe(&batch)
    }

    fn granularity(&self) -> Granularity {
        self.0.granularity()
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.0.parameter_shape()
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        self.0.statistics(parameter)
    }

    fn merge(&mut self, _other: &dyn Observer) -> Result<()> {
        Err(Error::other("no"))
    }

    fn reset(&mut self) {
        self.0.reset();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self(MinMax::new(self.0.granularity())))
    }
}

#[test]
fn a_batch_that_an_observer_of_another_crate_refuses_is_not_reported_either() {
    let observer = Picky(MinMax::new(Granularity::PerTensor));
    let site = Site::new(activations())
        .unwrap()
        .with_observer(observer)
        .unwrap();
    let calibration = Calibration::new(site);
    calibration.tap("x", &array![0.5_f32, 0.25]).unwrap();
    let error = calibration.tap("x", &array![0.5_f32, 2.0]).unwrap_err();
    assert_eq!(error.to_string(), "too large for me");
    let error = calibration
        .tap("x", &array![0.5_f32, f32::NAN])
        .unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }));
    let calibrated = calibration.finish().unwrap();
    let report = calibrated.report("x").unwrap();
    assert_eq!((report.elements, report.seen), (2, (0.25, 0.5)));
}
