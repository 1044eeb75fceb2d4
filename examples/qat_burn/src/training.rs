//! A training loop as burn has it.

use std::error::Error;

use burn::{
    lr_scheduler::{
        cosine::CosineAnnealingLrSchedulerConfig, module_lr_scheduler::ModuleLrSchedulerConfig,
    },
    module::ParamGroup,
    nn::loss::CrossEntropyLossConfig,
    optim::{AdamWConfig, GradientsParams, ModuleOptimizer},
    tensor::{Device, Int, Tensor, TensorData},
};

use crate::{
    digits::{Digits, Random},
    network::Classifier,
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
    /// The network after minimizing cross-entropy, the rates falling as a cosine. Step sizes do not
    /// decay.
    pub fn run<C: Classifier>(
        &self,
        mut network: C,
        data: &Digits,
        random: &mut Random,
        after_epoch: impl Fn(),
    ) -> Result<C, Box<dyn Error>> {
        let device = Device::flex().autodiff();
        let quantizers = ParamGroup::from_predicate("fake.parameters");
        let weights = AdamWConfig::new().with_weight_decay(0.01);
        let no_decay = AdamWConfig::new().with_weight_decay(0.0);
        let mut optimizer = ModuleOptimizer::from(weights.build()).with_group(
            quantizers.clone(),
            no_decay.build(),
            None,
        );
        let steps = self.epochs * data.len().div_ceil(BATCH);
        let cosine = |rate| CosineAnnealingLrSchedulerConfig::new(rate, steps);
        let mut rates = ModuleLrSchedulerConfig::new(cosine(self.rate).into())
            .with_group(quantizers, cosine(self.quantizer_rate))
            .init()?;
        let loss = CrossEntropyLossConfig::new().init(&device);
        for _ in 0..self.epochs {
            for rows in random.shuffled(data.len()).chunks(BATCH) {
                let batch = data.select(rows);
                let logits = network.forward(images(&batch, &device))?;
                let loss = loss.forward(logits, labels(&batch, &device));
                let gradients = GradientsParams::from_grads(loss.backward(), &network);
                network = optimizer.step(rates.step(), network, gradients);
            }
            after_epoch();
        }
        Ok(network)
    }
}

/// `[images, 1, 8, 8]`.
pub fn images(digits: &Digits, device: &Device) -> Tensor<4> {
    let pixels: Vec<f32> = digits.images.iter().copied().collect();
    Tensor::from_data(TensorData::new(pixels, [digits.len(), 1, 8, 8]), device)
}

fn labels(digits: &Digits, device: &Device) -> Tensor<1, Int> {
    let labels: Vec<i64> = digits.labels.iter().map(|&label| label as i64).collect();
    Tensor::from_data(TensorData::new(labels, [digits.len()]), device)
}
