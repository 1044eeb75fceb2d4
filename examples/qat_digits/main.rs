//! Every estimator and stabiliser of training, side by side, on real handwritten digits.
//!
//! ```text
//! cargo run --release --example qat_digits
//! ```
//!
//! Trains a small convolutional network in floats, then goes on training it with its weights at 4, 3
//! and 2 bits and ternary by each method of the crate; with its activations at 4, 3 and 2 bits; and
//! with oscillating weights dampened or frozen. Tables show mean and standard deviation of the
//! accuracy over three seeds, on images that took part in no choice; a picture goes to
//! `qat_digits.svg`. The network is that of the `quickstart` example, which explains it.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a program: its modules are its own, and its numbers small"
)]

#[path = "../quickstart/digits.rs"]
mod digits;
mod methods;
#[path = "../quickstart/network.rs"]
mod network;
#[path = "../quickstart/packed.rs"]
mod packed;
mod picture;
#[path = "../quickstart/progress.rs"]
mod progress;
#[path = "../quickstart/spread.rs"]
mod spread;
mod stabilised;
mod tables;

use lowbit::{
    Affine, Result,
    calibrate::{MeanSquaredError, ranges_of},
    prelude::*,
};
use ndarray::{Array2, s};
use rayon::prelude::*;

use digits::{Digits, Random};
use methods::{ActivationMethod, Bits, WeightMethod};
use network::{Fake, Network, Steps, Training};
use packed::PackedNetwork;
use progress::Progress;
use spread::accuracy;
use stabilised::{Stabiliser, Stability};

const SEEDS: u64 = 3;

/// Longer, and at rates that stay high, so that weights go on oscillating.
const RESTLESS: Training = Training {
    epochs: 20,
    last: 0.3,
    ..Training::QAT
};

/// A network whose quantizers are of any kind.
type Quantized = Network<Box<dyn FakeQuant>>;

/// One training to be done.
#[derive(Clone, Copy)]
enum Job {
    Weights(WeightMethod, Bits),
    Activations(ActivationMethod, u32),
    Stabilised(Stabiliser, Bits),
}

/// What came of it.
#[derive(Clone, Default)]
struct Outcome {
    /// In percent.
    accuracy: f64,
    /// Test images on which the packed network says something else, and its bytes; none if it cannot
    /// be packed.
    packed: Option<(usize, usize)>,
    stability: Option<Stability>,
}

/// What all jobs of a seed share.
struct Setting<'a> {
    seed: u64,
    float: Quantized,
    train: &'a Digits,
    test: &'a Digits,
    calibration: &'a Array2<f32>,
}

fn main() -> Result<()> {
    let all = Digits::load();
    let order = Random(2024).shuffled(all.len());
    let (train, test) = (all.select(&order[..1200]), all.select(&order[1200..]));
    let calibration = train.images.slice(s![..256, ..]).to_owned();

    let jobs = jobs();
    let progress = Progress::new(SEEDS as usize * (jobs.len() + 1));
    let runs = (0..SEEDS)
        .into_par_iter()
        .map(|seed| -> Result<(f64, Vec<Option<Outcome>>)> {
            let mut random = Random(1000 + seed);
            let setting = Setting {
                seed,
                float: Network::new(&mut random).train(&train, &Training::FLOAT, &mut random)?,
                train: &train,
                test: &test,
                calibration: &calibration,
            };
            let float = accuracy(&setting.float.predict(&test.images)?, &test.labels);
            progress.step("float network trained");
            let outcomes = jobs.par_iter().map(|job| {
                let outcome = job.run(&setting);
                progress.step(&job.name());
                outcome
            });
            Ok((float, outcomes.collect::<Result<_>>()?))
        })
        .collect::<Result<Vec<_>>>()?;
    progress.done();

    let results = tables::Results::new(&jobs, &runs);
    print!("{}", results.render(test.len()));
    match picture::draw("qat_digits.svg", &results) {
        Ok(()) => println!("\nThe same as a picture: qat_digits.svg"),
        Err(error) => println!("\nqat_digits.svg could not be written: {error}"),
    }
    Ok(())
}

/// Tells every quantizer which step it is: proximal maps go by it.
struct Clock(u64);

