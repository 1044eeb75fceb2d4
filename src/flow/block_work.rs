//! A block of a model on its way from floats to quantized layers.

use std::time::Instant;

use ndarray::Array2;

use super::{
    BlockReport, FloatLayer, InputStatistics, LayerReport, LearnedRounding, QuantizableBlock,
    QuantizedLayer, Recipe, SharedInput, Taps, TokenWeights, Treatment,
    static_inputs::StaticInputs,
};
use crate::{
    affine::same_shape,
    error::{Error, Result},
    kernel::Activations,
    parallel::map_pieces,
    scheme::Granularity,
};

/// Samples that run at the same time; what they show their taps is held together.
const SAMPLES: usize = 8;

/// The hidden states of all samples before a block.
pub(super) struct Hidden {
    pub(super) quantized: Vec<Array2<f32>>,
    /// As the float model has them, if anybody compares.
    pub(super) float: Option<Vec<Array2<f32>>>,
}

impl Hidden {
    /// Those before the first block.
    pub(super) fn new(samples: Vec<Array2<f32>>, compares: bool) -> Self {
        Self {
            float: compares.then(|| samples.clone()),
            quantized: samples,
        }
    }

    pub(super) fn advance<B: QuantizableBlock>(&mut self, work: &BlockWork<B>) -> Result<()> {
        self.quantized = through(&work.quantized, &self.quantized)?;
        if let Some(float) = &mut self.float {
            *float = through(&work.float, float)?;
        }
        Ok(())
    }
}

pub(super) fn through<B: QuantizableBlock>(
    block: &B,
    hidden: &[Array2<f32>],
) -> Result<Vec<Array2<f32>>> {
    let outputs = map_pieces(hidden.len(), 1, |piece| {
        block.forward(&hidden[piece.start], &mut Taps::none())
    });
    outputs.into_iter().collect()
}

/// What holds for all layers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings<'a> {
    pub(super) recipe: &'a Recipe,
    pub(super) token_weights: TokenWeights,
    /// How the rounding of whole blocks is learned, if it is.
    pub(super) block_rounding: Option<LearnedRounding>,
}

impl Settings<'_> {
    /// Whether anybody asks for the hidden states of the float model.
    pub(super) fn compares(&self) -> bool {
        let compares = |treatment: &Treatment| treatment.method().compares_with_float();
        self.block_rounding.is_some() || self.recipe.any(compares)
    }
}

/// A block while it is worked on.
pub(super) struct BlockWork<B> {
    pub(super) float: B,
    pub(super) quantized: B,
    pub(super) done: Vec<(QuantizedLayer, LayerReport)>,
    /// Of the block as a whole, if it was worked on as a whole.
    pub(super) report: Option<BlockReport>,
}

/// A layer that is to be quantized: which of the stage's inputs it reads, its name, and how.
pub(super) type Task<'a> = (usize, &'a str, &'a Treatment);

impl<B: QuantizableBlock> BlockWork<B> {
    pub(super) fn new(float: B) -> Self {
        Self {
            quantized: float.clone(),
            float,
            done: Vec::new(),
            report: None,
        }
    }

    /// The float block with these layers, in the order of those that are done, in their places.
    pub(super) fn assembled(&self, quantized: &[QuantizedLayer]) -> Result<B> {
        let mut block = self.float.clone();
        for ((_, report), quantized) in self.done.iter().zip(quantized) {
            block.replace(&report.layer, quantized)?;
        }
        Ok(block)
    }

    /// Puts layers whose rounding was learned in the place of those that are done, with a word more in
    /// the names of their methods.
    pub(super) fn take_learned(
        &mut self,
        quantized: Vec<QuantizedLayer>,
        word: &str,
    ) -> Result<()> {
        self.quantized = self.assembled(&quantized)?;
        for ((layer, report), quantized) in self.done.iter_mut().zip(quantized) {
            *layer = quantized;
            report.method.push_str(word);
        }
        Ok(())
    }

