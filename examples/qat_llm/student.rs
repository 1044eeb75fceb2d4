//! The quantized layers while they are trained.

use lowbit::{
    Activations, Error, Groups, Result, Scheme,
    flow::{BlockModel, QuantizableBlock, QuantizedLayer},
    prelude::*,
    qat::{AffineFakeQuant, Gradients, Lsq},
};
use ndarray::{Array2, Ix2};

use crate::{
    adam::Adam,
    llama::{LAYERS, Llama, training::Weights},
    start::Layers,
};

/// How far from its code a weight may start, in steps: just not at the edge to the next.
const REACH: f32 = 0.45;

/// All layers of all blocks.
pub struct Student {
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
}

impl Student {
    /// From what post-training quantization left.
    pub fn new(model: &Llama, start: &Layers) -> Result<Self> {
        let mut blocks = Vec::new();
        for block in model.layers() {
            let float = block.float_weights()?;
            let layer = |(name, float)| {
                let name = block.full_name(name);
                let none = || Error::other(format!("{name} was not quantized"));
                Layer::new(float, start.get(&name).ok_or_else(none)?)
            };
            let layers = LAYERS.into_iter().zip(&float).map(layer);
            blocks.push(layers.collect::<Result<Vec<_>>>()?);
        }
        let shapes = |layers: &Vec<Layer>| {
            std::array::from_fn(|layer| Array2::zeros(layers[layer].latent.dim()))
        };
        let mut student = Self {
            weights: blocks.iter().map(shapes).collect(),
            blocks,
        };
        student.put_on_grid()?;
        Ok(student)
    }

    /// With fake quantization switched off: the float model, trained alike.
    pub fn without_quantization(model: &Llama, start: &Layers) -> Result<Self> {
        let mut student = Self::new(model, start)?;
        for (block, layers) in model.layers().iter().zip(&mut student.blocks) {
            for (layer, float) in layers.iter_mut().zip(block.float_weights()?) {
                layer.latent = float;
                layer.fake.set_enabled(false);
            }
        }
        student.put_on_grid()?;
        Ok(student)
    }

    fn put_on_grid(&mut self) -> Result<()> {
        let weights = self.weights.iter_mut().flatten();
        for (layer, weights) in self.blocks.iter().flatten().zip(weights) {
            layer.fake.forward_into(&layer.latent, weights)?;
        }
        Ok(())
    }

    /// Moves what is trained against the gradients of `weights`.
    pub fn step(&mut self, gradients: &[Weights], rates: Rates) -> Result<()> {
        let layers = self.blocks.iter_mut().flatten();
        for (layer, gradient) in layers.zip(gradients.iter().flatten()) {
            layer.step(gradient, rates)?;
        }
        self.put_on_grid()
    }

    /// Puts the layers into a float model: packed, or as floats if fake quantization is off.
    pub fn convert(&self, mut model: Llama, inputs: Option<Scheme>) -> Result<Llama> {
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
    fake: AffineFakeQuant<Lsq>,
    /// Scales are `start · ratio`, so that one rate fits them all.
    start: Vec<f32>,
    ratio: Vec<f32>,
    gradients: Gradients<Ix2>,
    adam: [Adam; 3],
}

impl Layer {
    /// From a layer's codes; weights keep what rounding took from them, as far as they stay nearest
    /// to their code.
    fn new(float: &Array2<f32>, start: &QuantizedLayer) -> Result<Self> {
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
        Ok(Self {
            start: affine.scale().to_vec(),
            ratio: vec![1.0; groups],
            gradients: Gradients {
                input: Array2::zeros(latent.dim()),
                scale: vec![],
                zero_point: vec![],
            },
            adam: [latent.len(), groups, groups].map(Adam::new),
            latent,
            fake: AffineFakeQuant::new(affine, Lsq),
        })
    }

    fn step(&mut self, gradient: &Array2<f32>, rates: Rates) -> Result<()> {
        let Self {
            latent,
            fake,
            gradients,
            adam,
            ..
        } = self;
        fake.backward_into(&*latent, gradient, gradients)?;
        let [weights, scales, zero_points] = adam;
        let (latent, to_latent) = (latent.as_slice_mut(), gradients.input.as_slice());
        weights.step(
            latent.unwrap_or_default(),
            to_latent.unwrap_or_default(),
            rates.weights,
        );
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
