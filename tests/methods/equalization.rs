//! Cross-layer equalization and bias correction: the network computes what it did, the ranges are
//! level, the mean error is gone.

use lowbit::{
    QuantizerExt, RoundToNearest, Scheme,
    ptq::{BiasCorrection, Equalization, TransformExt, absorb_high_bias},
};
use ndarray::{Array1, Array2, Axis, Ix2, array, s};

use super::support::{Layer, Normal, close};

fn relu(x: Array2<f32>) -> Array2<f32> {
    x.mapv_into(|x| x.max(0.0))
}

fn network(x: &Array2<f32>, layers: &[Array2<f32>], biases: &[Array1<f32>]) -> Array2<f32> {
    let mut x = x.clone();
    for (weights, bias) in layers.iter().zip(biases) {
        x = relu(x.dot(&weights.t()) + bias);
    }
    x
}

fn uneven(out: usize, channels: usize, seed: u64) -> Array2<f32> {
    let rows = Array1::from_shape_fn(out, |o| [0.01_f32, 0.1, 1.0, 10.0][o % 4]);
    Normal::new(seed).array(out, channels) * rows.insert_axis(Axis(1))
}

#[test]
fn an_equalized_stack_computes_what_it_did_with_level_ranges() {
    // Even layers, then channels of very different sizes between the first two.
    let sizes = Array1::from_shape_fn(12, |i| [0.01_f32, 0.1, 1.0, 10.0][i % 4]);
    let uneven_layers = || {
        let [first, second, third] = [(12, 8), (10, 12), (5, 10)]
            .map(|(out, channels)| Normal::new(out as u64).array(out, channels));
        [
            first * sizes.view().insert_axis(Axis(1)),
            second / &sizes,
            third,
        ]
    };
    let mut layers = uneven_layers();
    let mut plain_biases = [12, 10, 5].map(|out| Normal::new(9).array(1, out).row(0).to_owned());
    plain_biases[0] *= &sizes;
    let mut biases = plain_biases.clone();
    let x = Normal::new(4).array(20, 8);
    let before = network(&x, &layers, &biases);
    let limits = Equalization::default().with_limits(50, 1e-4).unwrap();
    let scales = limits.equalize(&mut layers).unwrap();
    for (bias, scales) in biases.iter_mut().zip(&scales) {
        *bias = scales.inputs(bias).unwrap();
    }
    close(&network(&x, &layers, &biases), &before, 1e-4);
    for pair in layers.windows(2) {
        for (row, column) in pair[0].rows().into_iter().zip(pair[1].columns()) {
            let largest = |lane: ndarray::ArrayView1<'_, f32>| {
                lane.fold(0.0_f32, |most, w| most.max(w.abs()))
            };
            let ratio = largest(row) / largest(column);
            assert!((ratio - 1.0).abs() < 1e-3, "{ratio}");
        }
    }
    // One scale a tensor serves better than it did.
    let scheme = Scheme::int(8).per_tensor().build().unwrap();
    let error = |layers: &[Array2<f32>], biases: &[Array1<f32>]| {
        let rounded = layers.iter().map(|weights| {
            let quantized = RoundToNearest::new(scheme).quantize(weights).unwrap();
            let image = quantized.dequantize::<f32>();
            image.into_dimensionality::<Ix2>().unwrap()
        });
        let outputs = network(&x, &rounded.collect::<Vec<_>>(), biases);
        (outputs - &before).mapv(|e| e * e).sum()
    };
    let (plain, level) = (
        error(&uneven_layers(), &plain_biases),
        error(&layers, &biases),
    );
    assert!(level < 0.01 * plain, "{level} {plain}");
}

#[test]
fn three_layers_around_a_depthwise_one_get_the_same_ranges() {
    let (first, taps, last) = (uneven(6, 4, 1), uneven(6, 9, 5), uneven(3, 6, 2));
    let (before, after) = Equalization::depthwise_scales(&first, &taps, &last).unwrap();
    let first = before.outputs(&first).unwrap();
    let last = after.weights(&last).unwrap();
    for channel in 0..6 {
        let ratio = before.scales()[channel] / after.scales()[channel];
        let largest = |lane: ndarray::ArrayView1<'_, f32>, times: f32| {
            lane.fold(0.0_f32, |most, w| most.max(times * w.abs()))
        };
        let ranges = [
            largest(first.row(channel), 1.0),
            largest(taps.row(channel), ratio),
            largest(last.column(channel), 1.0),
        ];
        for range in ranges {
            assert!((range / ranges[0] - 1.0).abs() < 1e-4, "{ranges:?}");
        }
    }
}

