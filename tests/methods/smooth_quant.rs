//! SmoothQuant: the formula, and the search against one written out here.

use lowbit::{
    Affine, Error, QuantizerExt, RoundToNearest, Scheme, fake_quantize,
    ptq::{LayerInputs, SmoothQuant, SmoothQuantSearch, TransformExt},
};
use ndarray::{Array1, Array2, Axis, Ix2, array};

use super::support::{Layer, close};

#[test]
fn one_end_of_alpha_levels_the_inputs_and_the_other_the_weights() {
    let layer = Layer::random(6, 30, 50, 1);
    let other = Layer::random(3, 30, 1, 2).weights * 2.0;
    let both = [layer.weights.view(), other.view()];
    let largest = |x: &Array2<f32>| {
        x.mapv(f32::abs)
            .fold_axis(Axis(0), 0.0_f32, |a, b| a.max(*b))
    };
    for (alpha, level_inputs) in [(1.0, true), (0.0, false)] {
        let scales = SmoothQuant::new(alpha).unwrap();
        let scales = scales.scales(&layer.input_max(), &both).unwrap();
        let inputs = scales.inputs(&layer.inputs).unwrap();
        let weights = both.map(|w| scales.weights(&w).unwrap());
        let level = if level_inputs {
            largest(&inputs)
        } else {
            ndarray::Zip::from(&largest(&weights[0]))
                .and(&largest(&weights[1]))
                .map_collect(|&a, &b| a.max(b))
        };
        for entry in level {
            assert!((entry - 1.0).abs() < 1e-5, "{alpha}: {entry}");
        }
        close(
            &inputs.dot(&weights[0].t()),
            &layer.inputs.dot(&layer.weights.t()),
            1e-5,
        );
    }
}

#[test]
fn the_formula_is_the_papers_and_dead_channels_keep_their_scale() {
    let weights = array![[0.5_f32, 0.0, -2.0, 1e-30], [-0.25, 0.0, 1.0, 0.0]];
    let input_max = array![3.0_f32, 5.0, 0.0, 1e30];
    let scales = SmoothQuant::new(0.75).unwrap();
    let scales = scales.scales(&input_max, &[weights.view()]).unwrap();
    let expected = 3.0_f32.powf(0.75) / 0.5_f32.powf(0.25);
    assert!((scales.scales()[0] / expected - 1.0).abs() < 1e-6);
    assert_eq!(scales.scales().to_vec()[1..], [1.0, 1.0, 1e5]);
}

#[test]
fn no_alpha_of_the_grid_is_better_than_the_one_that_is_found() {
    let layer = Layer::random(12, 40, 64, 3);
    let weights = Scheme::int(4).per_axis(0).build().unwrap();
    let activations = Scheme::int(6).per_tensor().build().unwrap();
    let nearest = RoundToNearest::new(weights);
    let target = layer.inputs.dot(&layer.weights.t()).mapv(f64::from);
    let error = |inputs: &Array2<f32>, weights: &Array2<f32>| {
        let x = fake_quantize(inputs, &Affine::of(&activations, inputs).unwrap()).unwrap();
        let image = nearest.quantize(weights).unwrap().dequantize::<f32>();
        let image = image.into_dimensionality::<Ix2>().unwrap();
        let y = x.mapv(f64::from).dot(&image.mapv(f64::from).t());
        (y - &target).mapv(|e| e * e).sum()
    };
    let inputs = LayerInputs::samples(&layer.inputs).unwrap();
    let search = SmoothQuantSearch::new(nearest.clone(), activations);
    let found = search.scales(&inputs, &[layer.weights.view()]).unwrap();
    let of = |scales: &lowbit::ptq::ChannelScales| {
        error(
            &scales.inputs(&layer.inputs).unwrap(),
            &scales.weights(&layer.weights).unwrap(),
        )
    };
    let plain = error(&layer.inputs, &layer.weights);
    assert!(of(&found) < 0.3 * plain, "{} {plain}", of(&found));
    for step in 0..=10_u8 {
        let fixed = SmoothQuant::new(f32::from(step) / 10.0).unwrap();
        let fixed = fixed.scales(&layer.input_max(), &[layer.weights.view()]);
        assert!(of(&found) <= of(&fixed.unwrap()) * (1.0 + 1e-5), "{step}");
    }
}

#[test]
fn bad_options_inputs_and_weights_are_refused() {
    for alpha in [-0.1, 1.1, f32::NAN] {
        assert!(SmoothQuant::new(alpha).is_err());
    }
    let smooth = SmoothQuant::new(0.5).unwrap();
    let weights = array![[1.0_f32, 2.0]];
    let one = |input_max: Array1<f32>| smooth.scales(&input_max, &[weights.view()]);
    assert!(matches!(one(array![1.0]), Err(Error::ShapeMismatch { .. })));
    assert!(matches!(
        one(array![1.0, f32::NAN]),
        Err(Error::NonFinite { .. })
    ));
    assert!(matches!(
        smooth.scales(&array![1.0, 1.0], &[]),
        Err(Error::Empty { .. })
    ));
    let bad = array![[1.0_f32, f32::INFINITY]];
    assert!(smooth.scales(&array![1.0, 1.0], &[bad.view()]).is_err());

    let scheme = Scheme::int(8).build().unwrap();
    let search = SmoothQuantSearch::new(RoundToNearest::new(scheme), scheme);
    assert!(search.clone().with_steps(0).is_err());
    let importance = LayerInputs::importance(&array![1.0, 1.0]).unwrap();
    let error = search.scales(&importance, &[weights.view()]).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    for extreme in [
        array![[0.0_f32, 0.0]],
        array![[1e-38, 1e38]],
        array![[f32::MIN_POSITIVE, 0.0]],
    ] {
        let inputs = LayerInputs::samples(&extreme).unwrap();
        let scales = search.scales(&inputs, &[weights.view()]).unwrap();
        assert!(scales.scales().iter().all(|scale| scale.is_normal()));
    }
    assert!(LayerInputs::samples(&array![[f32::NAN, 1.0]]).is_err());
    assert!(LayerInputs::samples(&Array2::<f32>::zeros((0, 2))).is_err());
    assert!(LayerInputs::samples(&ndarray::arr0(1.0_f32)).is_err());
    for bad in [array![-1.0], array![f32::NAN], array![]] {
        assert!(LayerInputs::importance(&bad).is_err());
    }
}