impl<F: FakeQuant> Steps<F> for Clock {
    fn begin(&mut self, network: &mut Network<F>) -> Result<()> {
        for fake in network.0.iter_mut().filter_map(|layer| layer.fake.as_mut()) {
            fake.weights.begin_step(self.0);
        }
        self.0 += 1;
        Ok(())
    }
}

fn jobs() -> Vec<Job> {
    let weights = WeightMethod::ALL
        .iter()
        .flat_map(|&method| Bits::ALL.map(|bits| Job::Weights(method, bits)));
    let activations = ActivationMethod::ALL
        .iter()
        .flat_map(|&method| [4, 3, 2].map(|bits| Job::Activations(method, bits)));
    let low = [Bits::Three, Bits::Two, Bits::Ternary];
    let stabilised = Stabiliser::ALL
        .iter()
        .flat_map(|&stabiliser| low.map(|bits| Job::Stabilised(stabiliser, bits)));
    weights.chain(activations).chain(stabilised).collect()
}

impl Job {
    fn name(&self) -> String {
        match self {
            Self::Weights(method, bits) => format!("{} at {}", method.name(), bits.name()),
            Self::Activations(method, bits) => format!("{}, activations at {bits}", method.name()),
            Self::Stabilised(stabiliser, bits) => {
                format!("{} at {}", stabiliser.name(), bits.name())
            }
        }
    }

    /// None where the method has no such bits.
    fn run(&self, setting: &Setting<'_>) -> Result<Option<Outcome>> {
        let training = match self {
            Self::Stabilised(..) => RESTLESS,
            _ => Training::QAT,
        };
        let steps = (training.epochs * setting.train.len().div_ceil(32)) as u64;
        let (weights, bits, activations, activation_bits) = match *self {
            Self::Weights(method, bits) => (method, bits, ActivationMethod::Lsq, 8),
            Self::Activations(method, bits) => (WeightMethod::Lsq, Bits::Four, method, bits),
            Self::Stabilised(_, bits) => (WeightMethod::Lsq, bits, ActivationMethod::Lsq, 8),
        };
        if !weights.has(bits) {
            return Ok(None);
        }
        let mut layers = vec![];
        let tapes = setting.float.forward(setting.calibration)?;
        for (index, (layer, tape)) in setting.float.0.iter().zip(&tapes).enumerate() {
            // Images go below zero, and stay at 8 bits; what comes after a ReLU does not.
            let (method, bits) = match index {
                0 => (ActivationMethod::Lsq, 8),
                _ => (activations, activation_bits),
            };
            let scheme = method.scheme(bits, index == 0)?;
            let ranges = ranges_of(&MeanSquaredError::default(), &tape.input, &scheme, None)?;
            let start = Affine::from_ranges(&scheme, &ranges)?;
            layers.push(layer.with(Fake {
                weights: weights.fake(&layer.weights, self.weight_bits(), steps)?,
                input: method.fake(start)?,
            }));
        }
        let mut network = Network(layers);
        let mut random = Random(5000 + setting.seed);
        let mut stability = None;
        if let Self::Stabilised(stabiliser, _) = *self {
            let mut steps = stabiliser.steps(&network, steps, setting.test)?;
            network = network.train_with(setting.train, &training, &mut random, &mut steps)?;
            stability = Some(steps.stability());
        } else if weights.trains() {
            let mut clock = Clock(0);
            network = network.train_with(setting.train, &training, &mut random, &mut clock)?;
            // Done: whatever hardens with the steps is hard.
            clock.begin(&mut network)?;
        }
        let predicted = network.predict(&setting.test.images)?;
        let packed = if activations.packs() {
            let packed = PackedNetwork::new(&network)?;
            let answers = packed.predict(&setting.test.images)?;
            let disagree = predicted.iter().zip(&answers).filter(|(a, b)| a != b);
            Some((disagree.count(), packed.bytes))
        } else {
            None
        };
        Ok(Some(Outcome {
            accuracy: accuracy(&predicted, &setting.test.labels),
            packed,
            stability,
        }))
    }

    fn weight_bits(&self) -> Bits {
        match *self {
            Self::Weights(_, bits) | Self::Stabilised(_, bits) => bits,
            Self::Activations(..) => Bits::Four,
        }
    }
}