#[test]
fn dead_channels_keep_their_scale_and_bad_layers_are_refused_untouched() {
    let mut first = uneven(4, 3, 1);
    first.row_mut(2).fill(0.0);
    let mut second = uneven(2, 4, 2);
    second.column_mut(1).fill(0.0);
    let scales = Equalization::scales(&first, &second).unwrap();
    assert_eq!(scales.scales().slice(s![1..3]), array![1.0, 1.0]);
    assert!(Equalization::scales(&first, &uneven(2, 5, 2)).is_err());
    assert!(
        Equalization::default()
            .equalize(&mut [first.clone()])
            .is_err()
    );
    let mut layers = [first.clone(), second.clone(), array![[f32::NAN, 0.0]]];
    assert!(Equalization::default().equalize(&mut layers).is_err());
    assert_eq!(layers[..2], [first, second]);
    for tolerance in [-1.0, f32::NAN] {
        assert!(Equalization::default().with_limits(1, tolerance).is_err());
    }
    let huge = array![[3e38_f32], [1e-38]];
    let scales = Equalization::scales(&huge, &array![[1e-38_f32, 3e38]]).unwrap();
    assert!(scales.outputs(&huge).unwrap().iter().all(|w| w.is_finite()));
}

#[test]
fn absorbing_a_bias_that_is_never_clipped_changes_nothing() {
    let x = Normal::new(1).array(200, 3).mapv(|x| x.clamp(-2.9, 2.9));
    let second = Normal::new(2).array(4, 3);
    let (means, deviations) = (array![5.0_f32, -1.0, 3.5], array![1.0_f32, 1.0, -1.0]);
    let bias = Array1::from_shape_fn(4, |i| i as f32);
    let pre = &x * &deviations + &means;
    let before = relu(pre.clone()).dot(&second.t()) + &bias;
    let (first, second_bias) =
        absorb_high_bias(&means, &second, &bias, (&means, &deviations)).unwrap();
    let after = relu(pre - &means + &first).dot(&second.t()) + &second_bias;
    close(&after, &before, 1e-5);
    assert_eq!(first, array![3.0, -1.0, 3.0]);
    let short = array![1.0_f32];
    assert!(absorb_high_bias(&short, &second, &bias, (&means, &deviations)).is_err());
    let infinite = array![f32::INFINITY, 0.0, 0.0];
    assert!(absorb_high_bias(&means, &second, &bias, (&infinite, &deviations)).is_err());
}

#[test]
fn a_corrected_layer_has_no_mean_error() {
    let layer = Layer::random(7, 20, 300, 3);
    let inputs = &layer.inputs + 0.5;
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let quantized = RoundToNearest::new(scheme)
        .quantize(&layer.weights)
        .unwrap();
    let image = quantized
        .dequantize::<f32>()
        .into_dimensionality::<Ix2>()
        .unwrap();
    let (float, rounded) = (inputs.dot(&layer.weights.t()), inputs.dot(&image.t()));
    let mean_error = |correction: &Array1<f32>| {
        let error = (&rounded + correction - &float).mean_axis(Axis(0)).unwrap();
        error.fold(0.0_f32, |most, e| most.max(e.abs()))
    };
    let before = mean_error(&Array1::zeros(7));
    let (mut whole, mut shard) = (BiasCorrection::new(7), BiasCorrection::new(7));
    let part = |x: &Array2<f32>, range: std::ops::Range<usize>| x.slice(s![range, ..]).to_owned();
    whole
        .observe(&part(&float, 0..100), &part(&rounded, 0..100))
        .unwrap();
    shard
        .observe(&part(&float, 100..300), &part(&rounded, 100..300))
        .unwrap();
    whole.merge(&shard).unwrap();
    let empirical = whole.correction().unwrap();
    assert!(mean_error(&empirical) < 1e-4 * before);
    let means = inputs.mean_axis(Axis(0)).unwrap();
    let exact = BiasCorrection::of_weights(&layer.weights, &quantized, &means).unwrap();
    assert!(mean_error(&exact) < 1e-4 * before);

    assert!(BiasCorrection::new(7).correction().is_err());
    assert!(whole.merge(&BiasCorrection::new(6)).is_err());
    assert!(whole.observe(&array![[1.0_f32]], &array![[1.0]]).is_err());
    let before = whole.clone();
    let nan = &rounded * f32::NAN;
    assert!(whole.observe(&float, &nan).is_err());
    assert_eq!(whole, before);
    assert!(BiasCorrection::of_weights(&layer.weights, &quantized, &array![1.0]).is_err());
}
