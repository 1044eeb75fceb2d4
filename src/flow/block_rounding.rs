//! Rounding learned a block at a time: by the error of the block's outputs.

mod loss;

use std::time::Instant;

use super::{
    BlockReport, DifferentiableBlock,
    block_work::{BlockWork, Hidden, Settings, through},
    learned_rounding::{Layers, LearnedRounding, Order},
};
use crate::error::Result;
use loss::Loss;

impl LearnedRounding {
    /// Learns the rounding of the layers of a block that are done.
    pub(super) fn learn_block<B: DifferentiableBlock>(
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
            work.take_learned(quantized, "+block")?;
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
