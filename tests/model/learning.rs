//! Rounding learned a block at a time: against all roundings there are, and the law that no block
//! gets worse.

use lowbit::{
    Error, Result, Scheme,
    flow::{
        BlockModel, DifferentiableBlock, LearnedRounding, ModelQuantization, PackedLayer, Pipeline,
        QuantizableBlock, QuantizedLayer, Recipe, SharedInput, Taps, TokenWeights, Treatment,
    },
};
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;

use super::support::{Block, HIDDEN, Model, Random, recipe, samples};

/// Two layers with a ReLU between them, `[3] → [3] → [2]`.
#[derive(Debug, Clone)]
struct Perceptron {
    weights: [Array2<f32>; 2],
    packed: [Option<PackedLayer>; 2],
    images: [Option<Array2<f32>>; 2],
}

const LAYERS: [&str; 2] = ["first", "second"];

impl Perceptron {
    fn random(seed: u64) -> Self {
        let mut random = Random(seed);
        Self {
            weights: [random.array(3, 3), random.array(2, 3)],
            packed: [None, None],
            images: [None, None],
        }
    }
}

impl QuantizableBlock for Perceptron {
    fn stages(&self) -> Vec<Vec<SharedInput>> {
        LAYERS
            .map(|name| vec![SharedInput::new(name, [name])])
            .into()
    }

    fn weights(&self, layer: &str) -> Result<ArrayView2<'_, f32>> {
        Ok(self.weights[usize::from(layer == LAYERS[1])].view())
    }

    fn replace(&mut self, layer: &str, quantized: &QuantizedLayer) -> Result<()> {
        let index = usize::from(layer == LAYERS[1]);
        self.packed[index] = Some(quantized.pack(None)?);
        self.images[index] = Some(quantized.image()?);
        Ok(())
    }

    fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
        let mut x = x.clone();
        for (index, name) in LAYERS.into_iter().enumerate() {
            taps.input(name, &x);
            let y = match &self.packed[index] {
                Some(packed) => packed.forward(&x)?,
                None => x.dot(&self.weights[index].t()),
            };
            x = if index == 0 {
                y.mapv(|y| y.max(0.0))
            } else {
                y
            };
        }
        Ok(x)
    }
}

impl DifferentiableBlock for Perceptron {
    fn add_gradients(
        &self,
        x: &Array2<f32>,
        weights: &[Array2<f32>],
        slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
        into: &mut [Array2<f32>],
    ) -> Result<Array2<f32>> {
        let inner = x.dot(&weights[0].t()).mapv(|y| y.max(0.0));
        let to_y = slope(&inner.dot(&weights[1].t()));
        into[1] += &to_y.t().dot(&inner);
        let to_inner = to_y.dot(&weights[1]) * inner.mapv(|y| f32::from(y > 0.0));
        into[0] += &to_inner.t().dot(x);
        Ok(to_inner.dot(&weights[0]))
    }
}

struct One(Perceptron);

impl BlockModel for One {
    type Block = Perceptron;

    fn blocks(&self) -> usize {
        1
    }

    fn block(&self, _: usize) -> Result<Perceptron> {
        Ok(self.0.clone())
    }

    fn put_block(&mut self, _: usize, block: Perceptron) -> Result<()> {
        self.0 = block;
        Ok(())
    }
}

/// The mean square of how far the outputs are from those of the float weights.
fn error(float: &[Array2<f32>; 2], weights: [&Array2<f32>; 2], x: &Array2<f32>) -> f64 {
    let outputs = |[first, second]: [&Array2<f32>; 2]| {
        let inner = x.dot(&first.t()).mapv(|y| y.max(0.0));
        inner.dot(&second.t())
    };
    let difference = outputs(weights) - outputs(float.each_ref());
    difference
        .iter()
        .map(|&d| f64::from(d).powi(2))
        .sum::<f64>()
        / difference.len() as f64
}

/// All matrices whose every weight is rounded down or up, in steps of `scale` from −2 to 1.
fn roundings(weights: &Array2<f32>, scale: f32) -> Vec<Array2<f32>> {
    (0..1_u32 << weights.len())
        .map(|choice| {
            let round = |(index, &w): (usize, &f32)| {
                let up = (choice >> index & 1) as f32;
                ((w / scale).floor() + up).clamp(-2.0, 1.0) * scale
            };
            let rounded: Vec<f32> = weights.iter().enumerate().map(round).collect();
            Array2::from_shape_vec(weights.raw_dim(), rounded).unwrap()
        })
        .collect()
}

