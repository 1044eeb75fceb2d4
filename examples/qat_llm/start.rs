//! Where training starts: post-training quantization by the crate, kept as tensors.

use std::collections::BTreeMap;

use lowbit::{
    Result,
    flow::{ModelQuantization, QuantizedLayer, Recipe, Treatment},
};

use crate::{llama::Llama, method::Method, setting::Setting, stories::Story};

/// What is tried.
pub const METHODS: [&str; 1] = ["best+block+model=400"];

/// Stories to calibrate on.
const CALIBRATION: usize = 64;

/// Quantized layers by name.
pub struct Start {
    pub layers: BTreeMap<String, QuantizedLayer>,
}

impl Start {
    /// Whether all layers take their inputs as they are.
    pub fn can_be_trained(&self) -> bool {
        let mut layers = self.layers.values();
        layers.all(|layer| layer.transform().is_none())
    }
}

/// Quantizes a model, which then runs with packed layers, and gives the layers as they are stored.
pub fn quantize(
    model: &mut Llama,
    method: &str,
    setting: &Setting,
    stories: &[Story],
) -> Result<Start> {
    let method = Method::of(method)?;
    let mut treatment = Treatment::new(setting.weights, method.pipeline);
    if let Some(inputs) = setting.inputs {
        treatment = treatment.with_activations(inputs);
    }
    let recipe = Recipe::new().quantize("model.layers.*", treatment);
    let stories = &stories[..CALIBRATION.min(stories.len())];
    let samples = stories
        .iter()
        .map(|story| model.embed(&story.window.tokens));
    let samples = samples.collect::<Result<Vec<_>>>()?;
    model.keep_stored();
    method.run(ModelQuantization::new(&recipe), model, samples)?;
    Ok(Start {
        layers: model.stored(),
    })
}
