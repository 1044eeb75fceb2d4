//! The fake-quants of all layers.

use std::collections::BTreeMap;

use ndarray::ArrayView2;

use super::{QatLayer, QatState};
use crate::{
    error::{Error, Result},
    flow::QuantizedLayer,
    qat::Stage,
};

/// The fake-quants of the layers of a model, by name.
///
/// ```
/// use lowbit::{Scheme, flow::{FloatWeights, Pipeline, QatPreparation, Recipe, Treatment}};
/// use lowbit::qat::{ParameterRole, Schedule};
/// use ndarray::{Array2, array};
///
/// let x = Array2::from_shape_fn((32, 8), |(i, j)| ((i * 8 + j) as f32 * 0.37).sin());
/// let target = x.dot(&Array2::from_shape_fn((8, 2), |(i, j)| ((i + 3 * j) as f32).cos()));
/// let mut w = Array2::from_shape_fn((2, 8), |(i, j)| ((j + 3 * i) as f32).cos());
///
/// let treatment = Treatment::new(Scheme::int(3).per_axis(0).build()?, Pipeline::gptq())
///     .with_activations(Scheme::int(8).per_row().build()?);
/// let recipe = Recipe::new().quantize("layer", treatment);
/// let (mut qat, _) = QatPreparation::new(&recipe)
///     .prepare(&mut [FloatWeights::new("layer", w.view_mut())])?;
///
/// let schedule = Schedule::new(20)?.with_rates(0.05, 2, 0.1)?;
/// for step in 0..schedule.steps() {
///     let stage = schedule.at(step);
///     qat.begin(&stage, |_| Some(w.view()))?;
///     let layer = qat.layer_mut("layer")?;
///
///     let (fake_x, fake_w) = (layer.fake_input(&x)?, layer.fake_weights(&w)?);
///     let error = (fake_x.dot(&fake_w.t()) - &target) / 32.0;
///     let gradients = layer.weights_backward(&w, &error.t().dot(&fake_x), &stage)?;
///
///     w.scaled_add(-(stage.rate(ParameterRole::Weight) as f32), &gradients.input);
///     let fake = layer.weights_mut();
///     let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?;
///     let rate = stage.rate(ParameterRole::Quantizer) as f32;
///     let moved: Vec<f32> = fake.parameters().iter().zip(slopes).map(|(p, s)| p - rate * s).collect();
///     fake.set_parameters(&moved)?;
///     layer.after_step(&mut w, &stage)?;
/// }
///
/// let layer = qat.layer("layer")?;
/// let simulated = layer.fake_input(&x)?.dot(&layer.fake_weights(&w)?.t());
/// let packed = layer.convert(&w)?.pack(None)?;
/// assert!((packed.forward(&x)? - simulated).iter().all(|error| error.abs() < 1e-5));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct QatModel {
    pub(super) layers: BTreeMap<String, QatLayer>,
}

impl QatModel {
    /// The names of the layers, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.layers.keys().map(String::as_str)
    }

    /// A layer.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a name that has no fake-quants.
    pub fn layer(&self, name: &str) -> Result<&QatLayer> {
        self.layers.get(name).ok_or_else(|| unknown(name))
    }

    /// A layer, to be changed.
    ///
    /// # Errors
    /// As [`layer`](Self::layer).
    pub fn layer_mut(&mut self, name: &str) -> Result<&mut QatLayer> {
        self.layers.get_mut(name).ok_or_else(|| unknown(name))
    }

    /// Begins a step: switches every layer to what the stage says. `weights` gives the weights
    /// `[out, in]` of a layer as they are, from which scales start anew where bits change.
    ///
    /// A stage with fewer bits than a layer is to be deployed with leaves that layer at its own.
    ///
    /// # Errors
    /// [`Error::Layer`] with the errors of a layer: [`Error::Mismatch`] where `weights` gives none,
    /// [`Error::Unsupported`] for a fake-quant that cannot be switched or have other bits,
    /// [`Error::NonFinite`] for weights that are not finite where bits change.
    pub fn begin<'w>(
        &mut self,
        stage: &Stage,
        weights: impl Fn(&str) -> Option<ArrayView2<'w, f32>>,
    ) -> Result<()> {
        for (name, layer) in &mut self.layers {
            let begun = match weights(name) {
                Some(weights) => layer.begin(stage, &weights),
                None => Err(unknown(name)),
            };
            begun.map_err(Error::in_layer(name))?;
        }
        Ok(())
    }

    /// Every layer as training computed with it, given its weights.
    ///
    /// # Errors
    /// [`Error::Layer`] with those of [`QatLayer::convert`].
    pub fn convert<'w>(
        &self,
        weights: impl Fn(&str) -> Option<ArrayView2<'w, f32>>,
    ) -> Result<BTreeMap<String, QuantizedLayer>> {
        let layers = self.layers.iter().map(|(name, layer)| {
            let converted = match weights(name) {
                Some(weights) => layer.convert(&weights),
                None => Err(unknown(name)),
            };
            Ok((name.clone(), converted.map_err(Error::in_layer(name))?))
        });
        layers.collect()
    }

    /// What training has changed, apart from the weights.
    #[must_use]
    pub fn state(&self) -> QatState {
        let layers = self.layers.iter();
        QatState {
            layers: layers
                .map(|(name, layer)| (name.clone(), layer.state()))
                .collect(),
        }
    }

    /// Goes on from a state: that of the same model, prepared in the same way. Call
    /// [`begin`](Self::begin) for the next step as ever.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for a state of other layers; [`Error::Layer`] with those of
    /// [`QatLayer::restore`].
    pub fn restore(&mut self, state: &QatState) -> Result<()> {
        if !self.layers.keys().eq(state.layers.keys()) {
            let names = |names: Vec<&String>| format!("the layers {names:?}");
            return Err(Error::Mismatch {
                what: "state of a model in training",
                expected: names(self.layers.keys().collect()),
                got: names(state.layers.keys().collect()),
            });
        }
        for (name, layer) in &mut self.layers {
            if let Some(state) = state.layers.get(name) {
                layer.restore(state).map_err(Error::in_layer(name))?;
            }
        }
        Ok(())
    }
}

fn unknown(name: &str) -> Error {
    Error::Mismatch {
        what: "layer",
        expected: "one that was prepared, with its weights".into(),
        got: format!("{name:?}"),
    }
}
