//! A model quantized block by block.

#[cfg(feature = "serde")]
use std::path::{Path, PathBuf};
use std::{fmt, ops::ControlFlow, time::Instant};

use ndarray::Array2;

use super::{
    BlockModel, FloatLayer, InputStatistics, LayerReport, ModelReport, QuantizableBlock,
    QuantizedLayer, Recipe, SharedInput, Taps, Treatment,
};
use crate::{
    affine::same_shape,
    error::{Error, Result},
    parallel::map_pieces,
    scheme::Granularity,
};

#[cfg(feature = "serde")]
use super::checkpoint::{Checkpoints, Fingerprint};

/// Samples that run at the same time; what they show their taps is held together.
const SAMPLES: usize = 8;

/// Quantizes a [`BlockModel`] by a [`Recipe`], one block after the other.
///
/// **Sequential calibration.** Each stage of each block is calibrated on the hidden states that the
/// blocks and stages before it, quantized already, produce. Where a method compares with the float
/// model ([`LayerMethod::compares_with_float`](super::LayerMethod::compares_with_float)), the float
/// blocks run beside on hidden states of their own.
///
/// **Memory.** One block in floats and quantized; the Hessians of one stage (`4 in²` bytes for each
/// input, `12 in²` with a comparison); what the layers of a stage read of 8 samples; and
/// the hidden states of all samples, `4 · tokens · hidden` bytes, twice with a comparison.
///
/// **Threads.** Samples run, and the layers of a stage are quantized, at the same time; the result
/// has the same bits on any number of threads.
///
/// **Interruption.** The callback may stop the work, which is then [`Error::Cancelled`]. With
/// `with_checkpoints` (feature `serde`) each finished block is kept in a file, and another
/// run goes on from there to the same bytes.
///
/// ```
/// use lowbit::{Error, Result, Scheme};
/// use lowbit::flow::{
///     BlockModel, ModelQuantization, PackedLayer, Pipeline, QuantizableBlock, QuantizedLayer,
///     Recipe, SharedInput, Taps, Treatment,
/// };
/// use ndarray::{Array2, ArrayView2};
///
/// /// A block of one layer: `x + tanh(x · wᵀ)`.
/// #[derive(Debug, Clone)]
/// struct Block { name: String, weights: Array2<f32>, packed: Option<PackedLayer> }
///
/// impl QuantizableBlock for Block {
///     fn stages(&self) -> Vec<Vec<SharedInput>> {
///         vec![vec![SharedInput::new("x", [&self.name])]]
///     }
///     fn weights(&self, _: &str) -> Result<ArrayView2<'_, f32>> {
///         Ok(self.weights.view())
///     }
///     fn replace(&mut self, _: &str, quantized: &QuantizedLayer) -> Result<()> {
///         self.packed = Some(quantized.pack(None)?);
///         Ok(())
///     }
///     fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
///         taps.input("x", x);
///         let y = match &self.packed {
///             Some(packed) => packed.forward(x)?,
///             None => x.dot(&self.weights.t()),
///         };
///         Ok(x + y.mapv(f32::tanh))
///     }
/// }
///
/// struct Model(Vec<Block>);
///
/// impl BlockModel for Model {
///     type Block = Block;
///     fn blocks(&self) -> usize {
///         self.0.len()
///     }
///     fn block(&self, index: usize) -> Result<Block> {
///         Ok(self.0[index].clone())
///     }
///     fn put_block(&mut self, index: usize, block: Block) -> Result<()> {
///         self.0[index] = block;
///         Ok(())
///     }
/// }
///
/// let wave = |(i, j): (usize, usize)| ((i * 17 + j * 5 + i * j) as f32).sin();
/// let block = |index: usize| Block {
///     name: format!("blocks.{index}"),
///     weights: Array2::from_shape_fn((8, 8), |(i, j)| wave((i + index, j))),
///     packed: None,
/// };
/// let mut model = Model((0..3).map(block).collect());
/// let samples = vec![Array2::from_shape_fn((40, 8), wave)];
///
/// let treatment = Treatment::new(Scheme::int(4).per_axis(0).build()?, Pipeline::gptq());
/// let recipe = Recipe::new().leave("blocks.0").quantize("blocks.*", treatment);
/// let report = ModelQuantization::new(&recipe).run(&mut model, samples)?;
/// assert_eq!(report.plan.quantized_layers, ["blocks.1", "blocks.2"]);
/// assert!(model.0[2].packed.is_some() && model.0[0].packed.is_none());
/// println!("{report}");
/// # Ok::<(), Error>(())
/// ```
pub struct ModelQuantization<'a> {
    recipe: &'a Recipe,
    #[cfg(feature = "serde")]
    checkpoints: Option<PathBuf>,
    progress: Box<Callback<'a>>,
}

