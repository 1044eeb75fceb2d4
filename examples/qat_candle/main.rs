//! Quantization-aware training in candle, on real handwritten digits.
//!
//! ```text
//! cargo run --release --features candle --example qat_candle
//! ```
//!
//! Trains a small convolutional network with candle and its AdamW, then goes on training it with its
//! weights at 4 and 2 bits and its activations at 8, step sizes in the same optimizer; converts it to
//! packed integers, and prints the accuracy of each on images that took part in no choice. Takes some
//! seconds on two cores.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a program: its modules are its own, and its numbers small"
)]

#[path = "../quickstart/digits.rs"]
#[allow(dead_code, reason = "the optimizer is candle's here")]
mod digits;
mod network;
mod packed;
#[path = "../quickstart/progress.rs"]
mod progress;
mod training;

use std::error::Error;

use digits::{Digits, Random};
use network::{Bits, Network};
use progress::Progress;
use training::{Training, images};

const FLOAT: Training = Training {
    epochs: 20,
    rate: 5e-3,
    quantizer_rate: 0.0,
};

const QAT: Training = Training {
    epochs: 10,
    rate: 2e-3,
    quantizer_rate: 1e-2,
};

fn main() -> Result<(), Box<dyn Error>> {
    let all = Digits::load();
    let mut random = Random(2024);
    let order = random.shuffled(all.len());
    let (train, test) = (all.select(&order[..1200]), all.select(&order[1200..]));
    let calibration = images(&train.select(&(0..256).collect::<Vec<_>>()))?;

    let progress = Progress::new(FLOAT.epochs + 2 * QAT.epochs);
    let float = Network::random(&mut random)?;
    FLOAT.run(&float, &train, &mut random, || progress.step("floats"))?;
    let in_floats = accuracy(&float.predict(&images(&test)?)?, &test.labels);

    let mut lines = vec![];
    for bits in [4, 2] {
        // From the float network's weights, with step sizes of least squared error.
        let network = float.quantized(Bits(bits), &calibration)?;
        let rounded = accuracy(&network.predict(&images(&test)?)?, &test.labels);
        QAT.run(&network, &train, &mut random, || {
            progress.step(&format!("{bits}-bit weights"));
        })?;
        let simulated = network.predict(&images(&test)?)?;
        let integer = network.pack()?;
        let packed = integer.predict(&test.images)?;
        let differ = simulated.iter().zip(&packed).filter(|(a, b)| a != b);
        lines.push(format!(
            "{bits:>4} {:>7} {rounded:>10.1} {:>10.1} {:>8.1} {:>8}",
            integer.bytes,
            accuracy(&simulated, &test.labels),
            accuracy(&packed, &test.labels),
            differ.count(),
        ));
    }
    progress.done();

    println!("Accuracy in percent on {} test images\n", test.len());
    println!("in floats: {in_floats:.1}\n");
    println!("                               trained           packed ≠");
    println!("bits   bytes    rounded  simulated   packed simulated");
    lines.iter().for_each(|line| println!("{line}"));
    Ok(())
}

/// In percent.
fn accuracy(predicted: &[usize], labels: &[usize]) -> f64 {
    let right = predicted.iter().zip(labels).filter(|(p, l)| p == l).count();
    100.0 * right as f64 / labels.len() as f64
}
