//! The layers of a block while their rounding is learned.

use ndarray::Array2;

use crate::{
    error::Result,
    flow::{DifferentiableBlock, InputTransform, QuantizedLayer, block_work::BlockWork},
    ptq::{RoundingLearner, TransformExt},
    scheme::Format,
};

/// The layers of a block, in the order of its stages.
pub(in crate::flow) struct Layers(Vec<Layer>);

struct Layer {
    /// Which of the layers that are done learns; none where weights stay what they are.
    done: Option<usize>,
    /// In floats, transformed where the layer transforms its inputs; or those that stay.
    weights: Array2<f32>,
    transform: Option<InputTransform>,
}

pub(in crate::flow) type Learners<'a> = Vec<Option<RoundingLearner<'a>>>;

impl Layers {
    pub(in crate::flow) fn of<B: DifferentiableBlock>(work: &BlockWork<B>) -> Result<Self> {
        let mut layers = Vec::new();
        let stages = work.float.stages();
        for name in stages.iter().flatten().flat_map(|input| &input.layers) {
            let weights = work.float.weights(name)?;
            let done = work.done.iter();
            let Some(done) = done
                .map(|(_, report)| &report.layer)
                .position(|layer| layer == name)
            else {
                layers.push(Layer {
                    done: None,
                    weights: weights.to_owned(),
                    transform: None,
                });
                continue;
            };
            let quantized = &work.done[done].0;
            layers.push(match quantized.weights().scheme().format() {
                Format::Int(_) => Layer {
                    done: Some(done),
                    weights: match quantized.transform() {
                        Some(transform) => transform.as_transform().weights(&weights)?,
                        None => weights.to_owned(),
                    },
                    transform: quantized.transform().cloned(),
                },
                Format::Float(_) => Layer {
                    done: None,
                    weights: quantized.image()?,
                    transform: None,
                },
            });
        }
        Ok(Self(layers))
    }

    /// A learner for each layer that learns, at what is done so far.
    pub(in crate::flow) fn learners<B>(&self, work: &BlockWork<B>) -> Result<Learners<'_>> {
        let learners = self.0.iter().map(|layer| {
            let learner = layer.done.map(|done| {
                RoundingLearner::new(layer.weights.view(), work.done[done].0.weights())
            });
            learner.transpose()
        });
        learners.collect()
    }

    /// The weights that each layer acts as if it had.
    pub(in crate::flow) fn images(&self, learners: &Learners<'_>) -> Result<Vec<Array2<f32>>> {
        let images = self.0.iter().zip(learners).map(|(layer, learner)| {
            let image = match learner {
                None => layer.weights.clone(),
                Some(learner) => learner.image(),
            };
            match &layer.transform {
                Some(transform) => transform.as_transform().restore_weights(&image),
                None => Ok(image),
            }
        });
        images.collect()
    }

    /// Moves all learners, given the gradients by the [`images`](Self::images).
    pub(in crate::flow) fn step(
        &self,
        learners: &mut Learners<'_>,
        gradients: &[Array2<f32>],
        rate: f32,
    ) -> Result<()> {
        for ((layer, learner), gradient) in self.0.iter().zip(learners).zip(gradients) {
            let Some(learner) = learner else { continue };
            match &layer.transform {
                // Of an image `W Tᵀ`, the gradient by `W` is the gradient times `T`.
                Some(transform) => {
                    learner.step(&transform.as_transform().inputs(gradient)?, rate)?;
                }
                None => learner.step(gradient, rate)?,
            }
        }
        Ok(())
    }

    /// What is done, with what is learned.
    pub(in crate::flow) fn quantized<B>(
        &self,
        work: &BlockWork<B>,
        learners: &Learners<'_>,
    ) -> Result<Vec<QuantizedLayer>> {
        let mut quantized: Vec<_> = work.done.iter().map(|(layer, _)| layer.clone()).collect();
        for (layer, learner) in self.0.iter().zip(learners) {
            if let (Some(done), Some(learner)) = (layer.done, learner) {
                quantized[done] = quantized[done].with_weights(learner.quantized()?)?;
            }
        }
        Ok(quantized)
    }
}
