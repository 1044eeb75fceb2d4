//! What is done to a model, in words: a pipeline, and what is learned after it.

use lowbit::{
    Error, Result,
    flow::{LearnedRounding, ModelQuantization, ModelReport, Pipeline},
};
use ndarray::Array2;

use crate::llama::Llama;

/// How each layer is quantized, and how the rounding of blocks and of the model is learned after it,
/// if it is.
pub struct Method {
    pub pipeline: Pipeline,
    blocks: Option<LearnedRounding>,
    whole: Option<LearnedRounding>,
}

impl Method {
    /// From words such as `gptaq+block+model=400`.
    pub fn of(words: &str) -> Result<Self> {
        let (words, whole) = learning(words, "+model")?;
        let (pipeline, blocks) = learning(words, "+block")?;
        Ok(Self {
            pipeline: pipeline.parse()?,
            blocks,
            whole,
        })
    }

    /// Quantizes a model whose layers have the pipeline in their recipe, and learns after it.
    pub fn run(
        &self,
        quantization: ModelQuantization<'_>,
        model: &mut Llama,
        samples: Vec<Array2<f32>>,
    ) -> Result<ModelReport> {
        match (self.blocks, self.whole) {
            (None, None) => quantization.run(model, samples),
            (Some(blocks), None) => quantization.run_learning(model, samples, blocks),
            (blocks, Some(whole)) => {
                quantization.run_learning_jointly(model, samples, blocks, whole)
            }
        }
    }
}

/// Words that may end with `name`, or `name=STEPS`, without that, and what it asks for.
fn learning<'a>(words: &'a str, name: &str) -> Result<(&'a str, Option<LearnedRounding>)> {
    let rounding = LearnedRounding::default();
    match words.split_once(name) {
        None => Ok((words, None)),
        Some((before, "")) => Ok((before, Some(rounding))),
        Some((before, steps)) => {
            let steps = steps.strip_prefix('=').unwrap_or(steps);
            let steps = steps.parse().map_err(Error::other)?;
            Ok((before, Some(rounding.with_steps(steps)?)))
        }
    }
}
