//! The language model of the examples: its backward pass against finite differences of a model that
//! is written out in f64.

#![cfg(not(target_family = "wasm"))]
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, and modules of a program, whose numbers are small"
)]

#[path = "../../examples/llama/llama.rs"]
#[allow(dead_code, reason = "programs use parts of it")]
mod llama;
mod oracle;
mod support;

use llama::{
    Block, Rest,
    decoding::{Decoder, continuations},
    loss,
    training::{AsTheyAre, Inputs, Weights},
};
use lowbit::Result;
use ndarray::Array2;
use oracle::Oracle;
use support::{Shape, claimed, tiny};

/// Head sizes below, at and above the eight that loops take at once, with and without biases.
const SHAPES: [Shape; 3] = [
    Shape {
        heads: 4,
        key_heads: 2,
        head: 8,
        hidden: 24,
        inner: 20,
        bias: false,
        tied: true,
    },
    Shape {
        heads: 3,
        key_heads: 3,
        head: 6,
        hidden: 20,
        inner: 44,
        bias: true,
        tied: false,
    },
    Shape {
        heads: 2,
        key_heads: 1,
        head: 12,
        hidden: 16,
        inner: 12,
        bias: false,
        tied: true,
    },
];
const TOKENS: [u16; 19] = [1, 3, 5, 2, 4, 4, 9, 10, 0, 7, 8, 6, 1, 1, 2, 3, 5, 8, 10];
const TARGETS: [u16; 19] = [3, 5, 2, 4, 4, 9, 10, 0, 7, 8, 6, 1, 1, 2, 3, 5, 8, 10, 6];

#[test]
fn the_forward_pass_is_that_of_the_formulas() {
    for shape in SHAPES {
        let (model, oracle) = tiny(shape);
        let logits = model.forward(&TOKENS).unwrap();
        let expected = oracle.logits(&TOKENS);
        for (x, y) in logits.iter().zip(&expected) {
            assert!((f64::from(*x) - y).abs() < 2e-5, "{x} {y}");
        }
        let mut x = model.embed(&TOKENS).unwrap();
        for block in model.layers() {
            x = block
                .trace(x, &block.float_weights().unwrap(), &AsTheyAre)
                .unwrap()
                .0;
        }
        assert_eq!(model.logits(&x), logits);
    }
}

#[test]
fn a_model_of_other_sizes_than_its_configuration_is_refused_before_it_runs() {
    let [shape, ..] = SHAPES;
    assert!(claimed(shape, shape).is_ok());
    let claims = [
        Shape { heads: 6, ..shape },
        Shape {
            key_heads: 4,
            ..shape
        },
        Shape { head: 16, ..shape },
        Shape {
            head: (1 << 31) - 2,
            ..shape
        },
        Shape {
            hidden: 20,
            ..shape
        },
        Shape { inner: 24, ..shape },
    ];
    for claim in claims {
        let error = claimed(shape, claim).unwrap_err().to_string();
        assert!(error.starts_with("shape of model."), "{claim:?}: {error}");
    }
}

/// Cross-entropy and the gradients of all weights, of the rest and of the first hidden states.
fn gradients(model: &llama::Llama, inputs: &dyn Inputs) -> (f64, Vec<Weights>, Rest, Array2<f32>) {
    let weights: Vec<Weights> = model
        .layers()
        .iter()
        .map(|b| b.float_weights().unwrap())
        .collect();
    let mut x = model.embed(&TOKENS).unwrap();
    let mut traces = Vec::new();
    for (block, weights) in model.layers().iter().zip(&weights) {
        let (y, trace) = block.trace(x, weights, inputs).unwrap();
        traces.push(trace);
        x = y;
    }
    let (loss, gradient) = loss::cross_entropy(&model.logits(&x), &TARGETS);
    let mut rest = Rest::zeros(model);
    let without = model.logits_backward(&x, &gradient, None);
    let mut gradient = model.logits_backward(&x, &gradient, Some(&mut rest));
    assert_eq!(gradient, without);
    let mut sums = Vec::new();
    let blocks = model.layers().iter().zip(&weights).zip(&traces);
    for (((block, weights), trace), norms) in blocks.zip(&mut rest.norms).rev() {
        let mut sum = weights.each_ref().map(|w| Array2::zeros(w.dim()));
        gradient = block
            .backward(trace, weights, inputs, gradient, &mut sum, Some(norms))
            .unwrap();
        sums.insert(0, sum);
    }
    model.embed_backward(&TOKENS, &gradient, &mut rest);
    (loss, sums, rest, gradient)
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for shape in SHAPES {
        let (model, oracle) = tiny(shape);
        let (loss, weights, rest, input) = gradients(&model, &AsTheyAre);
        let expected = oracle.loss(&TOKENS, &TARGETS);
        assert!(
            (loss - expected).abs() < 1e-4 * expected,
            "{loss} {expected}"
        );
        for (block, weights) in weights.iter().enumerate() {
            for (layer, gradient) in weights.iter().enumerate() {
                for at in [0, 7, gradient.len() / 2, gradient.len() - 1] {
                    let expected = oracle.slope(&TOKENS, &TARGETS, |oracle, step| {
                        oracle.blocks[block].weights[layer].as_slice_mut().unwrap()[at] += step;
                    });
                    close(gradient.as_slice().unwrap()[at], expected);
                }
            }
        }
        let rest: Vec<f32> = rest.iter().copied().collect();
        assert_eq!(rest.len(), oracle.clone().rest_mut().count());
        // Of the embedding, the head or the last norm, and the norms of the blocks.
        for at in (0..rest.len()).step_by(7) {
            let expected = oracle.slope(&TOKENS, &TARGETS, |oracle, step| {
                *oracle.rest_mut().nth(at).unwrap() += step;
            });
            close(rest[at], expected);
        }
        for at in [0, 5, input.len() / 2, input.len() - 1] {
            let expected = oracle.slope(&TOKENS, &TARGETS, |oracle, step| {
                oracle.shift[at] += step;
            });
            close(input.as_slice().unwrap()[at], expected);
        }
    }
}

