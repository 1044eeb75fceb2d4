//! AWQ's two searches against the published ones, written out here.

use lowbit::{
    Error, Groups, QTensor, Quantizer, QuantizerExt, Result, RoundToNearest, Scheme,
    ptq::{Awq, AwqBalance, AwqClip, LayerInputs, TransformExt},
};
use ndarray::{Array1, Array2, ArrayViewD, Axis, Ix2};

use super::support::{Layer, Normal};

fn image(quantizer: &dyn Quantizer, weights: &Array2<f32>) -> Array2<f32> {
    let image = quantizer.quantize(weights).unwrap().dequantize::<f32>();
    image.into_dimensionality::<Ix2>().unwrap()
}

/// `auto_scale.py` of llm-awq with "duo" scaling, for one linear layer: the least error of its grid,
/// with the pseudo-quantization replaced by rounding to nearest.
fn published(layer: &Layer, group: usize, nearest: &RoundToNearest) -> f64 {
    let x = layer.inputs.mapv(f32::abs).mean_axis(Axis(0)).unwrap();
    let mut w = Array1::<f32>::zeros(layer.weights.ncols());
    for row in layer.weights.rows() {
        for (index, part) in row.axis_chunks_iter(Axis(0), group).enumerate() {
            let largest = part.fold(0.0_f32, |a, b| a.max(b.abs()));
            for (at, value) in part.iter().enumerate() {
                w[index * group + at] += value.abs() / (largest + 1e-6);
            }
        }
    }
    w /= layer.weights.nrows() as f32;
    let mut best = f64::INFINITY;
    for step in 0..20_u8 {
        let ratio = f32::from(step) / 20.0;
        let mut scales = ndarray::Zip::from(&x)
            .and(&w)
            .map_collect(|x, w| (x.powf(ratio) / (w.powf(1.0 - ratio) + 1e-4)).max(1e-4));
        let largest = scales.fold(0.0_f32, |a, b| a.max(*b));
        let least = scales.fold(f32::INFINITY, |a, b| a.min(*b));
        scales /= (largest * least).sqrt();
        let scaled = image(nearest, &(&layer.weights * &scales)) / &scales;
        best = best.min(layer.output_error(&scaled));
    }
    best
}

#[test]
fn the_scales_are_at_least_as_good_as_the_published_search_finds() {
    for (bits, seed) in [(4, 1), (3, 2), (3, 3)] {
        let layer = Layer::random(16, 64, 100, seed);
        let scheme = Scheme::int(bits).per_group(32).build().unwrap();
        let nearest = RoundToNearest::new(scheme);
        let inputs = LayerInputs::samples(&layer.inputs).unwrap();
        let awq = Awq::new(scheme).with_balance(AwqBalance::InputsAndWeights);
        let error = |awq: &Awq| {
            let scales = awq.scales(&inputs, &[layer.weights.view()]).unwrap();
            let image = image(&nearest, &scales.weights(&layer.weights).unwrap());
            layer.output_error(&scales.restore_weights(&image).unwrap())
        };
        let duo = error(&awq);
        assert!(duo <= published(&layer, 32, &nearest) * (1.0 + 1e-4));
        let plain = layer.output_error(&image(&nearest, &layer.weights));
        assert!(duo < 0.7 * plain, "{duo} {plain}");
        assert!(error(&Awq::new(scheme)) <= duo * (1.0 + 1e-6));
    }
}

#[test]
fn samples_and_their_hessian_find_scales_of_the_same_error() {
    let layer = Layer::random(16, 40, 200, 4);
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let change = Normal::new(9).array(16, 40);
    let exact = layer.output_error(&(&layer.weights + &change));
    for inputs in [
        LayerInputs::samples(&layer.inputs).unwrap(),
        LayerInputs::hessian(layer.hessian()),
    ] {
        assert!((inputs.error(&change).unwrap() / exact - 1.0).abs() < 1e-4);
        let clip = image(&AwqClip::new(scheme, inputs.clone()), &layer.weights);
        let nearest = RoundToNearest::new(scheme);
        let awq = Awq::new(scheme);
        let scales = awq.scales(&inputs, &[layer.weights.view()]).unwrap();
        let scaled = image(&nearest, &scales.weights(&layer.weights).unwrap());
        let scaled = scales.restore_weights(&scaled).unwrap();
        let plain = layer.output_error(&image(&nearest, &layer.weights));
        assert!(layer.output_error(&clip) < plain);
        assert!(layer.output_error(&scaled) < plain);
    }
}

/// A method that works on one matrix alone.
#[derive(Debug)]
struct Only(Array2<f32>, RoundToNearest);

impl Quantizer for Only {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        if weights == self.0.view().into_dyn() {
            self.1.quantize_view(weights)
        } else {
            Err(Error::other("not this one"))
        }
    }
}