type Callback<'a> = dyn FnMut(&Progress<'_>) -> ControlFlow<()> + 'a;

/// What has just been done.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Progress<'a> {
    /// The block.
    pub block: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The layer that was quantized; none when the whole block is finished.
    pub layer: Option<&'a LayerReport>,
}

impl fmt::Debug for ModelQuantization<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelQuantization")
            .field("recipe", &self.recipe)
            .finish_non_exhaustive()
    }
}

impl<'a> ModelQuantization<'a> {
    /// By this recipe, without checkpoints.
    #[must_use]
    pub fn new(recipe: &'a Recipe) -> Self {
        Self {
            recipe,
            #[cfg(feature = "serde")]
            checkpoints: None,
            progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// Calls back after each layer and each block; [`ControlFlow::Break`] stops the work.
    #[must_use]
    pub fn with_progress(
        mut self,
        progress: impl FnMut(&Progress<'_>) -> ControlFlow<()> + 'a,
    ) -> Self {
        self.progress = Box::new(progress);
        self
    }

    /// Keeps each finished block in this directory, and goes on from the blocks that are there.
    ///
    /// A file is written aside and renamed, so that an interruption leaves whole files only. Files
    /// of another recipe, other samples or another model are refused with [`Error::Mismatch`].
    #[cfg(feature = "serde")]
    #[must_use]
    pub fn with_checkpoints(mut self, directory: impl AsRef<Path>) -> Self {
        self.checkpoints = Some(directory.as_ref().to_owned());
        self
    }

    /// Quantizes the model over calibration samples: the hidden states `[tokens, hidden]` that the
    /// first block takes, one array a document.
    ///
    /// # Errors
    /// [`Error::Empty`] for no sample; [`Error::Cancelled`] if the callback stopped the work, where
    /// the blocks that were finished have been put back; [`Error::Layer`] with the errors of a
    /// layer's method, a hidden state that is not finite among them; [`Error::Mismatch`],
    /// [`Error::Io`] and [`Error::Format`] for checkpoints; those of the model.
    pub fn run<M: BlockModel>(
        mut self,
        model: &mut M,
        samples: Vec<Array2<f32>>,
    ) -> Result<ModelReport> {
        if samples.iter().all(|sample| sample.nrows() == 0) {
            return Err(Error::Empty {
                what: "calibration samples".into(),
            });
        }
        let blocks = model.blocks();
        let compares = self
            .recipe
            .any(|treatment| treatment.method().compares_with_float());
        #[cfg(feature = "serde")]
        let checkpoints = self
            .checkpoints
            .as_deref()
            .map(|directory| Checkpoints::open(directory, Fingerprint::of(self.recipe, &samples)))
            .transpose()?;
        let mut hidden = Hidden {
            float: compares.then(|| samples.clone()),
            quantized: samples,
        };
        let mut report = ModelReport::default();
        let mut names = Vec::new();
        for index in 0..blocks {
            let float = model.block(index)?;
            let stages = float.stages();
            let layers = stages.iter().flatten().flat_map(|input| &input.layers);
            names.extend(layers.cloned());
            let mut work = BlockWork {
                quantized: float.clone(),
                float,
                done: Vec::new(),
            };
            #[cfg(feature = "serde")]
            let restored = match &checkpoints {
                Some(checkpoints) => checkpoints.restore(index, &mut work)?,
                None => false,
            };
            #[cfg(not(feature = "serde"))]
            let restored = false;
            if !restored {
                for stage in &stages {
                    let from = work.done.len();
                    work.quantize(self.recipe, stage, &hidden)?;
                    for (_, layer) in &work.done[from..] {
                        self.tell(index, blocks, Some(layer))?;
                    }
                }
                #[cfg(feature = "serde")]
                if let Some(checkpoints) = &checkpoints {
                    checkpoints.store(index, &work)?;
                }
            }
            if index + 1 < blocks {
                hidden.advance(&work)?;
            }
            let BlockWork {
                quantized, done, ..
            } = work;
            model.put_block(index, quantized)?;
            report
                .layers
                .extend(done.into_iter().map(|(_, layer)| layer));
            self.tell(index, blocks, None)?;
        }
        report.plan = self.recipe.plan(names.iter().map(String::as_str));
        Ok(report)
    }

    fn tell(&mut self, block: usize, blocks: usize, layer: Option<&LayerReport>) -> Result<()> {
        let progress = Progress {
            block,
            blocks,
            layer,
        };
        let is_last = layer.is_none() && block + 1 == blocks;
        match (self.progress)(&progress) {
            ControlFlow::Break(()) if !is_last => Err(Error::Cancelled {
                what: "quantization of the model",
                done: block + usize::from(layer.is_none()),
                total: blocks,
            }),
            _ => Ok(()),
        }
    }
}

/// The hidden states of all samples before a block.
struct Hidden {
    quantized: Vec<Array2<f32>>,
    /// As the float model has them, if anybody compares.
    float: Option<Vec<Array2<f32>>>,
}

impl Hidden {
    fn advance<B: QuantizableBlock>(&mut self, work: &BlockWork<B>) -> Result<()> {
        self.quantized = through(&work.quantized, &self.quantized)?;
        if let Some(float) = &mut self.float {
            *float = through(&work.float, float)?;
        }
        Ok(())
    }
}

fn through<B: QuantizableBlock>(block: &B, hidden: &[Array2<f32>]) -> Result<Vec<Array2<f32>>> {
    let outputs = map_pieces(hidden.len(), 1, |piece| {
        block.forward(&hidden[piece.start], &mut Taps::none())
    });
    outputs.into_iter().collect()
}

/// A block while it is worked on.
pub(super) struct BlockWork<B> {
    pub(super) float: B,
    pub(super) quantized: B,
    pub(super) done: Vec<(QuantizedLayer, LayerReport)>,
}

impl<B: QuantizableBlock> BlockWork<B> {
    fn quantize(&mut self, recipe: &Recipe, stage: &[SharedInput], hidden: &Hidden) -> Result<()> {
        let mut inputs = Vec::new();
        let mut tasks = Vec::new();
        for input in stage {
            let treated = |layer: &String| recipe.treatment(layer);
            let treatments: Vec<&Treatment> = input.layers.iter().filter_map(treated).collect();
            let Some(first) = input.layers.iter().find(|layer| treated(layer).is_some()) else {
                continue;
            };
            let columns = self.float.weights(first)?.ncols();
            let compares = treatments
                .iter()
                .any(|one| one.method().compares_with_float());
            let is_static = |scheme: &crate::Scheme| scheme.granularity() != Granularity::PerRow;
            let histogram = |one: &&Treatment| one.activations().is_some_and(is_static);
            let histogram = treatments.iter().any(histogram);
            let statistics = InputStatistics::new(columns, compares, histogram)
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
        for ((_, layer, _), result) in tasks.iter().zip(results) {
            let done = result?;
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
            // In the order of the samples, whoever was done first.
            for taps in taps {
                let (quantized, float) = taps?;
                for (input, statistics) in &mut *inputs {
                    let alone = match &*input.layers {
                        [layer] => Some(self.float.weights(layer)?),
                        _ => None,
                    };
                    statistics
                        .observe(&input.name, (&quantized, &float), alone)
                        .map_err(Error::in_layer(&input.name))?;
                }
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
    if let Some(scheme) = treatment.activations() {
        let is_static = scheme.granularity() != Granularity::PerRow;
        if is_static && quantized.transform().is_some() {
            return Err(Error::Unsupported {
                operation: "static ranges of inputs",
                expected: "inputs that are not transformed",
                got: treatment.method().name(),
            });
        }
        quantized = quantized.with_activations(inputs.activations(scheme)?);
    }
    let seconds = started.elapsed().as_secs_f64();
    let method = treatment.method().name();
    let report = LayerReport::new(&layer, method, &quantized, seconds, warnings)?;
    Ok((quantized, report))
}
