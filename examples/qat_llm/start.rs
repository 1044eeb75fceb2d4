//! Where training starts: post-training quantization by the crate, kept as tensors.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use lowbit::{
    Error, Result, Scheme,
    flow::{
        FloatLayer, LayerMethod, ModelQuantization, Pipeline, QuantizedLayer, Recipe, Treatment,
    },
};

use crate::{llama::Llama, stories::Story};

/// Quantized layers by name.
pub type Layers = BTreeMap<String, QuantizedLayer>;

/// Quantizes a model, which then runs with packed layers, and gives the layers as they are stored.
pub fn quantize(
    model: &mut Llama,
    pipeline: Pipeline,
    weights: Scheme,
    inputs: Option<Scheme>,
    stories: &[Story],
) -> Result<Layers> {
    let layers = Arc::new(Mutex::new(Layers::new()));
    let method = Recording {
        pipeline,
        layers: Arc::clone(&layers),
    };
    let mut treatment = Treatment::new(weights, method);
    if let Some(inputs) = inputs {
        treatment = treatment.with_activations(inputs);
    }
    let recipe = Recipe::new().quantize("model.layers.*", treatment);
    let samples = stories
        .iter()
        .map(|story| model.embed(&story.window.tokens));
    let samples = samples.collect::<Result<Vec<_>>>()?;
    ModelQuantization::new(&recipe).run(model, samples)?;
    let mut layers = layers
        .lock()
        .map_err(|_| Error::other("a method panicked"))?;
    Ok(std::mem::take(&mut *layers))
}

/// A pipeline whose results are kept.
#[derive(Debug)]
struct Recording {
    pipeline: Pipeline,
    layers: Arc<Mutex<Layers>>,
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