#[test]
fn a_tiny_block_comes_near_the_best_of_all_its_roundings() {
    let (mut learned, mut best, mut plain) = (0.0, 0.0, 0.0);
    for seed in 0..10 {
        let float = Perceptron::random(seed + 1);
        let x = Random(seed + 100).array(24, 3);
        // One scale a layer, which rows share and so nothing learns: codes are all there is.
        let scheme = Scheme::int(2).per_tensor().build().unwrap();
        let pipeline: Pipeline = "mse+rtn".parse().unwrap();
        let recipe = Recipe::new().quantize("*", Treatment::new(scheme, pipeline));
        let mut model = One(float.clone());
        let rounding = LearnedRounding::default().with_batch(4).unwrap();
        let samples = x.axis_chunks_iter(ndarray::Axis(0), 4);
        let report = ModelQuantization::new(&recipe)
            .run_learning(
                &mut model,
                samples.map(|x| x.to_owned()).collect(),
                rounding,
            )
            .unwrap();
        let [Some(first), Some(second)] = &model.0.images else {
            panic!("two quantized layers");
        };
        let reached = error(&float.weights, [first, second], &x);
        approx::assert_relative_eq!(reached, report.blocks[0].error, max_relative = 1e-3);
        let scale = |image: &Array2<f32>| {
            let sizes = image.iter().map(|w| w.abs()).filter(|&w| w > 0.0);
            sizes.fold(f32::INFINITY, f32::min)
        };
        // Codes of −2 to 1: the least magnitude is the step, or twice it.
        let candidates = |image: &Array2<f32>, weights: &Array2<f32>| {
            let fits = |step: f32| {
                image
                    .iter()
                    .all(|w| (w / step - (w / step).round()).abs() < 1e-3)
            };
            let step = scale(image);
            assert!(fits(step));
            roundings(weights, step)
        };
        let (firsts, seconds) = (
            candidates(first, &float.weights[0]),
            candidates(second, &float.weights[1]),
        );
        let pairs = firsts.iter().flat_map(|first| {
            let of = |second| error(&float.weights, [first, second], &x);
            seconds.iter().map(of)
        });
        let least = pairs.fold(f64::INFINITY, f64::min);
        assert!(reached >= least * (1.0 - 1e-4), "{reached} {least}");
        learned += reached;
        best += least;
        plain += report.blocks[0].error_before;
    }
    assert!(
        learned < 1.4 * best && learned < 0.9 * plain,
        "{learned} {best} {plain}"
    );
}

#[test]
fn the_gradients_of_the_test_block_are_those_of_finite_differences() {
    let model = Model::random(1, 3);
    let block = &model.0[0];
    let x = &samples(4)[2];
    let weights: Vec<Array2<f32>> = block.layers.iter().map(|l| l.weights.clone()).collect();
    let mut gradients: Vec<Array2<f32>> =
        weights.iter().map(|w| Array2::zeros(w.raw_dim())).collect();
    let mut ones = |y: &Array2<f32>| Array2::ones(y.raw_dim());
    let by_x = block
        .add_gradients(x, &weights, &mut ones, &mut gradients)
        .unwrap();
    let sum_of = |block: &Block, x: &Array2<f32>| {
        let y = block.forward(x, &mut Taps::none()).unwrap();
        y.iter().map(|&y| f64::from(y)).sum::<f64>()
    };
    let loss = |by: f32| {
        let mut moved = x.clone();
        moved[[1, 4]] += by;
        sum_of(block, &moved)
    };
    let slope = (loss(0.01) - loss(-0.01)) / 0.02;
    approx::assert_relative_eq!(slope, f64::from(by_x[[1, 4]]), max_relative = 0.01);
    for (layer, at) in [(0, [3, 2]), (1, [7, 11]), (2, [5, 19])] {
        let loss = |by: f32| {
            let mut moved = block.clone();
            moved.layers[layer].weights[at] += by;
            sum_of(&moved, x)
        };
        let slope = (loss(0.01) - loss(-0.01)) / 0.02;
        approx::assert_relative_eq!(
            slope,
            f64::from(gradients[layer][at]),
            max_relative = 0.01,
            epsilon = 1e-3
        );
    }
}

