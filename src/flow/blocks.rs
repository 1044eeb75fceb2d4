//! What a model must offer to be quantized block by block.

use std::{collections::BTreeMap, fmt};

use ndarray::{Array2, ArrayRef2, ArrayView2};

use super::QuantizedLayer;
use crate::error::Result;

/// Layers that read the same inputs, such as the projections to queries, keys and values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedInput {
    /// The name under which a block shows these inputs to [`Taps`].
    pub name: String,
    /// The names of the layers, unique in the model.
    pub layers: Vec<String>,
}

impl SharedInput {
    /// An input and the layers that read it.
    pub fn new<N: Into<String>>(
        name: impl Into<String>,
        layers: impl IntoIterator<Item = N>,
    ) -> Self {
        Self {
            name: name.into(),
            layers: layers.into_iter().map(Into::into).collect(),
        }
    }
}

/// A model of blocks, each of which takes the outputs of the one before: what
/// [`ModelQuantization`](super::ModelQuantization) works on, with a runnable example.
///
/// A block is handed out by value, so that a model may read its blocks from a file one by one and
/// never hold more than one in floats.
pub trait BlockModel {
    /// A block.
    type Block: QuantizableBlock;

    /// The number of blocks.
    fn blocks(&self) -> usize;

    /// A block in floats. It is asked for once.
    ///
    /// # Errors
    /// Those of reading it.
    fn block(&self, index: usize) -> Result<Self::Block>;

    /// Takes the block back with its layers quantized.
    ///
    /// # Errors
    /// Those of storing it.
    fn put_block(&mut self, index: usize, block: Self::Block) -> Result<()>;
}

/// A block of a model: its linear layers by name, and how it runs.
///
/// A copy is quantized while the original still runs in floats beside it.
pub trait QuantizableBlock: Clone + fmt::Debug + Send + Sync {
    /// The linear layers in stages. Those of a stage are quantized at the same time, on inputs which
    /// the stages before, quantized already, produce.
    fn stages(&self) -> Vec<Vec<SharedInput>>;

    /// The weights of a layer in floats, `[out, in]`.
    ///
    /// # Errors
    /// If there is no such layer, or it is quantized already.
    fn weights(&self, layer: &str) -> Result<ArrayView2<'_, f32>>;

    /// Puts a quantized layer in the place of a float one.
    ///
    /// # Errors
    /// If there is no such layer, or it cannot run in this form.
    fn replace(&mut self, layer: &str, quantized: &QuantizedLayer) -> Result<()>;

    /// Runs the block over the hidden states of one sample, `[tokens, hidden]`, and shows `taps`
    /// what the layers read.
    ///
    /// # Errors
    /// Those of its layers.
    fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>>;
}

/// A block that can also tell how its outputs depend on its weights: what rounding is learned by, a
/// whole block at a time, or in the whole model ([`LearnedRounding`](super::LearnedRounding)).
pub trait DifferentiableBlock: QuantizableBlock {
    /// Runs the block over the hidden states of one sample, `[tokens, hidden]`, in floats, with these
    /// weights instead of its own; asks `slope` for the gradient of a loss by the outputs, which it
    /// is given, both `[tokens, hidden]`; adds the gradient of the loss by each of the weights to
    /// `into`; and returns that by `x`.
    ///
    /// `weights` and `into` have one matrix `[out, in]` for each layer, in the order of
    /// [`stages`](QuantizableBlock::stages). The block is one in floats.
    ///
    /// # Errors
    /// Those of its layers.
    fn add_gradients(
        &self,
        x: &Array2<f32>,
        weights: &[Array2<f32>],
        slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
        into: &mut [Array2<f32>],
    ) -> Result<Array2<f32>>;
}

/// A model that can also tell how far its last hidden states are from those of the float model: what
/// the rounding of all its layers is learned by together
/// ([`run_learning_jointly`](super::ModelQuantization::run_learning_jointly)).
pub trait DifferentiableModel: BlockModel<Block: DifferentiableBlock> + Sync {
    /// The loss of the hidden states after the last block for one sample, `[tokens, hidden]`, summed
    /// over its tokens, and the gradient by them; `float` is what the float model has there. Such as
    /// the divergence of the probabilities that a language model makes of the two.
    ///
    /// # Errors
    /// Those of what follows the blocks.
    fn loss(&self, hidden: &Array2<f32>, float: &Array2<f32>) -> Result<(f64, Array2<f32>)>;
}

/// Where a block shows what its layers read, while it runs; only what somebody asked for is kept.
///
/// ```
/// use lowbit::flow::Taps;
/// let mut taps = Taps::none();
/// taps.input("mlp.down_proj", &ndarray::array![[1.0_f32, 2.0]]); // nobody asked
/// assert!(taps.inputs("mlp.down_proj").is_none());
/// let mut taps = Taps::of(["mlp.down_proj"]);
/// taps.input("mlp.down_proj", &ndarray::array![[1.0_f32, 2.0]]);
/// assert_eq!(taps.inputs("mlp.down_proj").unwrap().dim(), (1, 2));
/// ```
#[derive(Debug, Clone, Default)]
pub struct Taps {
    seen: BTreeMap<String, Seen>,
}

#[derive(Debug, Clone, Default)]
struct Seen {
    inputs: Option<Array2<f32>>,
    residual: Option<Array2<f32>>,
}

impl Taps {
    /// Nothing is kept.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// What is shown under these names is kept.
    pub fn of<N: Into<String>>(names: impl IntoIterator<Item = N>) -> Self {
        let names = names.into_iter();
        Self {
            seen: names.map(|name| (name.into(), Seen::default())).collect(),
        }
    }

    /// Shows the inputs `[tokens, in]` of the layers that share them; of several calls under one
    /// name the last counts.
    pub fn input(&mut self, name: &str, x: &ArrayRef2<f32>) {
        if let Some(seen) = self.seen.get_mut(name) {
            seen.inputs = Some(x.to_owned());
        }
    }

    /// Shows the stream `[tokens, out]` that the outputs of these layers are added to, if there is
    /// one: layers can then make up for what it has lost. It may be left out.
    pub fn residual(&mut self, name: &str, x: &ArrayRef2<f32>) {
        if let Some(seen) = self.seen.get_mut(name) {
            seen.residual = Some(x.to_owned());
        }
    }

    /// The inputs that were kept.
    #[must_use]
    pub fn inputs(&self, name: &str) -> Option<&Array2<f32>> {
        self.seen.get(name)?.inputs.as_ref()
    }

    /// The stream that was kept.
    #[must_use]
    pub fn residuals(&self, name: &str) -> Option<&Array2<f32>> {
        self.seen.get(name)?.residual.as_ref()
    }
}
