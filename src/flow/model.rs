//! A model quantized block by block.

#[cfg(feature = "serde")]
use std::path::{Path, PathBuf};
use std::{fmt, ops::ControlFlow};

use ndarray::Array2;

use super::{
    BlockModel, LayerReport, ModelReport, QuantizableBlock, Recipe, TokenWeights,
    block_work::{BlockWork, Hidden, Settings},
};
use crate::error::{Error, Result};

#[cfg(feature = "serde")]
use super::checkpoint::{Checkpoints, Fingerprint};

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
    pub(super) settings: Settings<'a>,
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
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<'a> ModelQuantization<'a> {
    /// By this recipe, without checkpoints.
    #[must_use]
    pub fn new(recipe: &'a Recipe) -> Self {
        Self {
            settings: Settings {
                recipe,
                token_weights: TokenWeights::default(),
                block_rounding: None,
            },
            #[cfg(feature = "serde")]
            checkpoints: None,
            progress: Box::new(|_| ControlFlow::Continue(())),
        }
    }

    /// Other weights of the tokens: [`TokenWeights`].
    #[must_use]
    pub fn with_token_weights(mut self, token_weights: TokenWeights) -> Self {
        self.settings.token_weights = token_weights;
        self
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
    /// of another recipe, other samples or other weights, in this block or one before it, are refused
    /// with [`Error::Mismatch`], and files that are not as they were written with [`Error::Format`].
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
        self,
        model: &mut M,
        samples: Vec<Array2<f32>>,
    ) -> Result<ModelReport> {
        self.run_with(model, samples, |_, _, _| Ok(()), None)
    }

    /// `finish` works on each block whose layers are done; `kept` takes them all, and
    /// their layers are then not in the report.
    pub(super) fn run_with<M: BlockModel>(
        mut self,
        model: &mut M,
        samples: Vec<Array2<f32>>,
        finish: impl Fn(usize, &mut BlockWork<M::Block>, &Hidden) -> Result<()>,
        mut kept: Option<&mut Vec<BlockWork<M::Block>>>,
    ) -> Result<ModelReport> {
        if samples.iter().all(|sample| sample.nrows() == 0) {
            return Err(Error::Empty {
                what: "calibration samples".into(),
            });
        }
        let blocks = model.blocks();
        let settings = self.settings;
        #[cfg(feature = "serde")]
        let mut checkpoints = self
            .checkpoints
            .as_deref()
            .map(|directory| Checkpoints::open(directory, Fingerprint::of(self.settings, &samples)))
            .transpose()?;
        let mut hidden = Hidden::new(samples, settings.compares());
        let mut report = ModelReport::default();
        let mut names = Vec::new();
        for index in 0..blocks {
            let float = model.block(index)?;
            let stages = float.stages();
            let layers = stages.iter().flatten().flat_map(|input| &input.layers);
            names.extend(layers.clone().cloned());
            let mut work = BlockWork::new(float);
            #[cfg(feature = "serde")]
            let restored = match &mut checkpoints {
                Some(checkpoints) => {
                    let treated = layers.filter(|layer| settings.recipe.treatment(layer).is_some());
                    let treated: Vec<&str> = treated.map(String::as_str).collect();
                    checkpoints.begin(&work)?;
                    checkpoints.restore(index, &treated, &mut work)?
                }
                None => false,
            };
            #[cfg(not(feature = "serde"))]
            let restored = false;
            if !restored {
                for stage in &stages {
                    let from = work.done.len();
                    work.quantize(self.settings, stage, &hidden)?;
                    for (_, layer) in &work.done[from..] {
                        self.tell(index, blocks, Some(layer))?;
                    }
                }
                finish(index, &mut work, &hidden)?;
                #[cfg(feature = "serde")]
                if let Some(checkpoints) = &checkpoints {
                    checkpoints.store(index, &work)?;
                }
            }
            if index + 1 < blocks {
                hidden.advance(&work)?;
            }
            report.blocks.extend(work.report);
            match &mut kept {
                None => {
                    model.put_block(index, work.quantized)?;
                    let layers = work.done.into_iter().map(|(_, layer)| layer);
                    report.layers.extend(layers);
                }
                Some(kept) => {
                    model.put_block(index, work.quantized.clone())?;
                    kept.push(work);
                }
            }
            self.tell(index, blocks, None)?;
        }
        report.plan = settings.recipe.plan(names.iter().map(String::as_str));
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
