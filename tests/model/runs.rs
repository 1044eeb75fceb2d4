//! What a run computes.

use lowbit::{
    Scheme,
    calibrate::FullRange,
    flow::{ModelQuantization, Pipeline, Recipe, TokenWeights, Treatment},
    observe::Hessian,
};
use ndarray::Array2;
use proptest::prelude::*;

use super::support::{HIDDEN, Model, recipe, samples, scheme};

fn change(model: &Model, float: &Model) -> f32 {
    let of = |x: &Array2<f32>| (model.run(x) - float.run(x)).mapv(|e| e * e).sum();
    samples(99).iter().map(of).sum()
}

#[test]
fn each_stage_is_calibrated_on_what_the_quantized_ones_before_produce() {
    for token_weights in [TokenWeights::Even, TokenWeights::StreamShare] {
        let mut model = Model::random(2, 3);
        let recipe = recipe("gptq", 3);
        let report = ModelQuantization::new(&recipe)
            .with_token_weights(token_weights)
            .run(&mut model, samples(4))
            .unwrap();
        // The inputs of the last layer, from the finished model: all before it is quantized.
        let mut hessian = Hessian::new(20).unwrap();
        for sample in samples(4) {
            let first = Model(model.0[..1].to_vec()).run(&sample);
            let [gate, up, _] = &model.0[1].layers;
            let packed = |layer: &super::support::Linear| {
                layer.quantized.as_ref().unwrap().1.forward(&first).unwrap()
            };
            let gated = packed(gate).mapv(f32::tanh) * packed(up);
            let weights = &model.0[1].layers[2].weights;
            let stream = &first + &gated.dot(&weights.t());
            let mut rows = gated.clone();
            if token_weights == TokenWeights::StreamShare {
                for (mut row, stream) in rows.rows_mut().into_iter().zip(stream.rows()) {
                    row *= (HIDDEN as f32 / stream.dot(&stream)).sqrt();
                }
            }
            hessian.observe(&rows).unwrap();
        }
        let last = report.layers.last().unwrap();
        let quantized = model.quantized().into_iter().last().unwrap();
        let delta = quantized.image().unwrap() - &model.0[1].layers[2].weights;
        let expected = hessian.error(&delta).unwrap() / (last.tokens as f64 * HIDDEN as f64);
        approx::assert_relative_eq!(last.output_error, expected, max_relative = 1e-4);
        assert_eq!(last.tokens, hessian.tokens());
    }
}

#[test]
fn methods_rank_as_they_should() {
    let float = Model::random(3, 5);
    let error = |method: &str| {
        let mut model = float.clone();
        let recipe = recipe(method, 3);
        ModelQuantization::new(&recipe)
            .run(&mut model, samples(6))
            .unwrap();
        change(&model, &float)
    };
    let (nearest, gptq, best) = (error("rtn"), error("gptq"), error("best"));
    assert!(gptq < 0.9 * nearest, "{gptq} {nearest}");
    assert!(best < gptq, "{best} {gptq}");
}

#[test]
fn the_same_bits_on_any_number_of_threads() {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut model = Model::random(2, 7);
            ModelQuantization::new(&recipe("best", 2))
                .run(&mut model, samples(8))
                .unwrap();
            model.quantized().into_iter().cloned().collect::<Vec<_>>()
        })
    };
    assert_eq!(on(1), on(4));
}

#[test]
fn inputs_are_quantized_per_token_or_over_the_range_seen() {
    let float = Model::random(2, 9);
    let weights = Scheme::int(8).per_axis(0).build().unwrap();
    for inputs in [
        Scheme::int(8).per_row(),
        Scheme::int(8).unsigned().asymmetric(),
    ] {
        let treatment =
            Treatment::new(weights, Pipeline::nearest()).with_activations(inputs.build().unwrap());
        let recipe = Recipe::new().quantize("*", treatment);
        let mut model = float.clone();
        ModelQuantization::new(&recipe)
            .run(&mut model, samples(10))
            .unwrap();
        let signal: f32 = samples(99)
            .iter()
            .map(|x| float.run(x).mapv(|y| y * y).sum())
            .sum();
        assert!(change(&model, &float) < 1e-3 * signal);
    }
}

