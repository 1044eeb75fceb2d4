//! Transforms and methods together.

use lowbit::{
    Affine, Granularity, QTensor, QuantizerExt, RoundToNearest, Scheme,
    calibrate::MeanSquaredError,
    ptq::{AdaRound, QuantEase, Rotation, SignRound, SmoothQuant, TransformExt},
};
use ndarray::{Array2, Ix2};

use super::support::Layer;

fn image(quantized: &QTensor) -> Array2<f32> {
    quantized.dequantize().into_dimensionality::<Ix2>().unwrap()
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let layer = Layer::random(150, 40, 100, 6);
    let hessian = layer.hessian();
    let scheme = Scheme::int(2)
        .asymmetric_float()
        .per_group(16)
        .build()
        .unwrap();
    let all = || {
        let smooth = SmoothQuant::new(0.5).unwrap();
        let smooth = smooth
            .scales(&layer.input_max(), &[layer.weights.view()])
            .unwrap();
        let transform = smooth
            .then(Rotation::hadamard(40).unwrap().with_signs(1))
            .unwrap();
        let moments = transform.hessian(&hessian).unwrap();
        let weights = transform.weights(&layer.weights).unwrap();
        [
            QuantEase::new(scheme, &moments).quantize(&weights).unwrap(),
            SignRound::new(scheme, &moments)
                .with_steps(20)
                .quantize(&weights)
                .unwrap(),
            AdaRound::new(scheme, &moments)
                .with_steps(20, 0.1)
                .unwrap()
                .quantize(&weights)
                .unwrap(),
        ]
    };
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(all)
    };
    assert_eq!(on(1), on(3));
}

#[test]
fn smoothing_rotating_and_learning_is_a_pipeline_of_four_lines() {
    // Inputs that are quantized too: outliers cost them dearly.
    let layer = Layer::random(24, 52, 300, 7);
    let (x, w, hessian) = (&layer.inputs, &layer.weights, &layer.hessian());
    let weights = Scheme::int(4).per_axis(0).build().unwrap();
    let inputs = Scheme::int(4)
        .granularity(Granularity::PerRow)
        .build()
        .unwrap();
    let target = x.dot(&w.t());
    let error = |x: &Array2<f32>, quantized: &QTensor| {
        let x = lowbit::fake_quantize(x, &Affine::of(&inputs, x).unwrap()).unwrap();
        (x.dot(&image(quantized).t()) - &target)
            .mapv(|e| e * e)
            .sum()
    };
    let plain = error(
        x,
        &RoundToNearest::new(weights)
            .with_calibrator(MeanSquaredError::default())
            .quantize(w)
            .unwrap(),
    );

    let smooth = SmoothQuant::new(0.6)
        .unwrap()
        .scales(&layer.input_max(), &[w.view()])
        .unwrap();
    let transform = smooth
        .then(Rotation::hadamard(52).unwrap().with_signs(3))
        .unwrap();
    let hessian = transform.hessian(hessian).unwrap();
    let quantized = QuantEase::new(weights, &hessian).quantize(&transform.weights(w).unwrap());

    let piped = error(&transform.inputs(x).unwrap(), &quantized.unwrap());
    assert!(piped < 0.3 * plain, "{piped} {plain}");
}