#[test]
fn learning_starts_from_any_method_and_ends_nearer_to_the_float_model() {
    let float = Model::random(3, 5);
    let distance = |model: &Model| -> f32 {
        let of = |x: &Array2<f32>| (model.run(x) - float.run(x)).mapv(|e| e * e).sum();
        samples(6).iter().map(of).sum()
    };
    for method in [
        "rtn",
        "rotate=1+rtn",
        "awq+mse+rtn",
        "smooth=0.2+rtn",
        "gptq",
    ] {
        let recipe = recipe(method, 3);
        let mut before = float.clone();
        ModelQuantization::new(&recipe)
            .run(&mut before, samples(6))
            .unwrap();
        let mut after = float.clone();
        let report = ModelQuantization::new(&recipe)
            .run_learning(&mut after, samples(6), LearnedRounding::default())
            .unwrap();
        assert_eq!(report.blocks.len(), 3);
        let (before, after) = (distance(&before), distance(&after));
        if method == "gptq" {
            // There is little to gain where groups are small and inputs random.
            assert!(report.blocks.iter().all(|b| b.error <= b.error_before));
            continue;
        }
        assert!(report.layers[0].method.ends_with("+block"), "{method}");
        assert!(after < 0.8 * before, "{method}: {after} {before}");
    }
}

#[test]
fn learning_has_the_same_bits_on_any_number_of_threads_and_after_an_interruption() {
    let directory = std::env::temp_dir().join(format!("lowbit-learning-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&directory); // of a run that was killed
    let recipe = recipe("gptq", 2);
    let rounding = LearnedRounding::default()
        .with_steps(12)
        .unwrap()
        .with_seed(7);
    let run = |threads: usize, stop: Option<usize>, checkpoints: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(|| {
            let mut model = Model::random(3, 7);
            let mut work = ModelQuantization::new(&recipe)
                .with_token_weights(TokenWeights::StreamShare)
                .with_progress(|progress| match progress.layer {
                    None if Some(progress.block) == stop => std::ops::ControlFlow::Break(()),
                    _ => std::ops::ControlFlow::Continue(()),
                });
            if checkpoints {
                work = work.with_checkpoints(&directory);
            }
            let outcome = work.run_learning(&mut model, samples(8), rounding);
            let layers: Vec<_> = model.quantized().into_iter().cloned().collect();
            outcome.map(|report| {
                (
                    layers,
                    report.blocks.iter().map(|b| b.error).collect::<Vec<_>>(),
                )
            })
        })
    };
    let expected = run(1, None, false).unwrap();
    assert_eq!(run(4, None, false).unwrap(), expected);
    assert!(matches!(
        run(2, Some(1), true).unwrap_err(),
        Error::Cancelled { done: 2, .. }
    ));
    assert_eq!(run(2, None, true).unwrap(), expected);
    // Files of learned blocks are not those of a run that learns nothing.
    let error = ModelQuantization::new(&recipe)
        .with_token_weights(TokenWeights::StreamShare)
        .with_checkpoints(&directory)
        .run(&mut Model::random(3, 7), samples(8))
        .unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let rounding = LearnedRounding::default();
    assert!(rounding.with_steps(0).is_err());
    assert!(rounding.with_batch(0).is_err());
    for rate in [0.0, -1.0, 1.5, f32::NAN, f32::INFINITY] {
        assert!(rounding.with_rate(rate).is_err(), "{rate}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn no_block_gets_worse(
        seed in any::<u64>(),
        bits in 1_u32..=4,
        scale in -12_i32..12,
        rate in 0.001_f32..1.0,
        method in prop::sample::select(vec!["rtn", "mse", "gptq", "rotate=3+gptaq"]),
    ) {
        let mut model = Model::random(2, seed);
        let factor = 2.0_f32.powi(scale);
        let mut inputs = samples(seed);
        inputs.iter_mut().for_each(|x| *x *= factor);
        inputs[3].row_mut(0).fill(0.0);
        inputs.push(Array2::zeros((0, HIDDEN)));
        let scheme = Scheme::int(bits).unsigned().asymmetric_float().per_group(8).build().unwrap();
        let pipeline: Pipeline = method.parse().unwrap();
        let recipe = Recipe::new().quantize("*", Treatment::new(scheme, pipeline));
        let rounding = LearnedRounding::default().with_steps(9).unwrap().with_rate(rate).unwrap();
        let report = ModelQuantization::new(&recipe)
            .run_learning(&mut model, inputs, rounding)
            .unwrap();
        for block in &report.blocks {
            prop_assert!(block.error.is_finite() && block.error <= block.error_before);
        }
        for layer in model.quantized() {
            prop_assert!(layer.image().unwrap().iter().all(|w| w.is_finite()));
        }
    }
}
