//! Values of every kind, and every calibrator.

use lowbit::{
    Calibrator, FloatFormat, Granularity, Mapping, ObserverExt, Scheme,
    calibrate::{
        Entropy, FullRange, HistogramSearch, MeanSquaredError, Octav, Percentile,
        StandardDeviations,
    },
    observe::HistogramObserver,
};
use proptest::prelude::*;

pub(super) fn calibrators() -> Vec<Box<dyn Calibrator>> {
    vec![
        Box::new(FullRange),
        Box::new(Percentile::default()),
        Box::new(Percentile::new(80.0).unwrap()),
        Box::new(MeanSquaredError::default()),
        Box::new(MeanSquaredError::default().with_norm(2.4).unwrap()),
        Box::new(Octav),
        Box::new(Entropy),
        Box::new(HistogramSearch),
        Box::new(StandardDeviations::default()),
    ]
}

/// What reads a histogram where there is no value at hand.
pub(super) fn of_histograms() -> Vec<Box<dyn Calibrator>> {
    let mut calibrators = calibrators();
    calibrators.pop();
    calibrators
}

pub(super) fn schemes() -> impl Strategy<Value = Scheme> {
    let bits = prop::sample::select(vec![1_u32, 2, 3, 4, 8, 16]);
    let mapping = prop::sample::select(vec![
        Mapping::Symmetric,
        Mapping::SymmetricHalfRange,
        Mapping::Asymmetric,
        Mapping::AsymmetricFloat,
    ]);
    (bits, mapping, any::<[bool; 3]>()).prop_filter_map(
        "not a scheme",
        |(bits, mapping, [unsigned, narrow, is_float])| {
            let mut builder = if is_float && bits == 4 {
                Scheme::float(FloatFormat::E2M1)
            } else {
                Scheme::int(bits).mapping(mapping)
            };
            if unsigned {
                builder = builder.unsigned();
            }
            if narrow {
                builder = builder.narrow_range();
            }
            builder.build().ok()
        },
    )
}

/// Finite values: ordinary ones, all of one sign, all equal, outliers, and the ends of the floats.
pub(super) fn values() -> impl Strategy<Value = Vec<f32>> {
    let finite = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO;
    let some = |strategy: BoxedStrategy<f32>| prop::collection::vec(strategy, 1..60);
    prop_oneof![
        4 => some((-3.0_f32..3.0).boxed()),
        2 => some((0.5_f32..3.0).boxed()),
        2 => some((-3.0_f32..-0.5).boxed()),
        2 => some(prop_oneof![9 => -0.1_f32..0.1, 1 => -50.0_f32..50.0].boxed()),
        1 => (finite, 1..20_usize).prop_map(|(x, count)| vec![x; count]),
        2 => some(finite.boxed()),
    ]
}

/// Numbers from 0 to 1, the same every time.
pub(super) fn uniform(seed: u64) -> impl FnMut() -> f64 {
    let mut state = seed;
    move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// About normally distributed numbers with a few outliers.
pub(super) fn bell(count: usize, outliers: f64, seed: u64) -> Vec<f32> {
    let mut random = uniform(seed);
    let one = |_| {
        let sum: f64 = (0..12).map(|_| random()).sum::<f64>() - 6.0;
        let far = if random() < 0.002 { outliers } else { 1.0 };
        (sum * far) as f32
    };
    (0..count).map(one).collect()
}

/// Distributions that calibrators meet: weights, activations after a rectifier, heavy tails.
pub(super) fn distributions() -> Vec<Vec<f32>> {
    let mut random = uniform(5);
    let exponential = (0..6000)
        .map(|_| -(random().max(1e-9)).ln() as f32)
        .collect();
    let flat = (0..3000).map(|i| i as f32 / 1000.0 - 1.0).collect();
    vec![
        bell(6000, 1.0, 1),
        bell(6000, 8.0, 2),
        bell(6000, 8.0, 3).iter().map(|x| x.max(0.0)).collect(),
        bell(4000, 3.0, 4).iter().map(|x| x.abs() + 2.0).collect(),
        bell(4000, 20.0, 6).iter().map(|x| x - 1.0).collect(),
        exponential,
        flat,
    ]
}

pub(super) fn observer(values: &[f32], bins: usize) -> HistogramObserver {
    let mut observer = HistogramObserver::new(Granularity::PerTensor)
        .with_bins(bins)
        .unwrap();
    observer.observe(&ndarray::aview1(values)).unwrap();
    observer
}
