//! The quantized layers while they are trained.

use lowbit::{
    Activations, Error, Groups, Result, Scheme,
    flow::{BlockModel, QuantizableBlock, QuantizedLayer},
    prelude::*,
    qat::{AffineFakeQuant, Ewgs, Gradients},
};
use ndarray::{Array2, Ix2};
use rayon::prelude::*;

use crate::{
    adam::Adam,
    llama::{LAYERS, Llama, training::Weights},
    lora::Adapters,
    start::Start,
    stories::Random,
    training::Sums,
};

/// How far from its code a weight may start, in steps: just not at the edge to the next.
const REACH: f32 = 0.45;
/// The rate of embedding, head and norms by that of weights.
const REST: f32 = 3.0;
/// The rate of adapters by that of weights.
const ADAPTERS: f32 = 2.0;

/// What is trained of a layer.
#[derive(Debug, Clone, Copy)]
pub enum Trained {
    /// All weights, and their scales and zero points.
    Weights,
    /// Adapters beside weights that stay, and scales and zero points.
    Adapters { rank: usize, seed: u64 },
    /// All weights of the float model, with fake quantization switched off.
    WithoutQuantization,
}

/// All layers of all blocks.
pub struct Student {
    trained: Trained,
    /// Embedding, head and norms are trained; they stay in floats.
    pub model: Llama,
    rest: Adam,
    blocks: Vec<Vec<Layer>>,
    /// The weights that the blocks run with: those that are trained, on the grid.
    pub weights: Vec<Weights>,
}

/// The rates of one step.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub weights: f32,
    /// Of scales, in parts of what they started from.
    pub scales: f32,
    /// Of zero points, in steps.
    pub zero_points: f32,
    /// Of embedding, head and norms.
    pub rest: f32,
}

impl Rates {
    /// From that of weights.
    pub fn of(rate: f32) -> Self {
        Self {
            weights: rate,
            scales: rate,
            zero_points: rate,
            rest: REST * rate,
        }
    }
}

impl Student {
    /// From what post-training quantization left.
    pub fn new(model: &Llama, start: &Start, estimator: Ewgs, trained: Trained) -> Result<Self> {
        let mut random = match trained {
            Trained::Adapters { seed, .. } => Random(seed),
            _ => Random(0),
        };
        let mut blocks = Vec::new();
        for block in model.layers() {
            let float = block.float_weights()?;
            let layer = |(name, float)| {
                let name = block.full_name(name);
                let none = || Error::other(format!("{name} was not quantized"));
                let start = start.layers.get(&name).ok_or_else(none)?;
                Layer::new(float, start, estimator, trained, &mut random)
            };
            let layers = LAYERS.into_iter().zip(&float).map(layer);
            blocks.push(layers.collect::<Result<Vec<_>>>()?);
        }
        let shapes = |layers: &Vec<Layer>| {
            std::array::from_fn(|layer| Array2::zeros(layers[layer].latent.dim()))
        };
        let mut model = model.clone();
        let mut student = Self {
            rest: Adam::new(model.rest_mut().count()),
            model,
            trained,
            weights: blocks.iter().map(shapes).collect(),
            blocks,
        };
        student.put_on_grid()?;
        Ok(student)
    }

    /// What a table calls it.
    pub fn name(&self) -> String {
        match self.trained {
            Trained::Weights => "qat".into(),
            Trained::Adapters { rank, .. } => format!("qat, adapters of rank {rank}"),
            Trained::WithoutQuantization => "float control".into(),
        }
    }

    /// The rates for what is trained, from those for weights: adapters, small and many-fold in their
    /// effect, take larger ones.
    pub fn rates(&self, rates: Rates) -> Rates {
        match self.trained {
            Trained::Adapters { .. } => Rates {
                weights: ADAPTERS * rates.weights,
                rest: 0.0,
                ..rates
            },
            _ => rates,
        }
    }

    /// Moves what is trained against the gradients of `weights`.
    pub fn step(&mut self, gradients: &Sums, rates: Rates) -> Result<()> {
        let layers = self.blocks.iter_mut().flatten();
        let both: Vec<_> = layers.zip(gradients.weights.iter().flatten()).collect();
        both.into_par_iter()
            .try_for_each(|(layer, gradient)| layer.step(gradient, rates))?;
        let rest = self.model.rest_mut();
        self.rest.step(rest, gradients.rest.iter(), rates.rest);
        self.put_on_grid()
    }

