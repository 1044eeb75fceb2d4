//! The methods of the crate, composed for the layers of a model.

mod words;

use ndarray::{Array2, CowArray, Ix2};

use super::{FloatLayer, InputTransform, LayerMethod, QuantizedLayer};
use crate::{
    affine::Range,
    calibrate::{Calibrator, FullRange, LeastSquares, MeanSquaredError},
    error::Result,
    observe::{Hessian, InputDeviation, Statistics},
    ptq::{
        AdaRound, Awq, Compensation, Gptq, Hqq, LayerInputs, QuantEase, Quantizer, QuantizerExt,
        Rotation, RoundToNearest, SignRound, SmoothQuant, TransformExt, gptq::GroupFit,
    },
    scheme::Scheme,
    tensor::QTensor,
};

/// How the range of each group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum RangeChoice {
    /// All of it: [`FullRange`].
    Full,
    /// [`MeanSquaredError`].
    MeanSquaredError,
    /// [`LeastSquares`].
    #[default]
    LeastSquares,
}

impl Calibrator for RangeChoice {
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        match self {
            Self::Full => FullRange.range(statistics, scheme),
            Self::MeanSquaredError => MeanSquaredError::default().range(statistics, scheme),
            Self::LeastSquares => LeastSquares::default().range(statistics, scheme),
        }
    }
}

/// What happens to weights and inputs before weights are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
#[non_exhaustive]
pub enum Preparation {
    /// Nothing.
    #[default]
    None,
    /// Channels are scaled as [`Awq`] finds best.
    Awq,
    /// Outliers of inputs are moved into the weights by [`SmoothQuant`] with this `α`, where inputs
    /// are quantized too.
    Smooth(f32),
    /// Rows are rotated by a Hadamard matrix with random signs from this seed.
    Rotation(u64),
}

/// How weights are rounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Rounding {
    /// [`RoundToNearest`].
    #[default]
    Nearest,
    /// [`Hqq`].
    Hqq,
    /// [`Gptq`].
    Gptq,
    /// [`Gptq::asymmetric`].
    Gptaq,
}

/// How the codes are improved afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Refinement {
    /// They are not.
    #[default]
    None,
    /// [`QuantEase`].
    QuantEase,
    /// [`SignRound`].
    SignRound,
    /// [`AdaRound`].
    AdaRound,
}

/// Quantizes a layer in up to five steps, each of which may be left out: compensate for the
/// layers before ([`Compensation`]), scale or rotate, choose ranges, round, refine.
///
/// It has a name of words joined by `+`, from which it can be read again: `gptq`,
/// `compensate+gptq+quantease`, `rotate+rtn`. Ranges are those of least squares unless a word says
/// `full` or `mse`; but `rtn` alone has the full range, and `hqq` begins at the least squared error.
///
/// ```
/// use lowbit::flow::{Pipeline, Refinement, Preparation};
/// let pipeline = Pipeline::gptq()
///     .with_preparation(Preparation::Rotation(0))
///     .with_compensation(0.5, 0.1)?
///     .with_refinement(Refinement::QuantEase);
/// assert_eq!(pipeline.to_string(), "compensate=0.5,0.1+rotate=0+gptq+quantease");
/// assert_eq!("compensate=0.5,0.1+rotate+gptq+quantease".parse::<Pipeline>()?, pipeline);
/// assert!("gptq+rounding".parse::<Pipeline>().is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Pipeline {
    compensation: Option<Share>,
    preparation: Preparation,
    ranges: RangeChoice,
    rounding: Rounding,
    refinement: Refinement,
}

/// What GPTQ adds to the diagonal of the Hessian, by its mean, at 4 bits and up, and below.
const DAMPING: f64 = 0.01;
const LOW_BIT_DAMPING: f64 = 0.1;
/// Multiples of ranges that GPTQ tries where a row is one group, at 4 bits and below.
const ROW_SEARCH: u16 = 18;

/// `α` and damping of a compensation.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Share(f64, f64);

