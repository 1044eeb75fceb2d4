//! Cancellation, checkpoints, and going on.

use std::{ops::ControlFlow, path::PathBuf};

use lowbit::{
    Error,
    flow::{ModelQuantization, QuantizedLayer},
};

use super::support::{Model, recipe, samples};

/// A directory that is removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lowbit-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path); // of a run that was killed
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0); // left behind at worst
    }
}

fn layers(model: &Model) -> Vec<QuantizedLayer> {
    model.quantized().into_iter().cloned().collect()
}

#[test]
fn a_callback_stops_the_work() {
    let mut seen = Vec::new();
    let mut model = Model::random(3, 1);
    let recipe = recipe("gptq", 3);
    let error = ModelQuantization::new(&recipe)
        .with_progress(|progress| {
            seen.push((
                progress.block,
                progress.layer.map(|layer| layer.layer.clone()),
            ));
            match progress.layer {
                Some(layer) if layer.layer == "blocks.1.up" => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .run(&mut model, samples(2))
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Cancelled {
            done: 1,
            total: 3,
            ..
        }
    ));
    assert_eq!(seen.len(), 6);
    assert_eq!(seen[3], (0, None));
    // What was finished is in place; what was begun is not.
    assert_eq!(layers(&model).len(), 3);
}

#[test]
fn a_run_that_goes_on_ends_with_the_bytes_of_one_that_was_not_interrupted() {
    let directory = Directory::new("resume");
    for method in ["gptq", "best", "rotate=1+gptq"] {
        let recipe = recipe(method, 3);
        let mut whole = Model::random(4, 5);
        let expected = ModelQuantization::new(&recipe)
            .run(&mut whole, samples(6))
            .unwrap();

        let place = directory.0.join(method);
        for stop in ["blocks.1.gate", "blocks.3.down", "never"] {
            let mut model = Model::random(4, 5);
            let outcome = ModelQuantization::new(&recipe)
                .with_checkpoints(&place)
                .with_progress(|progress| match progress.layer {
                    Some(layer) if layer.layer == stop => ControlFlow::Break(()),
                    _ => ControlFlow::Continue(()),
                })
                .run(&mut model, samples(6));
            assert_eq!(outcome.is_ok(), stop == "never");
            if let Ok(mut report) = outcome {
                assert_eq!(layers(&model), layers(&whole), "{method}");
                for (layer, expected) in report.layers.iter_mut().zip(&expected.layers) {
                    layer.seconds = expected.seconds;
                }
                assert_eq!(report, expected);
            }
        }
        let files = std::fs::read_dir(&place).unwrap();
        assert_eq!(files.count(), 4, "one file a block, and nothing aside");
    }
}

#[test]
fn checkpoints_of_something_else_are_refused() {
    let directory = Directory::new("mismatch");
    let run = |method: &str, model: u64, data: u64| {
        let recipe = recipe(method, 4);
        ModelQuantization::new(&recipe)
            .with_checkpoints(&directory.0)
            .run(&mut Model::random(1, model), samples(data))
    };
    run("rtn", 1, 2).unwrap();
    run("rtn", 1, 2).unwrap();
    for (method, model, data) in [("mse", 1, 2), ("rtn", 3, 2), ("rtn", 1, 4)] {
        let error = run(method, model, data).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Mismatch {
                    what: "checkpoint",
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn damaged_checkpoints_are_refused_and_never_believed() {
    let directory = Directory::new("damage");
    let recipe = recipe("rtn", 4);
    let run = || {
        ModelQuantization::new(&recipe)
            .with_checkpoints(&directory.0)
            .run(&mut Model::random(1, 1), samples(2))
    };
    run().unwrap();
    let path = directory.0.join("block-00000.json");
    let whole = std::fs::read(&path).unwrap();
    for length in (0..whole.len()).step_by(97) {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = run().unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{length}: {error}");
    }
    for place in (0..whole.len()).step_by(13) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1; // a digit becomes another
        std::fs::write(&path, &bytes).unwrap();
        let error = run().unwrap_err();
        let typed = matches!(error, Error::Format { .. } | Error::Mismatch { .. });
        assert!(typed, "{place}: {error}");
    }
    let content = whole.iter().position(|&byte| byte == b'\n').unwrap();
    std::fs::write(&path, &whole[content + 1..]).unwrap();
    assert!(matches!(run().unwrap_err(), Error::Format { .. }));
    std::fs::write(&path, &whole).unwrap();
    run().unwrap();
}

#[test]
fn a_checkpoint_that_follows_a_block_with_other_weights_is_refused() {
    let directory = Directory::new("stale");
    let recipe = recipe("gptq", 4);
    let run = |model: &mut Model| {
        ModelQuantization::new(&recipe)
            .with_checkpoints(&directory.0)
            .run(model, samples(2))
    };
    run(&mut Model::random(2, 1)).unwrap();
    // Its inputs are others, though its own weights and the first samples are not.
    let mut other = Model::random(2, 1);
    other.0[0].layers[0].weights[[0, 0]] += 0.5;
    std::fs::remove_file(directory.0.join("block-00000.json")).unwrap();
    let error = run(&mut other).unwrap_err();
    assert!(matches!(error, Error::Mismatch { .. }), "{error}");
}
