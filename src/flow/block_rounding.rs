//! Rounding learned a block at a time: by the error of the block's outputs.

mod layers;
mod loss;
mod order;

use std::time::Instant;

use super::{
    BlockReport, DifferentiableBlock,
    block_work::{BlockWork, Hidden, Settings, through},
};
use crate::error::{Error, Result};
use layers::Layers;
use loss::Loss;
use order::Order;

/// Learns the rounding of all layers of a block together, after each was quantized by its own
/// method, so that the block's outputs come near those of the float model: SignRound as its paper
/// has it (Cheng et al. 2023, arXiv:2309.05516; AutoRound), by signed gradient descent over offsets
/// of the rounding and factors of the ranges ([`RoundingLearner`](crate::ptq::RoundingLearner)).
///
/// The block runs on what the quantized blocks before it produce, and is compared with the float
/// block on what float blocks produce, so that it also makes up for the blocks before. Where tokens
/// have [`TokenWeights`](super::TokenWeights), so have the rows of the outputs.
///
/// **Never worse.** Once in each pass over the samples the block is put together, packed layers and
/// quantized inputs and all, and its error taken over all samples; the best state is kept, the one
/// from before among them. (The published program goes by the loss of the batch at hand.)
///
/// **Memory**, beside that of [`ModelQuantization`](super::ModelQuantization): the outputs of all
/// samples; the weights of the block twelve times, and once more for each sample of a batch.
///
/// Layers whose codes are not integers keep theirs, and inputs count as floats while rounding is
/// learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockRounding {
    steps: u16,
    batch: u16,
    rate: Option<f32>,
    seed: u64,
}

impl Default for BlockRounding {
    /// The published settings: 200 steps of 8 samples, with a rate of 1/200 to begin with that falls
    /// linearly to 0.
    fn default() -> Self {
        Self {
            steps: 200,
            batch: 8,
            rate: None,
            seed: 0,
        }
    }
}

impl BlockRounding {
    /// Another number of steps; unless the rate is set, it is one over them to begin with.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for none.
    pub fn with_steps(mut self, steps: u16) -> Result<Self> {
        if steps == 0 {
            return Err(Error::option("steps", "at least 1", steps));
        }
        self.steps = steps;
        Ok(self)
    }

    /// Another number of samples for each step.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for none.
    pub fn with_batch(mut self, samples: u16) -> Result<Self> {
        if samples == 0 {
            return Err(Error::option("samples of a batch", "at least 1", samples));
        }
        self.batch = samples;
        Ok(self)
    }

    /// Another rate to begin with, in steps of the grid.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is more than 0 and at most 1.
    pub fn with_rate(mut self, rate: f32) -> Result<Self> {
        if !(rate > 0.0 && rate <= 1.0) {
            return Err(Error::option("rate", "more than 0 and at most 1", rate));
        }
        self.rate = Some(rate);
        Ok(self)
    }

    /// Another order of the samples.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The rate of a step.
    fn rate(&self, step: u16) -> f32 {
        let first = self.rate.unwrap_or(1.0 / f32::from(self.steps));
        first * (1.0 - f32::from(step) / f32::from(self.steps))
    }

    /// Learns the rounding of the layers that are done.
    pub(super) fn learn<B: DifferentiableBlock>(
        &self,
        work: &mut BlockWork<B>,
        settings: Settings<'_>,
        hidden: &Hidden,
        index: usize,
    ) -> Result<BlockReport> {
        let started = Instant::now();
        let target = match &hidden.float {
            Some(float) => through(&work.float, float)?,
            None => through(&work.float, &hidden.quantized)?,
        };
        let loss = Loss::new(&hidden.quantized, target, settings.token_weights);
        let before = loss.of(&work.quantized)?;
        let mut best = (before, None);
        let layers = Layers::of(work)?;
        let mut learners = layers.learners(work)?;
        // Each block draws its own order, whether the blocks before it were restored or not.
        let mut order = Order::new(hidden.quantized.len(), self.seed ^ ((index as u64) << 32));
        for step in 0..self.steps {
            let (batch, is_last) = order.next(self.batch.into());
            let gradients = loss.gradients(&work.float, &layers.images(&learners)?, &batch)?;
            layers.step(&mut learners, &gradients, self.rate(step))?;
            if is_last || step + 1 == self.steps {
                let quantized = layers.quantized(work, &learners)?;
                let error = loss.of(&work.assembled(&quantized)?)?;
                if error < best.0 {
                    best = (error, Some(quantized));
                }
            }
        }
        if let Some(quantized) = best.1 {
            work.quantized = work.assembled(&quantized)?;
            for ((layer, report), quantized) in work.done.iter_mut().zip(quantized) {
                *layer = quantized;
                report.method.push_str("+block");
            }
            work.measure_again(settings, hidden)?;
        }
        Ok(BlockReport {
            block: index,
            error_before: before,
            error: best.0,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}
