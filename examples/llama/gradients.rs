//! What the crate needs to learn the rounding of a whole block.

use lowbit::{Error, Result, flow::DifferentiableBlock};
use ndarray::Array2;

use super::{
    block::Block,
    training::{AsTheyAre, Weights},
};

impl DifferentiableBlock for Block {
    fn add_gradients(
        &self,
        x: &Array2<f32>,
        weights: &[Array2<f32>],
        slope: &mut dyn FnMut(&Array2<f32>) -> Array2<f32>,
        into: &mut [Array2<f32>],
    ) -> Result<()> {
        let all = |_| Error::other("one matrix for each layer is needed");
        let weights: &Weights = weights.try_into().map_err(all)?;
        let into: &mut Weights = into.try_into().map_err(all)?;
        let (y, trace) = self.trace(x.clone(), weights, &AsTheyAre)?;
        self.backward(&trace, weights, &AsTheyAre, slope(&y), into)?;
        Ok(())
    }
}
