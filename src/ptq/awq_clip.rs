//! AWQ's clipping: the range of each group under which its part of the outputs changes least.

use ndarray::{ArrayView2, ArrayViewD, Ix2};

use super::{LayerInputs, Quantizer, layer_inputs::Costs};
use crate::{
    affine::{Affine, Parameter, Range, Ranges, loops, same_shape, scalar::Rule},
    error::{Error, Result},
    groups::Groups,
    parallel::map_pieces,
    scheme::Scheme,
    tensor::QTensor,
};

/// Rounds to nearest over the range of each group, among fractions of the full one, that changes
/// the group's part of the outputs least: `‖X_g (Ŵ_g − W_g)ᵀ‖²`.
///
/// Lin et al. 2023, "AWQ" (arXiv:2306.00978), the clipping of its published code: fractions
/// `1 − i/20`, for `i` from 0 to 9. The full range is the first, so that clipping is never worse
/// than none by this measure. Groups are judged one by one; that their errors may cancel is left
/// out of account. (The published code leaves out the projections of queries and keys, whose errors
/// a softmax magnifies.)
///
/// [`ranges`](Self::ranges) gives the ranges to another method.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, ptq::{AwqClip, LayerInputs}};
/// use ndarray::Array2;
///
/// let w = Array2::from_shape_fn((8, 64), |(o, i)| ((o * 64 + i) as f32 * 0.7).sin().powi(5));
/// let x = Array2::from_shape_fn((99, 64), |(t, i)| ((t * 64 + i) as f32 * 1.3).sin());
/// let inputs = LayerInputs::samples(&x)?;
/// let scheme = Scheme::int(3).per_group(32).build()?;
/// let error = |quantized: lowbit::QTensor| inputs.error(&(quantized.dequantize::<f32>() - &w));
/// let clipped = error(AwqClip::new(scheme, inputs.clone()).quantize(&w)?)?;
/// assert!(clipped < error(RoundToNearest::new(scheme).quantize(&w)?)?);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct AwqClip {
    scheme: Scheme,
    inputs: LayerInputs,
    steps: u16,
    max_shrink: f32,
}

impl AwqClip {
    /// The published grid.
    #[must_use]
    pub fn new(scheme: Scheme, inputs: LayerInputs) -> Self {
        Self {
            scheme,
            inputs,
            steps: 20,
            max_shrink: 0.5,
        }
    }

    /// Another grid: fractions from 1 down to above `1 − max_shrink`, in steps of `1 / steps`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no step, or unless `0 <= max_shrink <= 1`.
    pub fn with_grid(mut self, steps: u16, max_shrink: f32) -> Result<Self> {
        if steps == 0 || !(0.0..=1.0).contains(&max_shrink) {
            return Err(Error::option(
                "grid",
                "at least 1 step and 0 <= max_shrink <= 1",
                format!("{steps} steps and {max_shrink}"),
            ));
        }
        (self.steps, self.max_shrink) = (steps, max_shrink);
        Ok(self)
    }

    /// The range chosen for each group of weights `[out, in]`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the weights are a matrix with a column for each input;
    /// [`Error::NonFinite`] for a NaN or an infinity.
    pub fn ranges(&self, weights: ArrayViewD<'_, f32>) -> Result<Ranges> {
        let shape = weights.shape().to_vec();
        let channels = self.inputs.channels();
        let rows = shape.first().copied().unwrap_or(0);
        same_shape("weights", &[rows, channels], &shape)?;
        let groups = Groups::new(&shape, self.scheme.granularity())?;
        let full = Ranges::of(&weights, self.scheme.granularity())?;
        let weights: ArrayView2<'_, f32> =
            weights.into_dimensionality::<Ix2>().map_err(Error::other)?;
        let weights = weights.as_standard_layout();
        let weights = weights.as_slice().unwrap_or_default();
        let segments = segments(&groups, channels);
        let costs = self.inputs.costs()?;
        let pieces = map_pieces(segments.len(), 4, |parameters| {
            parameters
                .map(|parameter| {
                    let parts = &segments[parameter];
                    self.range(full.as_slice()[parameter], parts, weights, &costs)
                })
                .collect::<Result<Vec<_>>>()
        });
        let chosen: Vec<Vec<Range>> = pieces.into_iter().collect::<Result<_>>()?;
        Ranges::new(full.shape(), chosen.into_iter().flatten().collect())
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a number of steps, not negative"
    )]
    fn range(
        &self,
        full: Range,
        parts: &[Segment],
        weights: &[f32],
        costs: &Costs<'_>,
    ) -> Result<Range> {
        let rule = Rule::of(&self.scheme);
        let mut change = Vec::new();
        let mut best = (f64::INFINITY, full);
        let tried = (f32::from(self.steps) * self.max_shrink) as u16;
        for step in 0..tried.max(1) {
            let fraction = 1.0 - f32::from(step) / f32::from(self.steps);
            let range = Range::new(fraction * full.min(), fraction * full.max())?;
            let parameter = Parameter::from_range(&self.scheme, range)?;
            let mut cost = 0.0;
            for part in parts {
                let weights = &weights[part.start..part.start + part.len];
                change.resize(part.len, 0.0);
                loops::images(weights, &mut change, &parameter, rule);
                for (change, &weight) in change.iter_mut().zip(weights) {
                    *change -= weight;
                }
                cost += costs.of(part.column, &change);
            }
            if cost < best.0 {
                best = (cost, range);
            }
        }
        Ok(best.1)
    }
}

impl Quantizer for AwqClip {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let ranges = self.ranges(weights.view())?;
        QTensor::quantize(&weights, &Affine::from_ranges(&self.scheme, &ranges)?)
    }
}

/// Consecutive weights of one row that share a parameter.
#[derive(Debug, Clone, Copy)]
struct Segment {
    start: usize,
    column: usize,
    len: usize,
}

/// The segments of each parameter of a matrix.
fn segments(groups: &Groups, channels: usize) -> Vec<Vec<Segment>> {
    let mut segments = vec![Vec::new(); groups.parameters()];
    for row in 0..groups.len() / channels.max(1) {
        for run in groups.runs(row * channels..(row + 1) * channels) {
            let column = run.start - row * channels;
            let one = |at: usize, len: usize| Segment {
                start: run.start + at,
                column: column + at,
                len,
            };
            if run.each {
                for at in 0..run.len {
                    segments[run.parameter + at].push(one(at, 1));
                }
            } else {
                segments[run.parameter].push(one(0, run.len));
            }
        }
    }
    segments
}