#[test]
fn where_no_candidate_can_be_judged_nothing_is_scaled() {
    let layer = Layer::random(4, 16, 20, 5);
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let nearest = RoundToNearest::new(scheme);
    let inputs = LayerInputs::samples(&layer.inputs).unwrap();
    let awq = Awq::new(scheme).with_quantizer(Only(layer.weights.clone(), nearest));
    let scales = awq.scales(&inputs, &[layer.weights.view()]).unwrap();
    assert_eq!(scales.scales(), Array1::<f32>::ones(16));
    // Where not even that can be, it is an error.
    let other = &layer.weights + 1.0;
    assert!(awq.scales(&inputs, &[other.view()]).is_err());
}

#[test]
fn extremes_give_scales_that_are_numbers() {
    let scheme = Scheme::int(4).per_group(2).build().unwrap();
    let zeros = Array2::<f32>::zeros((3, 4));
    let some = Normal::new(1).array(3, 4);
    let mut dead = some.clone();
    dead.column_mut(1).fill(0.0);
    for weights in [&zeros, &some, &dead, &(&some * 1e30), &(&some * 1e-37)] {
        for inputs in [&zeros, &some, &dead, &(&some * 1e-30), &(&some * 1e7)] {
            let inputs = LayerInputs::samples(inputs).unwrap();
            match Awq::new(scheme).scales(&inputs, &[weights.view()]) {
                Ok(scales) => assert!(scales.scales().iter().all(|s| s.is_normal() && *s > 0.0)),
                Err(error) => assert!(matches!(error, Error::NonFinite { .. }), "{error}"),
            }
            let clipped = image(&AwqClip::new(scheme, inputs), weights);
            assert!(clipped.iter().all(|w| w.is_finite()));
        }
    }
    let inputs = LayerInputs::samples(&some).unwrap();
    let awq = Awq::new(scheme);
    assert!(awq.clone().with_steps(0).is_err());
    assert!(matches!(awq.scales(&inputs, &[]), Err(Error::Empty { .. })));
    let wrong = Array2::zeros((2, 5));
    assert!(awq.scales(&inputs, &[wrong.view()]).is_err());
    let clip = AwqClip::new(scheme, inputs);
    assert!(clip.quantize(&wrong).is_err());
    assert!(clip.quantize(&Array1::<f32>::zeros(4)).is_err());
    assert!(clip.quantize(&(some * f32::NAN)).is_err());
    for (steps, shrink) in [(0, 0.5), (10, -0.1), (10, 1.1), (10, f32::NAN)] {
        assert!(clip.clone().with_grid(steps, shrink).is_err());
    }
    let empty = clip.quantize(&Array2::<f32>::zeros((0, 4))).unwrap();
    assert!(empty.is_empty());
}

#[test]
fn each_group_is_clipped_to_the_fraction_that_changes_its_outputs_least() {
    let layer = Layer::random(6, 24, 30, 6);
    let importance = Array1::from_shape_fn(24, |i| [1.0_f32, 0.0, 3.0][i % 3]);
    let kinds = [
        LayerInputs::samples(&layer.inputs).unwrap(),
        LayerInputs::hessian(layer.hessian()),
        LayerInputs::importance(&importance).unwrap(),
    ];
    for scheme in [
        Scheme::int(3).per_group(10),
        Scheme::int(3).asymmetric().per_axis(0),
        Scheme::int(2).asymmetric_float().per_block(2, 8),
        Scheme::int(3).per_axis(1),
        Scheme::int(4).per_tensor(),
    ] {
        let scheme = scheme.build().unwrap();
        let groups = Groups::new(&[6, 24], scheme.granularity()).unwrap();
        for inputs in &kinds {
            let clip = AwqClip::new(scheme, inputs.clone());
            let chosen = clip.ranges(layer.weights.view().into_dyn()).unwrap();
            let full = lowbit::Ranges::of(&layer.weights, scheme.granularity()).unwrap();
            for parameter in 0..groups.parameters() {
                // All other weights stay as they are.
                let cost = |range: lowbit::Range| {
                    let p = lowbit::affine::Parameter::from_range(&scheme, range).unwrap();
                    let mut rows = Array2::<f32>::zeros((6, 24));
                    for (index, (change, &w)) in rows.iter_mut().zip(&layer.weights).enumerate() {
                        if groups.parameter_of(index) == parameter {
                            let (s, z) = (p.scale, p.zero_point);
                            let code = lowbit::affine::scalar::quantize(w, s, z, &scheme);
                            let image: f32 =
                                lowbit::affine::scalar::dequantize(code, s, z, &scheme);
                            *change = image - w;
                        }
                    }
                    inputs.error(&rows).unwrap()
                };
                let least = (0..10_u8)
                    .map(|step| 1.0 - f32::from(step) / 20.0)
                    .map(|fraction| {
                        let full = full.as_slice()[parameter];
                        let (min, max) = (fraction * full.min(), fraction * full.max());
                        cost(lowbit::Range::new(min, max).unwrap())
                    })
                    .fold(f64::INFINITY, f64::min);
                let ours = cost(chosen.as_slice()[parameter]);
                assert!(
                    ours <= least * (1.0 + 1e-4) + 1e-12,
                    "{scheme}: {ours} {least}"
                );
            }
        }
    }
}
