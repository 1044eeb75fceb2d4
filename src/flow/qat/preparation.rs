//! Fake-quants from a recipe and what post-training quantization gives.

use std::{collections::BTreeMap, fmt, sync::Arc};

use ndarray::{ArrayRef2, ArrayView2, ArrayViewMut2, Ix2};

use super::{QatLayer, QatModel, layer::LayerInput};
use crate::{
    affine::Affine,
    calibrate::{MeanSquaredError, ranges_of},
    error::{Error, Result},
    flow::{FloatLayer, InputStatistics, Plan, Recipe, Treatment},
    observe::MovingAverageMinMax,
    qat::{
        Clipped, DynamicFakeQuant, FakeQuant, LearnedFakeQuant, Lsq, Oscillations, StepAndOffset,
        StepSize,
    },
    scheme::{Format, Granularity, Mapping, Scheme},
    tensor::QTensor,
};

/// Where scales, zero points and weights start from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum QatStart {
    /// The ranges of least squared error; weights as they are.
    #[default]
    MeanSquaredError,
    /// The scales of LSQ, [`Lsq::initial`]; weights as they are.
    Lsq,
    /// What the method of the recipe makes of each layer, GPTQ for instance: its scales and zero
    /// points, and weights moved to the nearest values that have its codes.
    Method,
}

/// A float layer that is to be trained.
#[derive(Debug)]
pub struct FloatWeights<'a> {
    name: &'a str,
    weights: ArrayViewMut2<'a, f32>,
    inputs: Option<&'a InputStatistics>,
}

impl<'a> FloatWeights<'a> {
    /// A layer of this name, with weights `[out, in]`, which [`QatStart::Method`] moves.
    #[must_use]
    pub fn new(name: &'a str, weights: ArrayViewMut2<'a, f32>) -> Self {
        Self {
            name,
            weights,
            inputs: None,
        }
    }

    /// With what calibration has seen of its inputs: methods read it, and static ranges of inputs
    /// start from it.
    #[must_use]
    pub fn with_inputs(mut self, inputs: &'a InputStatistics) -> Self {
        self.inputs = Some(inputs);
        self
    }
}

/// What a fake-quant is made from.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct QatSeed<'a> {
    /// The name of the layer.
    pub layer: &'a str,
    /// Its weights, `[out, in]`; none for its inputs.
    pub weights: Option<ArrayView2<'a, f32>>,
    /// The scheme of the recipe.
    pub scheme: &'a Scheme,
    /// What to start from; none for inputs with a range of their own for each row.
    pub start: Option<&'a Affine>,
}

type Make = dyn Fn(&QatSeed<'_>) -> Result<Box<dyn FakeQuant>> + Send + Sync;

/// Prepares the layers of a model for training, by the [`Recipe`] that quantizes it after training.
///
/// Unless told otherwise, steps are learned as LSQ has it ([`StepSize`], and [`StepAndOffset`] where
/// zero points are real), and inputs per row have their own ranges ([`DynamicFakeQuant`]).
/// Inputs with static ranges start from [what calibration has seen](FloatWeights::with_inputs), or
/// else observe what they see in training ([`QatLayer::observe`]).
///
/// Any fake-quant serves, a paper's or one's own:
///
/// ```
/// use lowbit::{Granularity, Scheme, flow::{FloatWeights, Pipeline, QatPreparation, Recipe, Treatment}};
/// use lowbit::qat::{BitNet, DynamicFakeQuant, MeanMagnitude, Plain};
/// use ndarray::array;
///
/// let ternary = Treatment::new(Scheme::int(2).narrow_range().build()?, Pipeline::nearest())
///     .with_activations(Scheme::int(8).per_row().build()?);
/// let recipe = Recipe::new().quantize("*", ternary);
/// let mut weights = array![[0.9_f32, -0.2], [-1.0, 0.1]];
/// let (qat, plan) = QatPreparation::new(&recipe)
///     .with_weights(|seed| {
///         let fake = DynamicFakeQuant::new(*seed.scheme, Plain);
///         Ok(Box::new(fake.with_calibrator(MeanMagnitude::default())))
///     })
///     .prepare(&mut [FloatWeights::new("up", weights.view_mut())])?;
/// assert_eq!(qat.layer("up")?.fake_weights(&weights)?, array![[0.55, 0.0], [-0.55, 0.0]]);
/// assert_eq!(plan.quantized_layers, ["up"]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Clone)]
pub struct QatPreparation<'a> {
    recipe: &'a Recipe,
    start: QatStart,
    weights: Arc<Make>,
    inputs: Arc<Make>,
    momentum: Option<f32>,
}