    /// Brings the errors in the reports up to date with the block as it is now.
    pub(super) fn measure_again(&mut self, settings: Settings<'_>, hidden: &Hidden) -> Result<()> {
        for stage in self.float.stages() {
            for input in &stage {
                let is_of = |report: &LayerReport| input.layers.contains(&report.layer);
                let Some(first) = self.done.iter().find(|(_, report)| is_of(report)) else {
                    continue;
                };
                let columns = first.0.weights().shape()[1];
                let statistics = InputStatistics::new(columns, false, settings.token_weights)?;
                let mut inputs = [(input, statistics)];
                self.observe(&mut inputs, hidden)?;
                for (quantized, report) in &mut self.done {
                    if is_of(report) {
                        let weights = self.float.weights(&report.layer)?;
                        report.measure(&weights, inputs[0].1.hessian(), quantized)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Quantizes the layers of a stage, on what the stages before it produce.
    pub(super) fn quantize(
        &mut self,
        settings: Settings<'_>,
        stage: &[SharedInput],
        hidden: &Hidden,
    ) -> Result<()> {
        let mut inputs = Vec::new();
        let mut tasks: Vec<Task<'_>> = Vec::new();
        for input in stage {
            let treated = |layer: &String| settings.recipe.treatment(layer);
            let treatments: Vec<&Treatment> = input.layers.iter().filter_map(treated).collect();
            let Some(first) = input.layers.iter().find(|layer| treated(layer).is_some()) else {
                continue;
            };
            let columns = self.float.weights(first)?.ncols();
            let compares = treatments
                .iter()
                .any(|one| one.method().compares_with_float());
            let statistics = InputStatistics::new(columns, compares, settings.token_weights)
                .map_err(Error::in_layer(&input.name))?;
            for layer in &input.layers {
                if let Some(treatment) = treated(layer) {
                    tasks.push((inputs.len(), layer, treatment));
                }
            }
            inputs.push((input, statistics));
        }
        if tasks.is_empty() {
            return Ok(());
        }
        self.observe(&mut inputs, hidden)?;
        let results = map_pieces(tasks.len(), 1, |piece| {
            let (input, layer, treatment) = tasks[piece.start];
            let (input, statistics) = &inputs[input];
            quantize_layer(&self.float, input, layer, treatment, statistics)
                .map_err(Error::in_layer(layer))
        });
        let mut done = results.into_iter().collect::<Result<Vec<_>>>()?;
        let names: Vec<&str> = inputs.iter().map(|(input, _)| &*input.name).collect();
        if let Some(mut ranges) = StaticInputs::of(&names, &tasks, &done) {
            self.tap(&names, hidden, false, |taps, _| ranges.observe(taps))?;
            ranges.choose(&mut done)?;
        }
        for ((_, layer, _), done) in tasks.iter().zip(done) {
            self.quantized.replace(layer, &done.0)?;
            self.done.push(done);
        }
        Ok(())
    }

    /// Runs all samples and gathers what the layers of a stage read.
    fn observe(
        &self,
        inputs: &mut [(&SharedInput, InputStatistics)],
        hidden: &Hidden,
    ) -> Result<()> {
        let names: Vec<&str> = inputs.iter().map(|(input, _)| &*input.name).collect();
        let compares = inputs.iter().any(|(_, seen)| seen.deviation().is_some());
        self.tap(&names, hidden, compares, |quantized, float| {
            for (input, statistics) in &mut *inputs {
                let alone = match &*input.layers {
                    [layer] => Some(self.float.weights(layer)?),
                    _ => None,
                };
                statistics
                    .observe(&input.name, (quantized, float), alone)
                    .map_err(Error::in_layer(&input.name))?;
            }
            Ok(())
        })
    }

    /// Shows what the partly quantized block reads under these names, and, if it is compared, the
    /// float one: sample by sample in their order, whoever was done first.
    fn tap(
        &self,
        names: &[&str],
        hidden: &Hidden,
        compares: bool,
        mut see: impl FnMut(&Taps, &Taps) -> Result<()>,
    ) -> Result<()> {
        let run = |block: &B, x: &Array2<f32>| {
            let mut taps = Taps::of(names.iter().copied());
            block.forward(x, &mut taps)?;
            Ok::<_, Error>(taps)
        };
        for (chunk, samples) in hidden.quantized.chunks(SAMPLES).enumerate() {
            let taps = map_pieces(samples.len(), 1, |piece| {
                let quantized = run(&self.quantized, &samples[piece.start])?;
                let float = hidden.float.as_ref().filter(|_| compares);
                let float = match float {
                    Some(float) => run(&self.float, &float[chunk * SAMPLES + piece.start])?,
                    None => Taps::none(),
                };
                Ok::<_, Error>((quantized, float))
            });
            for taps in taps {
                let (quantized, float) = taps?;
                see(&quantized, &float)?;
            }
        }
        Ok(())
    }
}

fn quantize_layer<B: QuantizableBlock>(
    block: &B,
    input: &SharedInput,
    name: &str,
    treatment: &Treatment,
    inputs: &InputStatistics,
) -> Result<(QuantizedLayer, LayerReport)> {
    let started = Instant::now();
    let layer = FloatLayer {
        name,
        weights: block.weights(name)?,
        scheme: *treatment.scheme(),
        inputs,
        reads_alone: input.layers.len() == 1,
    };
    let mut warnings = Vec::new();
    let mut quantized = treatment.method().quantize(&layer, &mut warnings)?;
    let shape = layer.weights.shape();
    same_shape("quantized weights", shape, quantized.weights().shape())?;
    if let Some(scheme) = treatment.activations()
        && scheme.granularity() == Granularity::PerRow
    {
        quantized = quantized.with_activations(Activations::Dynamic(*scheme));
    }
    let seconds = started.elapsed().as_secs_f64();
    let method = treatment.method().name();
    let report = LayerReport::new(&layer, method, &quantized, seconds, warnings)?;
    Ok((quantized, report))
}
