//! What quantization did to each layer of a model.

use std::fmt;

use ndarray::{Array2, ArrayRef2};

use super::{FloatLayer, Plan, QuantizedLayer};
use crate::{
    error::Result,
    groups::Groups,
    observe::Hessian,
    ptq::{Transform, TransformExt},
};

/// What quantization did to one layer.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LayerReport {
    /// The name of the layer.
    pub layer: String,
    /// The name of the method.
    pub method: String,
    /// The scheme of the weights.
    pub scheme: String,
    /// Outputs and inputs.
    pub shape: (usize, usize),
    /// Bytes of codes, scales, zero points and the transform of the inputs.
    pub bytes: usize,
    /// Rows of inputs that calibration saw.
    pub tokens: u64,
    /// The mean square of `w − ŵ`.
    pub weight_error: f64,
    /// The mean square of the change of the outputs, over calibration rows and outputs; a row counts
    /// by its [`TokenWeights`](super::TokenWeights), which are shares, not real units, where they
    /// are those of the stream.
    pub output_error: f64,
    /// The mean square of the outputs over that of their change, in decibels; `None` without a
    /// change, or without inputs.
    pub sqnr: Option<f64>,
    /// The share of weights beyond what their codes reach, by more than half a step.
    pub clipped: f64,
    /// The share of inputs that were 0 in every row.
    pub dead: f64,
    /// Time that the method took.
    pub seconds: f64,
    /// What deserves a look.
    pub warnings: Vec<String>,
}

impl LayerReport {
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub(super) fn new(
        layer: &FloatLayer<'_>,
        method: String,
        quantized: &QuantizedLayer,
        seconds: f64,
        mut warnings: Vec<String>,
    ) -> Result<Self> {
        let (rows, columns) = layer.weights.dim();
        let hessian = layer.inputs.hessian();
        let live = hessian.diagonal().iter().filter(|&&d| d > 0.0).count();
        if hessian.tokens() == 0 {
            warnings.push("no token seen: each weight was rounded for itself".into());
        } else if hessian.tokens() < columns as u64 && warnings.is_empty() {
            warnings.push(format!("{} tokens for {columns} inputs", hessian.tokens()));
        }
        let mut report = Self {
            layer: layer.name.to_owned(),
            method,
            scheme: layer.scheme.to_string(),
            shape: (rows, columns),
            bytes: quantized.memory_bytes(),
            tokens: hessian.tokens(),
            weight_error: 0.0,
            output_error: 0.0,
            sqnr: None,
            clipped: 0.0,
            dead: 1.0 - live as f64 / columns as f64,
            seconds,
            warnings,
        };
        report.measure(&layer.weights, hessian, quantized)?;
        if report.sqnr.is_some_and(|sqnr| sqnr < 0.0) {
            report
                .warnings
                .push("the outputs change by more than they are".into());
        }
        Ok(report)
    }

    /// Sets what is measured of the weights and their image.
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub(super) fn measure(
        &mut self,
        weights: &ArrayRef2<f32>,
        hessian: &Hessian,
        quantized: &QuantizedLayer,
    ) -> Result<()> {
        let change = quantized.image()? - weights;
        let outputs = (hessian.tokens() as f64 * weights.nrows() as f64).max(1.0);
        let signal = hessian.error(weights)? / outputs;
        self.weight_error = change.iter().map(|&d| f64::from(d).powi(2)).sum::<f64>()
            / (change.len() as f64).max(1.0);
        self.output_error = hessian.error(&change)? / outputs;
        let ratio = signal / self.output_error;
        self.sqnr = (ratio.is_finite() && ratio > 0.0).then(|| 10.0 * ratio.log10());
        self.clipped = clipped(weights, quantized)?;
        Ok(())
    }

    /// Bits a weight, with all that is stored beside the codes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn effective_bits(&self) -> f64 {
        8.0 * self.bytes as f64 / (self.shape.0 as f64 * self.shape.1 as f64).max(1.0)
    }
}

