//! Settings of rounding that is learned, a block at a time or in the whole model.

mod layers;
mod order;

pub(super) use layers::{Layers, Learners};
pub(super) use order::Order;

use crate::error::{Error, Result};

/// How rounding is learned by the error of more than one layer: of a block
/// ([`run_learning`](super::ModelQuantization::run_learning)), or of a whole model
/// ([`run_learning_jointly`](super::ModelQuantization::run_learning_jointly)).
///
/// It is SignRound as its paper has it (Cheng et al. 2023, arXiv:2309.05516; AutoRound): after each
/// layer was quantized by its own method, signed gradient descent over offsets of the rounding and
/// factors of the ranges ([`RoundingLearner`](crate::ptq::RoundingLearner)) of all layers together.
///
/// **A block** runs on what the quantized blocks before it produce, and its outputs are compared with
/// those of the float block on what float blocks produce, so that it also makes up for the blocks
/// before. Where tokens have [`TokenWeights`](super::TokenWeights), so have the rows of the outputs.
///
/// **A model** is compared with the float model by its own
/// [`loss`](super::DifferentiableModel::loss): what the layers lose together is learned together.
///
/// **Never worse.** Once in each pass over the samples everything is put together, packed layers and
/// quantized inputs and all, and its error taken over all samples; the best state is kept, the one
/// from before among them. (The published program goes by the loss of the batch at hand.)
///
/// **Memory**, beside that of [`ModelQuantization`](super::ModelQuantization): the outputs of all
/// samples; the weights of the block, or of the model, twelve times, and once more for each sample
/// of a batch.
///
/// Layers whose codes are not integers keep theirs, and inputs count as floats while rounding is
/// learned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearnedRounding {
    pub(super) steps: u16,
    pub(super) batch: u16,
    rate: Option<f32>,
    pub(super) seed: u64,
}

impl Default for LearnedRounding {
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

impl LearnedRounding {
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
    pub(super) fn rate(&self, step: u16) -> f32 {
        let first = self.rate.unwrap_or(1.0 / f32::from(self.steps));
        first * (1.0 - f32::from(step) / f32::from(self.steps))
    }
}
