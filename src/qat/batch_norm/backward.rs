//! The passes through a folded batch norm, statistics of the batch included.

use ndarray::{Array2, ArrayRef2, Axis};

use super::{FoldedBatchNorm, narrow};
use crate::{
    affine::same_shape,
    error::{Error, Result},
};

/// What a forward pass keeps for the backward pass.
#[derive(Debug, Clone)]
pub struct BatchNormTape {
    shape: [usize; 2],
    /// None where statistics were frozen.
    batch: Option<Batch>,
}

#[derive(Debug, Clone)]
struct Batch {
    quantized: Array2<f32>,
    float: Array2<f32>,
    /// Mean, deviation, and running over batch deviation of each channel.
    channels: Vec<[f64; 3]>,
}

/// The gradients of what went into a folded batch norm.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct BatchNormGradients {
    /// Of the product with the quantized weights, `[rows, channels]`.
    pub quantized: Array2<f32>,
    /// Of the product with the float weights, through the statistics of the batch; none where they
    /// were frozen.
    pub float: Option<Array2<f32>>,
    /// Of γ, but for its part in the folded weights, which
    /// [`fold_backward`](FoldedBatchNorm::fold_backward) gives.
    pub gamma: Vec<f32>,
    /// Of β.
    pub beta: Vec<f32>,
}

impl FoldedBatchNorm {
    /// Outputs `[rows, channels]` from the product with the fake-quantized folded weights, and what
    /// the backward pass needs. `float` is the product with the float weights as they are, whose
    /// statistics are taken; none if they are frozen, whereupon it is not looked at.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for shapes that do not fit; [`Error::NonFinite`] for a product whose
    /// statistics are not finite; [`Error::Empty`] without a float product while statistics are not
    /// frozen. Nothing has changed then.
    pub fn forward(
        &mut self,
        quantized: &ArrayRef2<f32>,
        float: Option<&ArrayRef2<f32>>,
    ) -> Result<(Array2<f32>, BatchNormTape)> {
        same_shape("channels", &[self.gamma.len()], &[quantized.ncols()])?;
        let (rows, columns) = quantized.dim();
        let mut output = quantized.to_owned();
        let mut tape = BatchNormTape {
            shape: [rows, columns],
            batch: None,
        };
        if self.is_frozen() {
            for (mut column, bias) in output.axis_iter_mut(Axis(1)).zip(self.bias()) {
                column += bias;
            }
            return Ok((output, tape));
        }
        let float = float.ok_or_else(|| Error::Empty {
            what: "product with the float weights".into(),
        })?;
        same_shape(
            "product with the float weights",
            quantized.shape(),
            float.shape(),
        )?;
        let statistics = self.batch(float)?;
        let epsilon = f64::from(self.epsilon);
        let channels: Vec<[f64; 3]> = statistics
            .iter()
            .zip(&self.variance)
            .map(|(&(mean, variance), &running)| {
                let deviation = (variance + epsilon).sqrt();
                let running = (f64::from(running) + epsilon).sqrt();
                [mean, deviation, running / deviation]
            })
            .collect();
        let columns = output.axis_iter_mut(Axis(1)).zip(&channels);
        for (channel, (mut column, [mean, deviation, ratio])) in columns.enumerate() {
            let factor = narrow(*ratio);
            let gamma = f64::from(self.gamma[channel]);
            let bias = narrow(f64::from(self.beta[channel]) - gamma * mean / deviation);
            column.mapv_inplace(|y| y * factor + bias);
        }
        self.take(&statistics, rows);
        tape.batch = Some(Batch {
            quantized: quantized.to_owned(),
            float: float.to_owned(),
            channels,
        });
        Ok((output, tape))
    }

    /// The gradients, from that of the outputs.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for a gradient of another shape.
    #[expect(clippy::cast_precision_loss, reason = "a count of rows")]
    pub fn backward(
        &self,
        tape: &BatchNormTape,
        gradient: &ArrayRef2<f32>,
    ) -> Result<BatchNormGradients> {
        same_shape("gradient", &tape.shape, gradient.shape())?;
        let sums = |channel: usize, factor: Option<&Array2<f32>>| -> f64 {
            let column = gradient.column(channel);
            match factor {
                None => column.iter().map(|&g| f64::from(g)).sum(),
                Some(factor) => {
                    let pairs = column.iter().zip(factor.column(channel));
                    pairs.map(|(&g, &y)| f64::from(g) * f64::from(y)).sum()
                }
            }
        };
        let totals: Vec<f64> = (0..gradient.ncols()).map(|c| sums(c, None)).collect();
        let beta = totals.iter().map(|&total| narrow(total)).collect();
        let mut gradients = BatchNormGradients {
            quantized: gradient.to_owned(),
            float: None,
            gamma: vec![],
            beta,
        };
        let Some(batch) = &tape.batch else {
            let channels = totals.iter().zip(self.mean()).zip(self.variance());
            let slopes = channels.map(|((total, &mean), &variance)| {
                let deviation = f64::from(variance + self.epsilon).sqrt();
                narrow(-total * f64::from(mean) / deviation)
            });
            gradients.gamma = slopes.collect();
            return Ok(gradients);
        };
        let rows = gradient.nrows() as f64;
        let mut float = Array2::zeros(gradient.raw_dim());
        for (channel, &[mean, deviation, ratio]) in batch.channels.iter().enumerate() {
            let (gamma, total) = (f64::from(self.gamma()[channel]), totals[channel]);
            gradients.gamma.push(narrow(-total * mean / deviation));
            let factor = narrow(ratio);
            let mut column = gradients.quantized.column_mut(channel);
            column.mapv_inplace(|g| g * factor);
            // y = q · σ/σ_B + β − γ μ_B/σ_B, so the mean and the deviation of the batch get:
            let to_mean = -gamma / deviation * total;
            let to_deviation = (gamma * mean / deviation * total
                - ratio * sums(channel, Some(&batch.quantized)))
                / deviation;
            let to_variance = to_deviation / (2.0 * deviation);
            let outputs = batch.float.column(channel);
            for (to, &y) in float.column_mut(channel).iter_mut().zip(outputs) {
                let through = 2.0 * to_variance * (f64::from(y) - mean);
                *to = narrow((to_mean + through) / rows);
            }
        }
        gradients.float = Some(float);
        Ok(gradients)
    }
}
