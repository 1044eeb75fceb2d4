//! Rounding learned in a whole model: by the loss of its last hidden states.

use std::time::Instant;

use ndarray::Array2;

use super::{
    DifferentiableBlock, DifferentiableModel, LearningReport, QuantizableBlock, QuantizedLayer,
    Taps,
    block_work::BlockWork,
    learned_rounding::{Layers, LearnedRounding, Learners, Order},
};
use crate::{
    error::{Error, Result},
    parallel::map_pieces,
};

impl LearnedRounding {
    /// Learns the rounding of the layers of all blocks, which are done.
    pub(super) fn learn_model<M: DifferentiableModel>(
        &self,
        model: &M,
        works: &mut [BlockWork<M::Block>],
        samples: &[Array2<f32>],
    ) -> Result<LearningReport> {
        let started = Instant::now();
        let float: Vec<&M::Block> = works.iter().map(|work| &work.float).collect();
        let targets = map_pieces(samples.len(), 1, |piece| {
            through(&float, &samples[piece.start])
        });
        let targets = targets.into_iter().collect::<Result<Vec<_>>>()?;
        let loss = Loss {
            model,
            samples,
            targets: &targets,
        };
        let before = loss.of(&works.iter().map(|work| &work.quantized).collect::<Vec<_>>())?;
        let mut best: (f64, Option<Vec<Vec<QuantizedLayer>>>) = (before, None);
        let layers = works.iter().map(Layers::of).collect::<Result<Vec<_>>>()?;
        let mut learners = layers
            .iter()
            .zip(&*works)
            .map(|(layers, work)| layers.learners(work))
            .collect::<Result<Vec<Learners<'_>>>>()?;
        let mut order = Order::new(samples.len(), self.seed);
        for step in 0..self.steps {
            let (batch, is_last) = order.next(self.batch.into());
            let images = layers.iter().zip(&learners);
            let images = images.map(|(layers, learners)| layers.images(learners));
            let images = images.collect::<Result<Vec<_>>>()?;
            let gradients = loss.gradients(&float, &images, &batch)?;
            for ((layers, learners), gradients) in layers.iter().zip(&mut learners).zip(&gradients)
            {
                layers.step(learners, gradients, self.rate(step))?;
            }
            if is_last || step + 1 == self.steps {
                let all = layers.iter().zip(&*works).zip(&learners);
                let quantized = all
                    .map(|((layers, work), learners)| layers.quantized(work, learners))
                    .collect::<Result<Vec<_>>>()?;
                let blocks = works.iter().zip(&quantized);
                let blocks = blocks.map(|(work, quantized)| work.assembled(quantized));
                let blocks = blocks.collect::<Result<Vec<_>>>()?;
                let error = loss.of(&blocks.iter().collect::<Vec<_>>())?;
                if error < best.0 {
                    best = (error, Some(quantized));
                }
            }
        }
        drop(learners);
        for (work, quantized) in works.iter_mut().zip(best.1.unwrap_or_default()) {
            work.take_learned(quantized, "+model")?;
        }
        Ok(LearningReport {
            loss_before: before,
            loss: best.0,
            seconds: started.elapsed().as_secs_f64(),
        })
    }
}

/// The loss of a model over its samples.
struct Loss<'a, M> {
    model: &'a M,
    samples: &'a [Array2<f32>],
    /// The last hidden states of the float model.
    targets: &'a [Array2<f32>],
}

impl<M: DifferentiableModel> Loss<'_, M> {
    /// That of some blocks, a token, over all samples.
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    fn of(&self, blocks: &[&M::Block]) -> Result<f64> {
        let losses = map_pieces(self.samples.len(), 1, |piece| {
            let hidden = through(blocks, &self.samples[piece.start])?;
            Ok::<_, Error>(self.model.loss(&hidden, &self.targets[piece.start])?.0)
        });
        let total = losses.into_iter().sum::<Result<f64>>()?;
        let tokens: usize = self.samples.iter().map(Array2::nrows).sum();
        Ok(total / tokens.max(1) as f64)
    }

    /// The gradients of the loss over some samples by the weights of each block.
    fn gradients(
        &self,
        blocks: &[&M::Block],
        weights: &[Vec<Array2<f32>>],
        batch: &[usize],
    ) -> Result<Vec<Vec<Array2<f32>>>> {
        let zeros = || {
            let of_block = |weights: &Vec<Array2<f32>>| {
                let zeros = weights.iter().map(|w| Array2::zeros(w.raw_dim()));
                zeros.collect::<Vec<Array2<f32>>>()
            };
            weights.iter().map(of_block).collect::<Vec<_>>()
        };
        let of_samples = map_pieces(batch.len(), 1, |piece| {
            let sample = batch[piece.start];
            let mut gradients = zeros();
            let (x, target) = (&self.samples[sample], &self.targets[sample]);
            self.add_gradients(blocks, weights, (x, target), &mut gradients)?;
            Ok::<_, Error>(gradients)
        });
        let mut sum = zeros();
        for gradients in of_samples {
            let gradients = gradients?;
            for (sum, gradient) in sum.iter_mut().flatten().zip(gradients.iter().flatten()) {
                *sum += gradient;
            }
        }
        Ok(sum)
    }

    /// Runs a sample through some blocks and the loss, and back; the gradient by what the first of
    /// them reads.
    fn add_gradients(
        &self,
        blocks: &[&M::Block],
        weights: &[Vec<Array2<f32>>],
        (x, target): (&Array2<f32>, &Array2<f32>),
        into: &mut [Vec<Array2<f32>>],
    ) -> Result<Array2<f32>> {
        let (Some((block, blocks)), Some((of_block, weights)), Some((into_block, into))) = (
            blocks.split_first(),
            weights.split_first(),
            into.split_first_mut(),
        ) else {
            return Ok(self.model.loss(x, target)?.1);
        };
        let mut failed = None;
        let mut slope = |y: &Array2<f32>| {
            let slope = self.add_gradients(blocks, weights, (y, target), into);
            slope.unwrap_or_else(|error| {
                failed = Some(error);
                Array2::zeros(y.raw_dim())
            })
        };
        let gradient = block.add_gradients(x, of_block, &mut slope, into_block)?;
        match failed {
            Some(error) => Err(error),
            None => Ok(gradient),
        }
    }
}

/// A sample's hidden states after some blocks.
fn through<B: QuantizableBlock>(blocks: &[&B], sample: &Array2<f32>) -> Result<Array2<f32>> {
    let mut x = sample.clone();
    for block in blocks {
        x = block.forward(&x, &mut Taps::none())?;
    }
    Ok(x)
}
