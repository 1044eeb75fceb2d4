//! What the crate needs to learn the rounding of a whole block, and of the whole model.

use lowbit::{
    Error, Result,
    flow::{DifferentiableBlock, DifferentiableModel},
};
use ndarray::Array2;

use super::{
    Llama,
    block::Block,
    loss::divergence,
    training::{AsTheyAre, Weights},
};

impl DifferentiableBlock for Block {
    fn add_gradients(
        &self,
        x: &Array2<f32>,
        weights: &[Array2<f32>],
        slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
        into: &mut [Array2<f32>],
    ) -> Result<Array2<f32>> {
        let all = |_| Error::other("one matrix for each layer is needed");
        let weights: &Weights = weights.try_into().map_err(all)?;
        let into: &mut Weights = into.try_into().map_err(all)?;
        let (y, trace) = self.trace(x.clone(), weights, &AsTheyAre)?;
        self.backward(&trace, weights, &AsTheyAre, slope(&y), into, None)
    }
}

/// By how far its probabilities are from those of the float model.
impl DifferentiableModel for Llama {
    fn loss(&self, hidden: &Array2<f32>, float: &Array2<f32>) -> Result<(f64, Array2<f32>)> {
        let (loss, gradient) = divergence(&self.logits(hidden), &self.logits(float));
        Ok((loss, self.logits_backward(hidden, &gradient, None)))
    }
}