fn close(got: f32, expected: f64) {
    let error = (f64::from(got) - expected).abs();
    assert!(
        error < 2e-4 * (0.05 + expected.abs()),
        "got {got}, expected {expected}"
    );
}

/// Inputs of layers doubled, as a stand-in for what quantizes them.
#[derive(Debug)]
struct Doubled;

impl Inputs for Doubled {
    fn forward(&self, _: usize, x: &Array2<f32>) -> Result<Option<Array2<f32>>> {
        Ok(Some(2.0 * x))
    }

    fn backward(&self, _: usize, _: &Array2<f32>, gradient: Array2<f32>) -> Result<Array2<f32>> {
        Ok(2.0 * gradient)
    }
}

#[test]
fn what_is_done_to_inputs_is_seen_by_layers_and_gradients() {
    let (model, mut oracle) = tiny(SHAPES[0]);
    for weights in oracle
        .blocks
        .iter_mut()
        .flat_map(|block| &mut block.weights)
    {
        *weights *= 2.0;
    }
    let (loss, weights, _, input) = gradients(&model, &Doubled);
    assert!((loss - oracle.loss(&TOKENS, &TARGETS)).abs() < 1e-4 * loss);
    let at = |oracle: &mut Oracle, step| oracle.blocks[1].weights[6][[3, 4]] += 2.0 * step;
    close(weights[1][6][[3, 4]], oracle.slope(&TOKENS, &TARGETS, at));
    let at = |oracle: &mut Oracle, step| oracle.shift[30] += step;
    close(
        input.as_slice().unwrap()[30],
        oracle.slope(&TOKENS, &TARGETS, at),
    );
}

#[test]
fn the_divergence_is_zero_at_the_teacher_and_has_its_slope_elsewhere() {
    let wave =
        |k: f32| Array2::from_shape_fn((3, 21), |(i, j)| ((i * 21 + j) as f32 * k).sin() * 3.0);
    let (logits, teacher) = (wave(0.7), wave(1.3));
    let (loss, gradient) = loss::divergence(&logits, &teacher);
    let expected = oracle::divergence(&logits.mapv(f64::from), &teacher.mapv(f64::from));
    assert!(
        (loss - expected).abs() < 1e-5 * expected,
        "{loss} {expected}"
    );
    for at in [[0, 0], [1, 16], [2, 20]] {
        let moved = |step: f64| {
            let mut logits = logits.mapv(f64::from);
            logits[at] += step;
            oracle::divergence(&logits, &teacher.mapv(f64::from))
        };
        close(gradient[at], (moved(1e-5) - moved(-1e-5)) / 2e-5);
    }
    let (loss, gradient) = loss::divergence(&teacher, &teacher);
    assert!(loss.abs() < 1e-5 && gradient.iter().all(|g| g.abs() < 1e-6));
}

#[test]
fn texts_are_written_by_the_same_model_that_reads_them() {
    for shape in SHAPES {
        let (model, _) = tiny(shape);
        // Longer than the lines that keys and values begin with.
        let texts = [TOKENS, TARGETS].map(|text| text.repeat(8));
        let mut decoder = Decoder::new(&model, 2);
        let expected = texts.each_ref().map(|text| model.forward(text).unwrap());
        for position in 0..texts[0].len() {
            let logits = decoder
                .step(&texts.each_ref().map(|text| text[position]))
                .unwrap();
            for (logits, expected) in logits.rows().into_iter().zip(&expected) {
                let differences = &logits - &expected.row(position);
                assert!(differences.iter().all(|d| d.abs() < 1e-4), "{differences}");
            }
        }
        // Beginnings stay, a text ends before the token that ends it, and others go on.
        let beginnings: [&[u16]; 2] = [&TOKENS[..6], &TOKENS[..3]];
        let written =
            continuations(&model, &beginnings, 15, |token| token == 4, |_| 0.999).unwrap();
        assert_eq!(written[0], TOKENS[..4]);
        assert_eq!(written[1][..3], TOKENS[..3]);
        assert!(written[1].len() <= 15 && !written[1].contains(&4));
    }
}

#[test]
fn a_nan_is_seen_in_what_comes_after_it() {
    let (model, _) = tiny(SHAPES[0]);
    let block: &Block = &model.layers()[0];
    let mut x = model.embed(&TOKENS).unwrap();
    x[[4, 3]] = f32::NAN;
    let y = block
        .trace(x, &block.float_weights().unwrap(), &AsTheyAre)
        .unwrap()
        .0;
    // Before it, too, where it meets a weight of zero.
    for row in y.rows().into_iter().skip(4) {
        assert!(row.iter().all(|y| y.is_nan()));
    }
}