impl Pipeline {
    /// Round-to-nearest over the full range.
    #[must_use]
    pub fn nearest() -> Self {
        Self::default().with_ranges(RangeChoice::Full)
    }

    /// HQQ, from ranges of the least squared error: from full ranges, as published, it stays far
    /// behind below 4 bits, and where there is no zero point to move it was not published at all.
    #[must_use]
    pub fn hqq() -> Self {
        Self {
            rounding: Rounding::Hqq,
            ..Self::default()
        }
        .with_ranges(RangeChoice::MeanSquaredError)
    }

    /// GPTQ with ranges of least squares: of each group as its turn comes, and of a row that is one
    /// group at several multiples at 4 bits and below ([`Gptq::with_row_search`]). Its damping is
    /// 0.01, below 4 bits 0.1.
    #[must_use]
    pub fn gptq() -> Self {
        Self {
            rounding: Rounding::Gptq,
            ..Self::default()
        }
    }

    /// GPTAQ with ranges of least squares.
    #[must_use]
    pub fn gptaq() -> Self {
        Self {
            rounding: Rounding::Gptaq,
            ..Self::default()
        }
    }

    /// The one that got furthest on a small language model with no bits beside those of codes, scales
    /// and zero points: compensation, GPTQ, and QuantEase after it. Learning the rounding of whole
    /// blocks ([`LearnedRounding`](super::LearnedRounding)) goes further still below 4 bits.
    #[must_use]
    pub fn best() -> Self {
        Self {
            compensation: Some(Share(0.9, 0.1)),
            refinement: Refinement::QuantEase,
            ..Self::gptq()
        }
    }

    /// Ranges chosen otherwise.
    #[must_use]
    pub fn with_ranges(mut self, ranges: RangeChoice) -> Self {
        self.ranges = ranges;
        self
    }

    /// Weights and inputs prepared.
    #[must_use]
    pub fn with_preparation(mut self, preparation: Preparation) -> Self {
        self.preparation = preparation;
        self
    }

    /// Weights moved first, to make up for the layers before: [`Compensation`].
    ///
    /// # Errors
    /// Those of [`Compensation::new`].
    pub fn with_compensation(mut self, alpha: f64, damping: f64) -> Result<Self> {
        Compensation::new(alpha, damping)?;
        self.compensation = Some(Share(alpha, damping));
        Ok(self)
    }

    /// Codes improved afterwards.
    #[must_use]
    pub fn with_refinement(mut self, refinement: Refinement) -> Self {
        self.refinement = refinement;
        self
    }

    /// The weights to aim for.
    fn target<'a>(&self, layer: &'a FloatLayer<'_>) -> Result<CowArray<'a, f32, Ix2>> {
        let (Some(Share(alpha, damping)), Some(deviation)) =
            (self.compensation, layer.inputs.deviation())
        else {
            return Ok(layer.weights.view().into());
        };
        // Only one layer may make up for what the stream has lost.
        let residual = layer.inputs.residual().filter(|residual| {
            layer.reads_alone && residual.dim() == (layer.weights.nrows(), layer.weights.ncols())
        });
        let compensation = Compensation::new(alpha, damping)?;
        let moved = compensation.weights(&layer.weights, deviation, residual)?;
        Ok(moved.into())
    }

    fn transform(
        &self,
        layer: &FloatLayer<'_>,
        target: &Array2<f32>,
    ) -> Result<Option<InputTransform>> {
        Ok(match self.preparation {
            Preparation::None => None,
            Preparation::Awq => {
                let inputs = LayerInputs::hessian(layer.inputs.hessian().clone());
                let rounding =
                    RoundToNearest::new(layer.scheme).with_calibrator(MeanSquaredError::default());
                let scales = Awq::new(layer.scheme).with_quantizer(rounding);
                let scales = scales.scales(&inputs, &[target.view()])?;
                Some(InputTransform::Scales(scales))
            }
            Preparation::Smooth(alpha) => {
                let largest = layer.inputs.largest();
                let scales = SmoothQuant::new(alpha)?.scales(largest, &[target.view()])?;
                Some(InputTransform::Scales(scales))
            }
            Preparation::Rotation(seed) => {
                let channels = target.ncols();
                let power = 1 << channels.trailing_zeros();
                let rotation =
                    Rotation::hadamard(channels).or_else(|_| Rotation::blocks(channels, power))?;
                Some(InputTransform::Rotation(rotation.with_signs(seed)))
            }
        })
    }

