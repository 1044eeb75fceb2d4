//! Rounding learned in a whole model.

use lowbit::{
    Error, Scheme,
    flow::{
        DifferentiableModel, LearnedRounding, ModelQuantization, ModelReport, Pipeline, Recipe,
        Treatment,
    },
};
use ndarray::Array2;
use proptest::prelude::*;

use super::support::{HIDDEN, Model, recipe, samples};

fn steps(steps: u16) -> LearnedRounding {
    LearnedRounding::default().with_steps(steps).unwrap()
}

/// The loss a token over all samples, by packed layers.
fn loss(model: &Model, float: &Model, samples: &[Array2<f32>]) -> f64 {
    let of = |x: &Array2<f32>| model.loss(&model.run(x), &float.run(x)).unwrap().0;
    let tokens: usize = samples.iter().map(Array2::nrows).sum();
    samples.iter().map(of).sum::<f64>() / tokens as f64
}

#[test]
fn a_model_ends_nearer_than_its_blocks_alone() {
    let float = Model::random(3, 5);
    for method in ["rtn", "rotate=1+rtn", "awq+mse+rtn", "gptq"] {
        for blocks in [None, Some(LearnedRounding::default())] {
            if blocks.is_some() && method == "gptq" {
                continue; // its blocks end where the whole of this model does
            }
            let recipe = recipe(method, 3);
            let work = ModelQuantization::new(&recipe);
            let mut before = float.clone();
            let of_before = match blocks {
                None => work.run(&mut before, samples(6)).unwrap(),
                Some(blocks) => work.run_learning(&mut before, samples(6), blocks).unwrap(),
            };
            let mut after = float.clone();
            let report = ModelQuantization::new(&recipe)
                .run_learning_jointly(&mut after, samples(6), blocks, steps(200))
                .unwrap();

            // The report says what the packed model does.
            let of = report.jointly.unwrap();
            let (before, after) = (
                loss(&before, &float, &samples(6)),
                loss(&after, &float, &samples(6)),
            );
            approx::assert_relative_eq!(of.loss_before, before, max_relative = 1e-6);
            approx::assert_relative_eq!(of.loss, after, max_relative = 1e-6);
            let most = if blocks.is_some() { 0.97 } else { 0.9 };
            assert!(after < most * before, "{method}: {after} {before}");

            assert_eq!(report.plan, of_before.plan);
            assert_eq!(report.layers.len(), of_before.layers.len());
            for (layer, before) in report.layers.iter().zip(&of_before.layers) {
                assert_eq!(layer.method, format!("{}+model", before.method));
                assert_eq!((&layer.layer, layer.bytes), (&before.layer, before.bytes));
            }
            let errors = |report: &ModelReport| -> Vec<f64> {
                report.blocks.iter().map(|block| block.error).collect()
            };
            assert_eq!(errors(&report), errors(&of_before));
        }
    }
}

#[test]
fn a_model_has_the_same_bits_on_any_number_of_threads_and_after_an_interruption() {
    let directory = std::env::temp_dir().join(format!("lowbit-joint-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory); // of a run that was killed
    let recipe = recipe("gptq", 2);
    let run = |threads: usize, stop: Option<usize>, checkpoints: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut model = Model::random(3, 7);
            let mut work =
                ModelQuantization::new(&recipe).with_progress(|progress| match progress.layer {
                    None if Some(progress.block) == stop => std::ops::ControlFlow::Break(()),
                    _ => std::ops::ControlFlow::Continue(()),
                });
            if checkpoints {
                work = work.with_checkpoints(&directory);
            }
            let outcome =
                work.run_learning_jointly(&mut model, samples(8), Some(steps(12)), steps(20));
            let layers: Vec<_> = model.quantized().into_iter().cloned().collect();
            outcome.map(|report| (layers, report.jointly.unwrap().loss))
        })
    };
    let expected = run(1, None, false).unwrap();
    assert_eq!(run(4, None, false).unwrap(), expected);
    assert!(matches!(
        run(2, Some(1), true).unwrap_err(),
        Error::Cancelled { done: 2, .. }
    ));
    assert_eq!(run(2, None, true).unwrap(), expected);
    assert_eq!(run(2, None, true).unwrap(), expected); // all blocks were there
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn an_error_of_the_loss_is_returned() {
    let mut inputs = samples(3);
    inputs[2].fill(1e4);
    let error = ModelQuantization::new(&recipe("rtn", 3))
        .run_learning_jointly(&mut Model::random(2, 1), inputs, None, steps(3))
        .unwrap_err();
    assert!(error.to_string().contains("too far"), "{error}");
}

#[test]
fn layers_that_stay_in_floats_stay_and_a_model_without_layers_has_its_loss() {
    let float = Model::random(2, 9);
    let recipe = Recipe::new();
    let mut model = float.clone();
    let report = ModelQuantization::new(&recipe)
        .run_learning_jointly(&mut model, samples(3), None, steps(2))
        .unwrap();
    assert!(report.layers.is_empty() && model.quantized().is_empty());
    assert_eq!(report.jointly.unwrap().loss, 0.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_model_gets_worse(
        seed in any::<u64>(),
        bits in 1_u32..=4,
        rate in 0.001_f32..1.0,
        method in prop::sample::select(vec!["rtn", "mse", "gptq", "rotate=3+gptaq"]),
    ) {
        let mut inputs = samples(seed);
        inputs[3].row_mut(0).fill(0.0);
        inputs.push(Array2::zeros((0, HIDDEN)));
        let scheme = Scheme::int(bits).unsigned().asymmetric_float().per_group(8).build().unwrap();
        let pipeline: Pipeline = method.parse().unwrap();
        let recipe = Recipe::new().quantize("*", Treatment::new(scheme, pipeline));
        let mut model = Model::random(2, seed);
        let report = ModelQuantization::new(&recipe)
            .run_learning_jointly(&mut model, inputs, None, steps(9).with_rate(rate).unwrap())
            .unwrap();
        let of = report.jointly.unwrap();
        prop_assert!(of.loss.is_finite() && of.loss <= of.loss_before);
        for layer in model.quantized() {
            prop_assert!(layer.image().unwrap().iter().all(|w| w.is_finite()));
        }
    }
}
