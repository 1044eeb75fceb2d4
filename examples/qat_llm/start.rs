//! Where training starts: post-training quantization by the crate, kept as tensors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use lowbit::{
    Error, Result,
    flow::{
        FloatLayer, LayerMethod, ModelQuantization, Pipeline, QuantizedLayer, Recipe, Treatment,
    },
};

use crate::{llama::Llama, setting::Setting, stories::Story};

/// The pipelines that are tried.
pub const METHODS: [&str; 4] = [
    "gptaq",
    "gptaq+quantease",
    "compensate+gptq+quantease",
    "best",
];

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
    pipeline: &str,
    setting: &Setting,
    stories: &[Story],
) -> Result<Start> {
    let layers = Arc::new(Mutex::new(BTreeMap::new()));
    let method = Recording {
        pipeline: pipeline.parse()?,
        layers: Arc::clone(&layers),
    };
    let mut treatment = Treatment::new(setting.weights, method);
    if let Some(inputs) = setting.inputs {
        treatment = treatment.with_activations(inputs);
    }
    let recipe = Recipe::new().quantize("model.layers.*", treatment);
    let stories = &stories[..CALIBRATION.min(stories.len())];
    let samples = stories
        .iter()
        .map(|story| model.embed(&story.window.tokens));
    let samples = samples.collect::<Result<Vec<_>>>()?;
    ModelQuantization::new(&recipe).run(model, samples)?;
    let mut layers = layers
        .lock()
        .map_err(|_| Error::other("a method panicked"))?;
    Ok(Start {
        layers: std::mem::take(&mut *layers),
    })
}

/// A pipeline whose results are kept.
#[derive(Debug)]
struct Recording {
    pipeline: Pipeline,
    layers: Arc<Mutex<BTreeMap<String, QuantizedLayer>>>,
}

impl LayerMethod for Recording {
    fn name(&self) -> String {
        self.pipeline.name()
    }

    fn compares_with_float(&self) -> bool {
        self.pipeline.compares_with_float()
    }

    fn quantize(
        &self,
        layer: &FloatLayer<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<QuantizedLayer> {
        let quantized = self.pipeline.quantize(layer, warnings)?;
        let mut layers = self
            .layers
            .lock()
            .map_err(|_| Error::other("a method panicked"))?;
        layers.insert(layer.name.to_owned(), quantized.clone());
        Ok(quantized)
    }
}