    fn put_on_grid(&mut self) -> Result<()> {
        let weights = self.weights.iter_mut().flatten();
        for (layer, weights) in self.blocks.iter().flatten().zip(weights) {
            layer.fake.forward_into(&layer.latent, weights)?;
        }
        Ok(())
    }

    /// The model that was trained: its layers packed, or as floats if fake quantization is off.
    pub fn convert(&self, inputs: Option<Scheme>) -> Result<Llama> {
        let mut model = self.model.clone();
        for (index, layers) in self.blocks.iter().enumerate() {
            let mut block = model.block(index)?;
            for (layer, name) in layers.iter().zip(LAYERS) {
                let name = block.full_name(name);
                if !layer.fake.is_enabled() {
                    block.put_float(&name, layer.latent.clone())?;
                    continue;
                }
                let mut quantized = QuantizedLayer::new(layer.fake.convert(&layer.latent)?)?;
                if let Some(inputs) = inputs {
                    quantized = quantized.with_activations(Activations::Dynamic(inputs));
                }
                block.replace(&name, &quantized)?;
            }
            model.put_block(index, block)?;
        }
        Ok(model)
    }
}

/// A layer: weights that are trained, and what moves them onto the grid.
struct Layer {
    /// `[out, in]`.
    latent: Array2<f32>,
    /// What `latent` is the sum of, if they are trained instead.
    adapters: Option<Adapters>,
    fake: AffineFakeQuant<Ewgs>,
    /// Scales are `start · ratio`, so that one rate fits them all.
    start: Vec<f32>,
    ratio: Vec<f32>,
    gradients: Gradients<Ix2>,
    adam: [Adam; 3],
}

impl Layer {
    /// From a layer's codes; weights keep what rounding took from them, as far as they stay nearest
    /// to their code.
    fn new(
        float: &Array2<f32>,
        start: &QuantizedLayer,
        estimator: Ewgs,
        trained: Trained,
        random: &mut Random,
    ) -> Result<Self> {
        if start.transform().is_some() {
            return Err(Error::other(
                "training starts from codes without a transform",
            ));
        }
        let affine = start.weights().affine();
        let groups = Groups::new(start.weights().shape(), affine.scheme().granularity())?;
        let mut latent = start.image()?;
        for (element, (at, &float)) in latent.iter_mut().zip(float).enumerate() {
            let most = REACH * affine.scale()[groups.parameter_of(element)];
            *at += (float - *at).clamp(-most, most);
        }
        let groups = groups.parameters();
        let mut fake = AffineFakeQuant::new(affine, estimator);
        let mut adapters = None;
        match trained {
            Trained::Weights => {}
            Trained::Adapters { rank, .. } => {
                adapters = Some(Adapters::new(latent.clone(), rank, random));
            }
            Trained::WithoutQuantization => {
                fake.set_enabled(false);
                latent.assign(float);
            }
        }
        Ok(Self {
            start: fake.scale().to_vec(),
            ratio: vec![1.0; groups],
            gradients: Gradients {
                input: Array2::zeros(latent.dim()),
                scale: vec![],
                zero_point: vec![],
            },
            adam: [latent.len(), groups, groups].map(Adam::new),
            latent,
            adapters,
            fake,
        })
    }

    fn step(&mut self, gradient: &Array2<f32>, rates: Rates) -> Result<()> {
        let Self {
            latent,
            adapters,
            fake,
            gradients,
            adam,
            ..
        } = self;
        fake.backward_into(&*latent, gradient, gradients)?;
        let [weights, scales, zero_points] = adam;
        match adapters {
            Some(adapters) => adapters.step(&gradients.input, rates.weights, latent),
            None => weights.step(latent, &gradients.input, rates.weights),
        }
        if !fake.is_enabled() {
            return Ok(());
        }
        for (gradient, start) in gradients.scale.iter_mut().zip(&self.start) {
            *gradient *= start;
        }
        scales.step(&mut self.ratio, &gradients.scale, rates.scales);
        let moved = self
            .ratio
            .iter()
            .zip(&self.start)
            .map(|(ratio, start)| ratio * start);
        fake.set_scale(&moved.collect::<Vec<_>>())?;
        if !fake.affine().scheme().mapping().is_symmetric() && rates.zero_points > 0.0 {
            let mut moved = fake.zero_point().to_vec();
            zero_points.step(&mut moved, &gradients.zero_point, rates.zero_points);
            fake.set_zero_point(&moved)?;
        }
        Ok(())
    }
}