/// The share of the original weights that the codes do not reach.
#[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
fn clipped(weights: &ArrayRef2<f32>, quantized: &QuantizedLayer) -> Result<f64> {
    let transform = quantized
        .transform()
        .map(|transform| transform.as_transform());
    let weights: Array2<f32> = match transform {
        Some(transform) => <dyn Transform as TransformExt>::weights(transform, weights)?,
        None => weights.to_owned(),
    };
    let affine = quantized.weights().affine();
    let groups = Groups::new(weights.shape(), affine.scheme().granularity())?;
    let mut reach = Vec::with_capacity(groups.parameters());
    for index in 0..affine.scale().len() {
        let (range, half) = (affine.range(index)?, affine.parameter(index)?.scale / 2.0);
        reach.push((range.min() - half, range.max() + half));
    }
    let outside = weights.iter().enumerate().filter(|&(element, &weight)| {
        let (min, max) = reach[groups.parameter_of(element)];
        weight < min || weight > max
    });
    Ok(outside.count() as f64 / (weights.len() as f64).max(1.0))
}

/// What quantization did to a model.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct ModelReport {
    /// What the recipe made of the layers.
    pub plan: Plan,
    /// The layers that were quantized, in order.
    pub layers: Vec<LayerReport>,
    /// The blocks whose rounding was learned as a whole, in order.
    pub blocks: Vec<BlockReport>,
    /// What learning the rounding of the whole model did, if it was learned.
    #[cfg_attr(feature = "serde", serde(default))]
    pub jointly: Option<LearningReport>,
}

/// What learning the rounding of a whole model did:
/// [`run_learning_jointly`](super::ModelQuantization::run_learning_jointly).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct LearningReport {
    /// The [`loss`](super::DifferentiableModel::loss) a token before, over all calibration samples.
    pub loss_before: f64,
    /// The same afterwards; never more.
    pub loss: f64,
    /// Time that it took.
    pub seconds: f64,
}

/// What learning the rounding of a whole block did: [`LearnedRounding`](super::LearnedRounding).
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct BlockReport {
    /// Which block.
    pub block: usize,
    /// The mean square of how far its outputs were from the float model's before, over calibration
    /// rows and outputs, rows counted by their [`TokenWeights`](super::TokenWeights).
    pub error_before: f64,
    /// The same afterwards; never more.
    pub error: f64,
    /// Time that it took.
    pub seconds: f64,
}

impl ModelReport {
    /// Bytes of all quantized layers.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }

    /// Bits a weight over all quantized layers, with all that is stored beside the codes.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "counts below 2^53")]
    pub fn effective_bits(&self) -> f64 {
        let weights = self
            .layers
            .iter()
            .map(|layer| layer.shape.0 * layer.shape.1);
        8.0 * self.bytes() as f64 / (weights.sum::<usize>() as f64).max(1.0)
    }
}

impl fmt::Display for ModelReport {
    /// A table, with warnings and what the recipe missed below it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<36} {:<24} {:>5} {:>10} {:>10} {:>7} {:>8} {:>6} {:>8} {:>7}",
            "layer",
            "method",
            "bits",
            "weight²",
            "output²",
            "SQNR dB",
            "clipped",
            "dead",
            "tokens",
            "seconds"
        )?;
        for layer in &self.layers {
            writeln!(
                f,
                "{:<36} {:<24} {:>5.2} {:>10.3e} {:>10.3e} {:>7.2} {:>7.3}% {:>5.1}% {:>8} {:>7.2}",
                layer.layer,
                layer.method,
                layer.effective_bits(),
                layer.weight_error,
                layer.output_error,
                layer.sqnr.unwrap_or(f64::INFINITY),
                100.0 * layer.clipped,
                100.0 * layer.dead,
                layer.tokens,
                layer.seconds
            )?;
        }
        for block in &self.blocks {
            writeln!(
                f,
                "block {}: output² {:.3e} after learning, {:.3e} before, {:.2} seconds",
                block.block, block.error, block.error_before, block.seconds
            )?;
        }
        if let Some(model) = &self.jointly {
            writeln!(
                f,
                "model: loss a token {:.3e} after learning, {:.3e} before, {:.2} seconds",
                model.loss, model.loss_before, model.seconds
            )?;
        }
        for layer in &self.layers {
            for warning in &layer.warnings {
                writeln!(f, "{}: {warning}", layer.layer)?;
            }
        }
        write!(f, "{}", self.plan)
    }
}
