//! A training loop as candle has it.

use std::f64::consts::PI;

use candle_core::{Device, Module, Result, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW, loss::cross_entropy};

use crate::{
    digits::{Digits, Random},
    network::Network,
};

const BATCH: usize = 32;

/// How long and how fast to train.
pub struct Training {
    pub epochs: usize,
    pub rate: f64,
    /// The rate of what quantizers learn: logarithms of step sizes.
    pub quantizer_rate: f64,
}

impl Training {
    /// Minimizes cross-entropy, the rates falling as a cosine. Step sizes do not decay.
    pub fn run(
        &self,
        network: &Network,
        data: &Digits,
        random: &mut Random,
        after_epoch: impl Fn(),
    ) -> Result<()> {
        let (weights, quantizers) = variables(network);
        let mut weights = AdamW::new(weights, ParamsAdamW::default())?;
        let no_decay = ParamsAdamW {
            weight_decay: 0.0,
            ..Default::default()
        };
        let mut quantizers = AdamW::new(quantizers, no_decay)?;
        let steps = (self.epochs * data.len().div_ceil(BATCH)) as f64;
        let mut step = 0.0;
        for _ in 0..self.epochs {
            for rows in random.shuffled(data.len()).chunks(BATCH) {
                let fall = 0.5 * (1.0 + (PI * step / steps).cos());
                step += 1.0;
                weights.set_learning_rate(self.rate * fall);
                quantizers.set_learning_rate(self.quantizer_rate * fall);
                let batch = data.select(rows);
                let loss = cross_entropy(&network.forward(&images(&batch)?)?, &labels(&batch)?)?;
                let gradients = loss.backward()?;
                weights.step(&gradients)?;
                quantizers.step(&gradients)?;
            }
            after_epoch();
        }
        Ok(())
    }
}

/// Weights and biases, and what quantizers learn.
fn variables(network: &Network) -> (Vec<Var>, Vec<Var>) {
    let data = network.variables.data().lock().expect("no thread panics");
    let (quantizers, weights): (Vec<_>, Vec<_>) = data
        .iter()
        .partition(|(name, _)| name.ends_with("quantizer"));
    let only = |pairs: Vec<(&String, &Var)>| pairs.into_iter().map(|(_, v)| v.clone()).collect();
    (only(weights), only(quantizers))
}

/// `[images, 1, 8, 8]`.
pub fn images(digits: &Digits) -> Result<Tensor> {
    let pixels: Vec<f32> = digits.images.iter().copied().collect();
    Tensor::from_vec(pixels, (digits.len(), 1, 8, 8), &Device::Cpu)
}

fn labels(digits: &Digits) -> Result<Tensor> {
    let labels = digits.labels.iter().map(|&label| label as i64);
    Tensor::from_vec(labels.collect(), digits.len(), &Device::Cpu)
}
