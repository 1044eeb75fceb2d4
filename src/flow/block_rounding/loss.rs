//! How far the outputs of a block are from what they should be.

use ndarray::{Array2, ArrayView1};

use crate::{
    affine::same_shape,
    error::{Error, Result},
    flow::{DifferentiableBlock, Taps, TokenWeights},
    parallel::map_pieces,
};

/// The error of the outputs of a block.
pub(super) struct Loss<'a> {
    inputs: &'a [Array2<f32>],
    targets: Vec<Array2<f32>>,
    /// What the square of an error counts in each row.
    weights: Vec<Vec<f32>>,
    elements: f64,
}

impl<'a> Loss<'a> {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub(super) fn new(
        inputs: &'a [Array2<f32>],
        targets: Vec<Array2<f32>>,
        token_weights: TokenWeights,
    ) -> Self {
        let weight = |row: ArrayView1<'_, f32>| match token_weights {
            TokenWeights::Even => 1.0,
            TokenWeights::StreamShare => {
                let share = row.len() as f32 / row.dot(&row);
                if share.is_normal() { share } else { 1.0 }
            }
        };
        let of_sample = |target: &Array2<f32>| target.rows().into_iter().map(weight).collect();
        let elements: usize = targets.iter().map(Array2::len).sum();
        Self {
            inputs,
            weights: targets.iter().map(of_sample).collect(),
            targets,
            elements: elements.max(1) as f64,
        }
    }

    /// The mean square error of the outputs of a block over all samples.
    pub(super) fn of<B: DifferentiableBlock>(&self, block: &B) -> Result<f64> {
        let errors = map_pieces(self.inputs.len(), 1, |piece| {
            let sample = piece.start;
            let outputs = block.forward(&self.inputs[sample], &mut Taps::none())?;
            same_shape("outputs", self.targets[sample].shape(), outputs.shape())?;
            let rows = outputs.rows().into_iter().zip(self.targets[sample].rows());
            let of_row = |((outputs, target), &weight): (_, &f32)| {
                let (outputs, target): (ArrayView1<'_, f32>, ArrayView1<'_, f32>) =
                    (outputs, target);
                let pairs = outputs.iter().zip(target);
                let squares = pairs.map(|(y, target)| f64::from(y - target).powi(2));
                f64::from(weight) * squares.sum::<f64>()
            };
            let errors = rows.zip(&self.weights[sample]).map(of_row);
            Ok::<_, Error>(errors.sum::<f64>())
        });
        let total = errors.into_iter().sum::<Result<f64>>()?;
        Ok(total / self.elements)
    }

    /// The gradients of the error over some samples by the weights, but for a factor.
    pub(super) fn gradients<B: DifferentiableBlock>(
        &self,
        block: &B,
        weights: &[Array2<f32>],
        batch: &[usize],
    ) -> Result<Vec<Array2<f32>>> {
        let zeros = || weights.iter().map(|w| Array2::zeros(w.raw_dim()));
        let of_samples = map_pieces(batch.len(), 1, |piece| {
            let sample = batch[piece.start];
            let mut gradients: Vec<Array2<f32>> = zeros().collect();
            let mut slope = |outputs: &Array2<f32>| self.slope(sample, outputs);
            block.add_gradients(&self.inputs[sample], weights, &mut slope, &mut gradients)?;
            Ok::<_, Error>(gradients)
        });
        let mut sum: Vec<Array2<f32>> = zeros().collect();
        for gradients in of_samples {
            for (sum, gradient) in sum.iter_mut().zip(gradients?) {
                *sum += &gradient;
            }
        }
        Ok(sum)
    }

    /// Half the gradient of the error of a sample by its outputs.
    fn slope(&self, sample: usize, outputs: &Array2<f32>) -> Array2<f32> {
        let mut slope = outputs - &self.targets[sample];
        for (mut row, &weight) in slope.rows_mut().into_iter().zip(&self.weights[sample]) {
            row *= weight;
        }
        slope
    }
}
