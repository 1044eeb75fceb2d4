//! Quantization-aware training in burn, on real handwritten digits.
//!
//! ```text
//! cargo run --release --manifest-path examples/qat_burn/Cargo.toml
//! ```
//!
//! Trains a small convolutional network with burn and its AdamW, then goes on training it with its
//! weights at 4 and 2 bits and its activations at 8, step sizes in the same optimizer; converts it to
//! packed integers, and prints the accuracy of each on images that took part in no choice.

#[path = "../../quickstart/digits.rs"]
#[allow(dead_code, reason = "the optimizer is burn's here")]
mod digits;
mod network;
#[path = "../../qat_candle/packed.rs"]
mod packed;
#[path = "../../quickstart/progress.rs"]
mod progress;
mod training;

use std::error::Error;

use burn::{module::Module, tensor::Device};
use digits::{Digits, Random};
use network::{Classifier, Float, Quantized};
use progress::Progress;
use training::{Training, images};

const FLOAT: Training = Training {
    epochs: 20,
    rate: 5e-3,
    quantizer_rate: 1.0, // of nothing
};

const QAT: Training = Training {
    epochs: 10,
    rate: 2e-3,
    quantizer_rate: 1e-2,
};

fn main() -> Result<(), Box<dyn Error>> {
    let device = Device::flex().autodiff();
    device.seed(2024);
    let all = Digits::load();
    let mut random = Random(2024);
    let order = random.shuffled(all.len());
    let (train, test) = (all.select(&order[..1200]), all.select(&order[1200..]));
    let calibration = images(&train.select(&(0..256).collect::<Vec<_>>()), &device);
    let test_images = images(&test, &Device::flex());

    let progress = Progress::new(FLOAT.epochs + 2 * QAT.epochs);
    let float = Float::new(&device);
    let float = FLOAT.run(float, &train, &mut random, || progress.step("floats"))?;
    let in_floats = accuracy(&float.valid().predict(test_images.clone())?, &test.labels);

    let mut lines = vec![];
    for bits in [4, 2] {
        // From the float network's weights, with step sizes of least squared error.
        let network = Quantized::new(&float, bits, calibration.clone())?;
        let rounded = accuracy(&network.valid().predict(test_images.clone())?, &test.labels);
        let network = QAT.run(network, &train, &mut random, || {
            progress.step(&format!("{bits}-bit weights"));
        })?;
        let simulated = network.valid().predict(test_images.clone())?;
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