#[test]
fn smoothing_moves_outliers_of_inputs_into_the_weights() {
    let mut float = Model::random(1, 9);
    // One channel of the gated values is large, and met by small weights.
    float.0[0].layers[1]
        .weights
        .row_mut(3)
        .mapv_inplace(|w| 50.0 * w);
    float.0[0].layers[2]
        .weights
        .column_mut(3)
        .mapv_inplace(|w| w / 50.0);
    let inputs = Scheme::int(8).unsigned().asymmetric().build().unwrap();
    let weights = Scheme::int(8).per_axis(0).build().unwrap();
    let error = |method: &str| {
        let pipeline: Pipeline = method.parse().unwrap();
        let treatment = Treatment::new(weights, pipeline)
            .with_activations(inputs)
            .with_activation_calibrator(FullRange);
        let recipe = Recipe::new().quantize("*", treatment);
        let mut model = float.clone();
        ModelQuantization::new(&recipe)
            .run(&mut model, samples(10))
            .unwrap();
        change(&model, &float)
    };
    let (plain, smooth) = (error("rtn"), error("smooth=0.5+rtn"));
    assert!(smooth < 0.1 * plain, "{smooth} {plain}");
}

#[test]
fn asymmetric_calibration_goes_with_scales_and_rotations() {
    // What a rotation does to weights, a Hessian and a deviation, a rotated layer does itself.
    let float = Model::random(3, 5);
    let error = |method: &str| {
        let mut model = float.clone();
        ModelQuantization::new(&recipe(method, 3))
            .run(&mut model, samples(6))
            .unwrap();
        change(&model, &float)
    };
    let nearest = error("rtn");
    for method in ["gptaq", "rotate=1+gptaq", "awq+gptaq", "smooth=0.2+gptaq"] {
        let error = error(method);
        assert!(error < 0.9 * nearest, "{method}: {error} {nearest}");
    }
}

#[test]
fn a_layer_that_no_token_reaches_is_rounded_and_says_so() {
    let mut model = Model::random(1, 11);
    model.0[0].layers[0].weights.fill(0.0); // gates that are always 0
    let recipe = recipe("best", 3);
    let report = ModelQuantization::new(&recipe)
        .run(&mut model, samples(12))
        .unwrap();
    let down = report.layers.last().unwrap();
    assert_eq!((down.dead, down.sqnr), (1.0, None));
    let image = model.quantized()[2].image().unwrap();
    assert!(
        (image - &model.0[0].layers[2].weights)
            .iter()
            .all(|e| e.abs() < 0.3)
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_method_makes_a_nan(
        seed in any::<u64>(),
        bits in 1_u32..=8,
        scale in -12_i32..12,
        method in prop::sample::select(vec![
            "rtn", "mse", "hqq", "awq", "gptq", "gptaq", "quantease", "signround", "best",
            "rotate=3+gptaq", "smooth+rtn", "compensate+awq+gptq+quantease",
        ]),
    ) {
        let mut model = Model::random(2, seed);
        let factor = 2.0_f32.powi(scale);
        let mut inputs = samples(seed);
        inputs.iter_mut().for_each(|x| *x *= factor);
        inputs[3].row_mut(0).fill(0.0);
        inputs.iter_mut().for_each(|x| x.column_mut(5).fill(0.0));
        let scheme = if bits == 1 {
            Scheme::int(1).unsigned().asymmetric_float().per_group(8).build().unwrap()
        } else {
            scheme(bits)
        };
        let pipeline: Pipeline = method.parse().unwrap();
        let recipe = Recipe::new().quantize("*", Treatment::new(scheme, pipeline));
        let report = ModelQuantization::new(&recipe).run(&mut model, inputs.clone()).unwrap();
        for layer in model.quantized() {
            prop_assert!(layer.image().unwrap().iter().all(|w| w.is_finite()));
        }
        for layer in &report.layers {
            prop_assert!(layer.output_error.is_finite() && layer.weight_error.is_finite());
        }
        prop_assert!(model.run(&inputs[0]).iter().all(|y| y.is_finite()));
    }
}
