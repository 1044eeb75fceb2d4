//! What quantization costs, and what training wins back, on real handwritten digits.
//!
//! ```text
//! cargo run --release --example quickstart
//! ```
//!
//! Trains a small convolutional network, then for each bit width: quantizes it by rounding to
//! nearest, by rounding over ranges with the least squared error, and by training with the
//! quantizers in place. Every result is packed and run as integers. The table shows the accuracy on
//! images that took part in no choice, averaged over three seeds with their spread; a picture goes
//! to `quickstart.svg`.
//!
//! This file is the tutorial: read it from top to bottom. `network.rs` is a float network whose
//! layers know how to be fake quantized, `packed.rs` the same as integers, `digits.rs` the data and
//! the optimizer.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a program: its modules are its own, and its numbers small"
)]

mod digits;
mod network;
mod packed;
mod picture;
mod progress;
mod spread;
mod table;

use lowbit::{
    Result, RoundToNearest, Scheme,
    calibrate::{FullRange, MeanSquaredError},
    flow::{Calibration, Site},
    prelude::*,
    qat::{LearnedFakeQuant, Lsq, StepSize},
};
use ndarray::{Array2, s};
use rayon::prelude::*;

use digits::{Digits, Random};
use network::{Fake, Layer, Network, Training};
use packed::PackedNetwork;
use progress::Progress;
use spread::accuracy;
use table::{Outcome, Row};

const SEEDS: u64 = 3;

/// Bits of weights and of activations.
const BITS: [(u32, u32); 8] = [
    (8, 8),
    (4, 8),
    (3, 8),
    (2, 8),
    (8, 4),
    (4, 4),
    (3, 4),
    (2, 4),
];

fn main() -> Result<()> {
    // The data: 1,200 images to train on, of which 256 also calibrate, and 597 to test on.
    let all = Digits::load();
    let order = Random(2024).shuffled(all.len());
    let (train, test) = (all.select(&order[..1200]), all.select(&order[1200..]));
    let calibration = train.images.slice(s![..256, ..]).to_owned();

    let progress = Progress::new(SEEDS as usize * (2 + BITS.len()));
    let runs = (0..SEEDS)
        .into_par_iter()
        .map(|seed| -> Result<Vec<Row>> {
            // The trained float network, and as a control the same one trained on as long as QAT is.
            let mut random = Random(1000 + seed);
            let float = Network::new(&mut random).train(&train, &Training::FLOAT, &mut random)?;
            progress.step("float network trained");
            let control = float
                .clone()
                .train(&train, &Training::QAT, &mut Random(5000 + seed))?;
            progress.step("float network trained on, as a control");
            let mut rows = vec![
                Row::float("float", &float, &test)?,
                Row::float("float, trained on", &control, &test)?,
            ];
            let quantized = BITS
                .par_iter()
                .map(|&(weights, activations)| {
                    let row = compare(
                        &float,
                        weights,
                        activations,
                        seed,
                        &train,
                        &calibration,
                        &test,
                    );
                    progress.step(&format!("W{weights}A{activations} done"));
                    row
                })
                .collect::<Result<Vec<Row>>>()?;
            rows.extend(quantized);
            Ok(rows)
        })
        .collect::<Result<Vec<_>>>()?;
    progress.done();

    let rows = table::average(&runs);
    print!("{}", table::render(&rows, test.len()));
    match picture::draw("quickstart.svg", &rows) {
        Ok(()) => println!("\nThe same as a picture: quickstart.svg"),
        Err(error) => println!("\nquickstart.svg could not be written: {error}"),
    }
    Ok(())
}

/// One line of the table: a bit width, quantized in three ways.
fn compare(
    float: &Network,
    weight_bits: u32,
    activation_bits: u32,
    seed: u64,
    train: &Digits,
    calibration: &Array2<f32>,
    test: &Digits,
) -> Result<Row> {
    // Weights [out, in] are symmetric with a scale for each output channel; activations have one
    // range and an integer zero point, so that the padding's 0 is exact.
    let weights = Scheme::int(weight_bits).symmetric().per_axis(0).build()?;
    let activations = Scheme::int(activation_bits)
        .unsigned()
        .asymmetric()
        .build()?;

    // PTQ: codes over the full range of what was seen, or over the range of least squared error.
    let nearest = post_training(float, weights, activations, FullRange, calibration)?;
    let least_squares = MeanSquaredError::default();
    let searched = post_training(float, weights, activations, least_squares, calibration)?;

    // QAT: goes on training from there, with the quantizers in the network.
    let trained = searched
        .clone()
        .train(train, &Training::QAT, &mut Random(5000 + seed))?;

    Ok(Row {
        name: format!("W{weight_bits}A{activation_bits}"),
        outcomes: [nearest, searched, trained]
            .iter()
            .map(|network| measure(network, test))
            .collect::<Result<_>>()?,
    })
}

/// The network with quantizers in every layer, from what the float network does on calibration
/// images.
fn post_training(
    float: &Network,
    weights: Scheme,
    activations: Scheme,
    calibrator: impl Calibrator + Clone + 'static,
    calibration: &Array2<f32>,
) -> Result<Network> {
    // A calibration session: the model runs and taps named sites.
    let session = Calibration::new(Site::new(activations)?.with_calibrator(calibrator.clone()));
    for batch in calibration.axis_chunks_iter(ndarray::Axis(0), 64) {
        for (index, tape) in float.forward(&batch.to_owned())?.iter().enumerate() {
            session.tap(&format!("layer{index}.input"), &tape.input)?;
        }
    }
    let sites = session.finish()?;

    // Weights need no session: they are at hand.
    let quantizer = RoundToNearest::new(weights).with_calibrator(calibrator);
    let layer = |(index, layer): (usize, &Layer<_>)| {
        let quantized = quantizer.quantize(&layer.weights)?;
        let input = sites.affine(&format!("layer{index}.input"))?;
        Ok(layer.with(Fake {
            weights: LearnedFakeQuant::new(quantized.affine(), StepSize, Lsq)?,
            input: LearnedFakeQuant::new(input.clone(), StepSize, Lsq)?,
        }))
    };
    let layers = float.0.iter().enumerate().map(layer);
    Ok(Network(layers.collect::<Result<_>>()?))
}

/// Accuracy of the simulated and of the packed network, and on how many images the two agree.
fn measure(network: &Network, test: &Digits) -> Result<Outcome> {
    let simulated = network.predict(&test.images)?;
    let integer = PackedNetwork::new(network)?;
    let packed = integer.predict(&test.images)?;
    let agree = simulated
        .iter()
        .zip(&packed)
        .filter(|(s, p)| s == p)
        .count();
    Ok(Outcome {
        bytes: integer.bytes,
        simulated: accuracy(&simulated, &test.labels),
        packed: accuracy(&packed, &test.labels),
        disagree: test.len() - agree,
    })
}
