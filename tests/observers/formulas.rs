//! The formulas of the observers, spelled out.

use lowbit::{
    Affine, Error, FloatFormat, Granularity, Observer, ObserverExt, Range, Scheme,
    calibrate::{FullRange, ranges},
    observe::{Fixed, Importance, MeanDeviation, MovingAverageMinMax},
};
use ndarray::{Array1, array};
use proptest::prelude::*;

use super::support::{batches, by_parameter, granularities};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn a_moving_average_goes_a_share_of_the_way_with_each_batch(
        batches in batches(), granularity in granularities(),
        constant in prop_oneof![Just(0.01_f32), Just(1.0), 0.001_f32..1.0],
    ) {
        let mut observer =
            MovingAverageMinMax::new(granularity).with_averaging_constant(constant).unwrap();
        let mut expected: Vec<(f64, f64)> = vec![];
        let c = f64::from(constant);
        for batch in &batches {
            observer.observe(batch).unwrap();
            let values = by_parameter(std::slice::from_ref(batch), granularity);
            let extremes = values.iter().map(|values| {
                let min = values.iter().copied().fold(f32::INFINITY, f32::min);
                let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                (f64::from(min), f64::from(max))
            });
            if expected.is_empty() {
                expected = extremes.collect();
            } else {
                for ((low, high), (min, max)) in expected.iter_mut().zip(extremes) {
                    *low += c * (min - *low);
                    *high += c * (max - *high);
                }
            }
        }
        let largest = batches.iter().flatten().fold(0.0_f32, |m, x| m.max(x.abs()));
        for (parameter, &(low, high)) in expected.iter().enumerate() {
            let range = observer.statistics(parameter).unwrap().range();
            let slack = 1e-6 * f64::from(largest) + 1e-44;
            prop_assert!((f64::from(range.min()) - low).abs() <= slack, "{range:?} {low}");
            prop_assert!((f64::from(range.max()) - high).abs() <= slack, "{range:?} {high}");
        }
    }

    #[test]
    fn means_deviations_and_squares_are_those_of_all_elements(
        batches in batches(), granularity in granularities(),
    ) {
        let mut moments = MeanDeviation::new(granularity);
        let mut importance = Importance::new(granularity);
        for batch in &batches {
            moments.observe(batch).unwrap();
            importance.observe(batch).unwrap();
        }
        let squares = importance.importance().unwrap();
        let squares: Vec<f32> = squares.iter().copied().collect();
        for (parameter, values) in by_parameter(&batches, granularity).iter().enumerate() {
            let count = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / count;
            let square = values.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / count;
            let spread = values.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>();
            let got = moments.statistics(parameter).unwrap().moments().unwrap();
            prop_assert!((got.mean - mean).abs() <= 1e-9 * square.sqrt());
            prop_assert!((got.variance - spread / count).abs() <= 1e-9 * square);
            prop_assert_eq!(got.deviation(), got.variance.sqrt());
            let expected = square.min(f64::from(f32::MAX)) as f32;
            let close = (squares[parameter] - expected).abs() <= 1e-6 * expected;
            prop_assert!(close, "{} {}", squares[parameter], expected);
        }
    }
}

#[test]
fn merged_moving_averages_weigh_by_their_batches() {
    let new = || {
        let observer = MovingAverageMinMax::new(Granularity::PerTensor);
        observer.with_averaging_constant(0.5).unwrap()
    };
    let (mut ours, mut theirs) = (new(), new());
    for max in [4.0_f32, 8.0, 8.0] {
        ours.observe(&array![0.0, max]).unwrap(); // 4, 6, 7
    }
    theirs.observe(&array![-4.0_f32, 11.0]).unwrap();
    ours.merge(&theirs).unwrap();
    let statistics = ours.statistics(0).unwrap();
    assert_eq!(statistics.count(), 8);
    assert_eq!(
        (statistics.range().min(), statistics.range().max()),
        (-1.0, 8.0)
    );
}

#[test]
fn a_large_mean_costs_no_digits_of_the_deviation() {
    let mut observer = MeanDeviation::new(Granularity::PerTensor);
    for batch in 0..100 {
        let sign = if batch % 2 == 0 { 0.5 } else { -0.5 };
        observer
            .observe(&Array1::from_elem(7, 1_000_000.0_f32 + sign))
            .unwrap();
    }
    let moments = observer.statistics(0).unwrap().moments().unwrap();
    approx::assert_relative_eq!(moments.deviation(), 0.5, max_relative = 1e-9);
}

/// Known answers: the fixed output parameters of LiteRT and torch (sigmoid and softmax 1/256 and
/// the least code, tanh 1/128 and 0, at 8 bits).
#[test]
fn fixed_ranges_give_the_parameters_that_runtimes_fix() {
    let parameters = |scheme: Scheme, fixed: fn(&Scheme) -> lowbit::Result<Fixed>| {
        let mut observer = fixed(&scheme).unwrap();
        observer.observe(&array![0.25_f32, 0.5]).unwrap();
        let ranges = ranges(&FullRange, &observer, &scheme).unwrap();
        let affine = Affine::from_ranges(&scheme, &ranges).unwrap();
        (affine.scale()[0], affine.zero_point()[0])
    };
    let signed = Scheme::int(8).asymmetric().build().unwrap();
    assert_eq!(parameters(signed, Fixed::sigmoid), (1.0 / 256.0, -128.0));
    assert_eq!(parameters(signed, Fixed::softmax), (1.0 / 256.0, -128.0));
    assert_eq!(parameters(signed, Fixed::tanh), (1.0 / 128.0, 0.0));
    let unsigned = Scheme::int(8).unsigned().asymmetric().build().unwrap();
    assert_eq!(parameters(unsigned, Fixed::sigmoid), (1.0 / 256.0, 0.0));
    assert_eq!(parameters(unsigned, Fixed::tanh), (1.0 / 128.0, 128.0));
    for bits in [2, 4, 16] {
        let scheme = Scheme::int(bits).asymmetric().build().unwrap();
        let step = 2_f32.powi(-(bits as i32));
        let least = scheme.quant_min() as f32;
        assert_eq!(parameters(scheme, Fixed::sigmoid), (step, least));
        assert_eq!(parameters(scheme, Fixed::tanh), (2.0 * step, 0.0));
    }
    let float = Scheme::float(FloatFormat::E4M3).build().unwrap();
    for fixed in [Fixed::sigmoid, Fixed::softmax, Fixed::tanh] {
        assert!(matches!(fixed(&float), Err(Error::Unsupported { .. })));
    }
}

#[test]
fn a_fixed_range_is_the_same_whatever_is_seen() {
    let range = Range::new(-2.0, 5.0).unwrap();
    let mut observer = Fixed::new(range, Granularity::PerAxis(0));
    observer
        .observe(&array![[1e9_f32, 0.0], [-1e9, 0.0]])
        .unwrap();
    for parameter in 0..2 {
        let statistics = observer.statistics(parameter).unwrap();
        assert_eq!((statistics.range(), statistics.count()), (range, 2));
    }
}
