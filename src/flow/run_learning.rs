//! Models quantized block by block, and rounding learned after it.

use ndarray::Array2;

use super::{
    BlockModel, DifferentiableBlock, DifferentiableModel, LearnedRounding, ModelQuantization,
    ModelReport,
    block_work::{BlockWork, Hidden},
};
use crate::error::Result;

impl ModelQuantization<'_> {
    /// As [`run`](Self::run), and then, block by block, learns the rounding of all layers of the
    /// block together: [`LearnedRounding`]. It compares with the float model whatever the methods do.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    ///
    /// ```
    /// use lowbit::{Result, Scheme};
    /// use lowbit::flow::{
    ///     BlockModel, LearnedRounding, DifferentiableBlock, ModelQuantization, PackedLayer, Pipeline,
    ///     QuantizableBlock, QuantizedLayer, Recipe, SharedInput, Taps, Treatment,
    /// };
    /// use ndarray::{Array2, ArrayView2};
    ///
    /// /// A block of one layer: `x + x · wᵀ`.
    /// #[derive(Debug, Clone)]
    /// struct Block(Array2<f32>, Option<PackedLayer>);
    ///
    /// impl QuantizableBlock for Block {
    ///     fn stages(&self) -> Vec<Vec<SharedInput>> {
    ///         vec![vec![SharedInput::new("x", ["layer"])]]
    ///     }
    ///     fn weights(&self, _: &str) -> Result<ArrayView2<'_, f32>> {
    ///         Ok(self.0.view())
    ///     }
    ///     fn replace(&mut self, _: &str, quantized: &QuantizedLayer) -> Result<()> {
    ///         self.1 = Some(quantized.pack(None)?);
    ///         Ok(())
    ///     }
    ///     fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
    ///         taps.input("x", x);
    ///         Ok(x + match &self.1 {
    ///             Some(packed) => packed.forward(x)?,
    ///             None => x.dot(&self.0.t()),
    ///         })
    ///     }
    /// }
    ///
    /// impl DifferentiableBlock for Block {
    ///     fn add_gradients(
    ///         &self,
    ///         x: &Array2<f32>,
    ///         weights: &[Array2<f32>],
    ///         slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
    ///         into: &mut [Array2<f32>],
    ///     ) -> Result<Array2<f32>> {
    ///         let gradient = slope(&(x + &x.dot(&weights[0].t())));
    ///         into[0] += &gradient.t().dot(x);
    ///         Ok(&gradient + &gradient.dot(&weights[0]))
    ///     }
    /// }
    ///
    /// struct Model(Block);
    /// impl BlockModel for Model {
    ///     type Block = Block;
    ///     fn blocks(&self) -> usize {
    ///         1
    ///     }
    ///     fn block(&self, _: usize) -> Result<Block> {
    ///         Ok(self.0.clone())
    ///     }
    ///     fn put_block(&mut self, _: usize, block: Block) -> Result<()> {
    ///         self.0 = block;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// let wave = |(i, j): (usize, usize)| ((i * 17 + j * 5 + i * j) as f32).sin();
    /// let mut model = Model(Block(Array2::from_shape_fn((8, 8), wave), None));
    /// let samples = vec![Array2::from_shape_fn((40, 8), wave); 4];
    /// let scheme = Scheme::int(2).per_axis(0).build()?;
    /// let recipe = Recipe::new().quantize("*", Treatment::new(scheme, Pipeline::nearest()));
    /// let report = ModelQuantization::new(&recipe)
    ///     .run_learning(&mut model, samples, LearnedRounding::default().with_steps(50)?)?;
    /// assert!(report.blocks[0].error < report.blocks[0].error_before);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn run_learning<M: BlockModel<Block: DifferentiableBlock>>(
        mut self,
        model: &mut M,
        samples: Vec<Array2<f32>>,
        rounding: LearnedRounding,
    ) -> Result<ModelReport> {
        self.settings.block_rounding = Some(rounding);
        self.learn_blocks(model, samples, rounding, None)
    }

    /// As [`run`](Self::run), or with `blocks` as [`run_learning`](Self::run_learning), and then
    /// learns the rounding of all layers of the model together, by the loss of its last hidden
    /// states. Checkpoints hold the blocks as they are before that.
    ///
    /// # Errors
    /// Those of [`run`](Self::run), and of the model's [`loss`](DifferentiableModel::loss).
    ///
    /// ```
    /// # use lowbit::{Result, Scheme};
    /// # use lowbit::flow::{
    /// #     BlockModel, LearnedRounding, DifferentiableBlock, DifferentiableModel, ModelQuantization, PackedLayer, Pipeline,
    /// #     QuantizableBlock, QuantizedLayer, Recipe, SharedInput, Taps, Treatment,
    /// # };
    /// # use ndarray::{Array2, ArrayView2};
    /// #
    /// # #[derive(Debug, Clone)]
    /// # struct Block(Array2<f32>, Option<PackedLayer>);
    /// #
    /// # impl QuantizableBlock for Block {
    /// #     fn stages(&self) -> Vec<Vec<SharedInput>> {
    /// #         vec![vec![SharedInput::new("x", ["layer"])]]
    /// #     }
    /// #     fn weights(&self, _: &str) -> Result<ArrayView2<'_, f32>> {
    /// #         Ok(self.0.view())
    /// #     }
    /// #     fn replace(&mut self, _: &str, quantized: &QuantizedLayer) -> Result<()> {
    /// #         self.1 = Some(quantized.pack(None)?);
    /// #         Ok(())
    /// #     }
    /// #     fn forward(&self, x: &Array2<f32>, taps: &mut Taps) -> Result<Array2<f32>> {
    /// #         taps.input("x", x);
    /// #         Ok(x + match &self.1 {
    /// #             Some(packed) => packed.forward(x)?,
    /// #             None => x.dot(&self.0.t()),
    /// #         })
    /// #     }
    /// # }
    /// #
    /// # impl DifferentiableBlock for Block {
    /// #     fn add_gradients(
    /// #         &self,
    /// #         x: &Array2<f32>,
    /// #         weights: &[Array2<f32>],
    /// #         slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
    /// #         into: &mut [Array2<f32>],
    /// #     ) -> Result<Array2<f32>> {
    /// #         let gradient = slope(&(x + &x.dot(&weights[0].t())));
    /// #         into[0] += &gradient.t().dot(x);
    /// #         Ok(&gradient + &gradient.dot(&weights[0]))
    /// #     }
    /// # }
    /// #
    /// # struct Model(Block);
    /// # impl BlockModel for Model {
    /// #     type Block = Block;
    /// #     fn blocks(&self) -> usize {
    /// #         1
    /// #     }
    /// #     fn block(&self, _: usize) -> Result<Block> {
    /// #         Ok(self.0.clone())
    /// #     }
    /// #     fn put_block(&mut self, _: usize, block: Block) -> Result<()> {
    /// #         self.0 = block;
    /// #         Ok(())
    /// #     }
    /// # }
    /// #
    /// // `Model` has one `Block`, a `DifferentiableBlock`.
    /// impl DifferentiableModel for Model {
    ///     fn loss(&self, y: &Array2<f32>, float: &Array2<f32>) -> Result<(f64, Array2<f32>)> {
    ///         let distance = y - float;
    ///         Ok((distance.iter().map(|&d| f64::from(d).powi(2) / 2.0).sum(), distance))
    ///     }
    /// }
    ///
    /// let wave = |(i, j): (usize, usize)| ((i * 17 + j * 5 + i * j) as f32).sin();
    /// let mut model = Model(Block(Array2::from_shape_fn((8, 8), wave), None));
    /// let samples = vec![Array2::from_shape_fn((40, 8), wave); 4];
    /// let scheme = Scheme::int(2).per_axis(0).build()?;
    /// let recipe = Recipe::new().quantize("*", Treatment::new(scheme, Pipeline::nearest()));
    /// let whole = LearnedRounding::default().with_steps(50)?;
    /// let report = ModelQuantization::new(&recipe)
    ///     .run_learning_jointly(&mut model, samples, None, whole)?;
    /// let model = report.jointly.unwrap();
    /// assert!(model.loss < model.loss_before);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn run_learning_jointly<M: DifferentiableModel>(
        mut self,
        model: &mut M,
        samples: Vec<Array2<f32>>,
        blocks: Option<LearnedRounding>,
        whole: LearnedRounding,
    ) -> Result<ModelReport> {
        self.settings.block_rounding = blocks;
        let settings = self.settings;
        let mut works = Vec::new();
        let (kept, all) = (Some(&mut works), samples.clone());
        let mut report = match blocks {
            None => self.run_with(model, all, |_, _, _| Ok(()), kept)?,
            Some(blocks) => self.learn_blocks(model, all, blocks, kept)?,
        };
        report.jointly = Some(whole.learn_model(model, &mut works, &samples)?);
        let mut hidden = Hidden::new(samples, settings.compares());
        for (index, mut work) in works.into_iter().enumerate() {
            work.measure_again(settings, &hidden)?;
            hidden.advance(&work)?;
            model.put_block(index, work.quantized)?;
            let layers = work.done.into_iter().map(|(_, layer)| layer);
            report.layers.extend(layers);
        }
        Ok(report)
    }

    fn learn_blocks<M: BlockModel<Block: DifferentiableBlock>>(
        self,
        model: &mut M,
        samples: Vec<Array2<f32>>,
        rounding: LearnedRounding,
        kept: Option<&mut Vec<BlockWork<M::Block>>>,
    ) -> Result<ModelReport> {
        let settings = self.settings;
        let finish = |index, work: &mut BlockWork<M::Block>, hidden: &Hidden| {
            if !work.done.is_empty() {
                work.report = Some(rounding.learn_block(work, settings, hidden, index)?);
            }
            Ok(())
        };
        self.run_with(model, samples, finish, kept)
    }
}