impl fmt::Debug for QatPreparation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QatPreparation")
            .field("recipe", &self.recipe)
            .field("start", &self.start)
            .field("momentum", &self.momentum)
            .finish_non_exhaustive()
    }
}

impl<'a> QatPreparation<'a> {
    /// By this recipe, from the ranges of least squared error, with learned steps.
    #[must_use]
    pub fn new(recipe: &'a Recipe) -> Self {
        Self {
            recipe,
            start: QatStart::default(),
            weights: Arc::new(learned_steps),
            inputs: Arc::new(learned_steps),
            momentum: None,
        }
    }

    /// From another start.
    #[must_use]
    pub fn with_start(mut self, start: QatStart) -> Self {
        self.start = start;
        self
    }

    /// With other fake-quants for weights.
    #[must_use]
    pub fn with_weights(
        mut self,
        make: impl Fn(&QatSeed<'_>) -> Result<Box<dyn FakeQuant>> + Send + Sync + 'static,
    ) -> Self {
        self.weights = Arc::new(make);
        self
    }

    /// With other fake-quants for inputs. They must use the scheme they are given, and
    /// [`FakeQuant::restart`] where nothing was calibrated.
    #[must_use]
    pub fn with_inputs(
        mut self,
        make: impl Fn(&QatSeed<'_>) -> Result<Box<dyn FakeQuant>> + Send + Sync + 'static,
    ) -> Self {
        self.inputs = Arc::new(make);
        self
    }

    /// With oscillations of weights tracked, with this momentum ([`Oscillations::new`]).
    ///
    /// # Errors
    /// [`Error::InvalidOption`] as [`Oscillations::new`].
    pub fn with_oscillations(mut self, momentum: f32) -> Result<Self> {
        Oscillations::new(momentum)?;
        self.momentum = Some(momentum);
        Ok(self)
    }

    /// The fake-quants of the layers that the recipe quantizes, and what the recipe makes of all.
    ///
    /// # Errors
    /// [`Error::Layer`] with the errors of a layer: [`Error::NonFinite`] for weights that are not
    /// finite; [`Error::Empty`] for [`QatStart::Method`] without statistics of its inputs;
    /// [`Error::Unsupported`] for a method that transforms inputs, and for inputs with neither one
    /// range nor one a row; [`Error::Mismatch`] for a name that two layers have; those of the method
    /// and of fake-quants of the caller's.
    pub fn prepare(&self, layers: &mut [FloatWeights<'_>]) -> Result<(QatModel, Plan)> {
        let mut prepared = BTreeMap::new();
        for layer in &mut *layers {
            if let Some(treatment) = self.recipe.treatment(layer.name) {
                if prepared.contains_key(layer.name) {
                    return Err(Error::Mismatch {
                        what: "names of layers",
                        expected: "each once".into(),
                        got: format!("{:?} twice", layer.name),
                    });
                }
                let one = self.layer(treatment, layer);
                let one = one.map_err(Error::in_layer(layer.name))?;
                prepared.insert(layer.name.to_owned(), one);
            }
        }
        let plan = self.recipe.plan(layers.iter().map(|layer| layer.name));
        Ok((QatModel { layers: prepared }, plan))
    }

    fn layer(&self, treatment: &Treatment, layer: &mut FloatWeights<'_>) -> Result<QatLayer> {
        let scheme = *treatment.scheme();
        let start = match self.start {
            QatStart::MeanSquaredError => {
                let calibrator = MeanSquaredError::default();
                let ranges = ranges_of(&calibrator, &layer.weights, &scheme, None)?;
                Affine::from_ranges(&scheme, &ranges)?
            }
            QatStart::Lsq => Lsq::initial(&layer.weights, &scheme)?,
            QatStart::Method => {
                let quantized = by_method(treatment, layer)?;
                move_to_codes(&mut layer.weights, &quantized)?;
                quantized.affine()
            }
        };
        let weights = (self.weights)(&QatSeed {
            layer: layer.name,
            weights: Some(layer.weights.view()),
            scheme: &scheme,
            start: Some(&start),
        })?;
        let input = match treatment.activations() {
            None => None,
            Some(scheme) => Some(self.input(scheme, layer)?),
        };
        Ok(QatLayer {
            weights,
            weights_start: start,
            target: scheme,
            input,
            oscillations: self.momentum.map(Oscillations::new).transpose()?,
        })
    }

    fn input(&self, scheme: &Scheme, layer: &FloatWeights<'_>) -> Result<LayerInput> {
        let start = match (scheme.granularity(), layer.inputs) {
            (Granularity::PerRow, _) | (Granularity::PerTensor, None) => None,
            (Granularity::PerTensor, Some(inputs)) => Some(inputs.start(scheme)?),
            _ => {
                return Err(Error::Unsupported {
                    operation: "inputs of a layer",
                    expected: "one range, or one for each row",
                    got: scheme.to_string(),
                });
            }
        };
        let is_observed = start.is_none() && scheme.granularity() == Granularity::PerTensor;
        // What is observed starts from the first batch; until then nothing runs.
        let placeholder = Affine::per_tensor(*scheme, 1.0, zero_of(scheme));
        let placeholder = if is_observed {
            Some(placeholder?)
        } else {
            None
        };
        let fake = (self.inputs)(&QatSeed {
            layer: layer.name,
            weights: None,
            scheme,
            start: start.as_ref().or(placeholder.as_ref()),
        })?;
        Ok(LayerInput {
            fake,
            scheme: *scheme,
            start,
            observer: is_observed.then(|| MovingAverageMinMax::new(scheme.granularity())),
            observing: true,
            enabled: true,
        })
    }
}

/// A zero point that the scheme allows.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
fn zero_of(scheme: &Scheme) -> f32 {
    if scheme.mapping() == Mapping::Asymmetric {
        0.clamp(scheme.quant_min(), scheme.quant_max()) as f32
    } else {
        scheme.middle() as f32
    }
}

/// LSQ, LSQ+ where zero points are real, and the ranges of each row.
fn learned_steps(seed: &QatSeed<'_>) -> Result<Box<dyn FakeQuant>> {
    Ok(match seed.start {
        None => Box::new(DynamicFakeQuant::new(*seed.scheme, Clipped)),
        Some(start) if seed.scheme.mapping() == Mapping::AsymmetricFloat => {
            Box::new(LearnedFakeQuant::new(start.clone(), StepAndOffset, Lsq)?)
        }
        Some(start) => Box::new(LearnedFakeQuant::new(start.clone(), StepSize, Lsq)?),
    })
}

/// What the method of the recipe makes of a layer.
fn by_method(treatment: &Treatment, layer: &FloatWeights<'_>) -> Result<QTensor> {
    let inputs = layer.inputs.ok_or_else(|| Error::Empty {
        what: "statistics of the layer's inputs, which the method starts from".into(),
    })?;
    let float = FloatLayer {
        name: layer.name,
        weights: layer.weights.view(),
        scheme: *treatment.scheme(),
        inputs,
        reads_alone: false,
    };
    let quantized = treatment.method().quantize(&float, &mut Vec::new())?;
    if quantized.transform().is_some() {
        return Err(Error::Unsupported {
            operation: "training from the result of a method",
            expected: "a method that leaves inputs as they are",
            got: treatment.method().name(),
        });
    }
    Ok(quantized.weights().clone())
}

/// The part of half a step that weights keep from the border of their code.
const MARGIN: f32 = 0.98;

/// Moves each weight to the nearest value that has the code of a quantized tensor, a little inside;
/// small floats to the value itself.
fn move_to_codes(weights: &mut ArrayRef2<f32>, quantized: &QTensor) -> Result<()> {
    crate::affine::same_shape("quantized weights", weights.shape(), quantized.shape())?;
    let levels = quantized.dequantize::<f32>();
    let levels = levels.into_dimensionality::<Ix2>().map_err(Error::other)?;
    if matches!(quantized.scheme().format(), Format::Float(_)) {
        weights.assign(&levels);
        return Ok(());
    }
    let affine = quantized.affine();
    let groups = affine.groups(quantized.shape())?;
    let elements = weights.iter_mut().zip(&levels);
    for ((weight, &level), parameter) in elements.zip(groups.parameters_of_elements()) {
        let (half, range) = (
            0.5 * MARGIN * affine.scale()[parameter],
            affine.range(parameter)?,
        );
        // What lies beyond the last codes has them all the same.
        if level > range.min() {
            *weight = weight.max(level - half);
        }
        if level < range.max() {
            *weight = weight.min(level + half);
        }
    }
    Ok(())
}