    fn round(
        &self,
        scheme: Scheme,
        target: &Array2<f32>,
        (hessian, deviation): (&Hessian, Option<&InputDeviation>),
        warnings: &mut Vec<String>,
    ) -> Result<QTensor> {
        let start: Box<dyn Quantizer + '_> = match self.rounding {
            Rounding::Nearest => Box::new(RoundToNearest::new(scheme).with_calibrator(self.ranges)),
            Rounding::Hqq => Box::new(Hqq::new(scheme).with_calibrator(self.ranges)),
            Rounding::Gptq | Rounding::Gptaq => {
                let gptq = match deviation {
                    Some(deviation) if self.rounding == Rounding::Gptaq => {
                        Gptq::asymmetric(scheme, deviation)
                    }
                    _ => Gptq::new(scheme, hessian),
                };
                let damping = if scheme.bits() < 4 {
                    LOW_BIT_DAMPING
                } else {
                    DAMPING
                };
                let gptq = gptq.with_calibrator(self.ranges).with_damping(damping)?;
                let multiples = if scheme.bits() > 4 { 0 } else { ROW_SEARCH };
                let gptq = match self.ranges {
                    RangeChoice::Full => gptq,
                    _ => gptq
                        .with_group_fit(GroupFit::Fresh)
                        .with_row_search(multiples),
                };
                if self.refinement == Refinement::None {
                    let (quantized, report) = gptq.quantize_with_report(target)?;
                    warnings.extend(report.warnings.iter().map(ToString::to_string));
                    return Ok(quantized);
                }
                Box::new(gptq)
            }
        };
        match self.refinement {
            Refinement::None => start.quantize(target),
            Refinement::QuantEase => QuantEase::after(start, hessian).quantize(target),
            Refinement::SignRound => SignRound::new(scheme, hessian)
                .with_start(start)
                .quantize(target),
            Refinement::AdaRound => AdaRound::new(scheme, hessian)
                .with_start(start)
                .quantize(target),
        }
    }
}

impl LayerMethod for Pipeline {
    fn name(&self) -> String {
        self.to_string()
    }

    fn compares_with_float(&self) -> bool {
        self.compensation.is_some() || self.rounding == Rounding::Gptaq
    }

    fn quantize(
        &self,
        layer: &FloatLayer<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<QuantizedLayer> {
        let hessian = layer.inputs.hessian();
        if hessian.diagonal().iter().all(|&square| square == 0.0) {
            // Nothing is known: each weight for itself.
            let nearest = RoundToNearest::new(layer.scheme).with_calibrator(self.ranges);
            return QuantizedLayer::new(nearest.quantize(&layer.weights)?);
        }
        let target = self.target(layer)?.into_owned();
        let deviation = layer.inputs.deviation();
        let Some(transform) = self.transform(layer, &target)? else {
            let quantized = self.round(layer.scheme, &target, (hessian, deviation), warnings)?;
            return QuantizedLayer::new(quantized);
        };
        let by = transform.as_transform();
        let target = by.weights(&target)?;
        let deviation = match deviation {
            Some(deviation) if self.rounding == Rounding::Gptaq => Some(by.deviation(deviation)?),
            _ => None,
        };
        let hessian = match &deviation {
            Some(deviation) => deviation.hessian().clone(),
            None => by.hessian(hessian)?,
        };
        let seen = (&hessian, deviation.as_ref());
        let quantized = self.round(layer.scheme, &target, seen, warnings)?;
        QuantizedLayer::new(quantized)?.with_transform(transform)
    }
}
