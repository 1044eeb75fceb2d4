//! Ranges of inputs that are quantized under parameters fixed ahead.

use super::{LayerReport, QuantizedLayer, Taps, Treatment, block_work::Task};
use crate::{
    affine::Affine,
    calibrate::ranges,
    error::{Error, Result},
    kernel::Activations,
    observe::{HistogramObserver, Observer, ObserverExt},
    ptq::TransformExt,
    scheme::Granularity,
};

use super::InputTransform;

/// Histograms of what layers of a stage multiply their weights by: their inputs, transformed as each
/// layer does it, which is known only once its weights are quantized. So they take a pass over the
/// samples of their own.
pub(super) struct StaticInputs<'a>(Vec<StaticInput<'a>>);

struct StaticInput<'a> {
    /// Which layer of the stage.
    task: usize,
    name: &'a str,
    layer: &'a str,
    treatment: &'a Treatment,
    transform: Option<InputTransform>,
    histogram: HistogramObserver,
}

impl<'a> StaticInputs<'a> {
    /// Those of the layers that want any; `names` are those of the stage's inputs.
    pub(super) fn of(
        names: &[&'a str],
        tasks: &[Task<'a>],
        done: &[(QuantizedLayer, LayerReport)],
    ) -> Option<Self> {
        let layers = tasks.iter().zip(done).enumerate();
        let wanted = layers.filter_map(|(task, (&(input, layer, treatment), (quantized, _)))| {
            let scheme = treatment.activations()?;
            (scheme.granularity() != Granularity::PerRow).then(|| StaticInput {
                task,
                name: names[input],
                layer,
                treatment,
                transform: quantized.transform().cloned(),
                histogram: HistogramObserver::new(scheme.granularity()),
            })
        });
        let wanted: Vec<_> = wanted.collect();
        (!wanted.is_empty()).then_some(Self(wanted))
    }

    /// Takes what a sample shows into account.
    pub(super) fn observe(&mut self, taps: &Taps) -> Result<()> {
        for input in &mut self.0 {
            let Some(x) = taps.inputs(input.name) else {
                continue; // an expert that no token of this sample went to
            };
            let seen = match &input.transform {
                None => input.histogram.observe(x),
                Some(transform) => {
                    let x = transform.as_transform().inputs(x)?;
                    input.histogram.observe(&x)
                }
            };
            seen.map_err(Error::in_layer(input.layer))?;
        }
        Ok(())
    }

    /// Fixes the parameters; inputs of which nothing was seen stay in floats, with a warning.
    pub(super) fn choose(self, done: &mut [(QuantizedLayer, LayerReport)]) -> Result<()> {
        for input in self.0 {
            let (quantized, report) = &mut done[input.task];
            let Some(scheme) = input.treatment.activations() else {
                continue;
            };
            if input.histogram.parameter_shape().is_none() {
                report
                    .warnings
                    .push("no token seen: its inputs stay in floats".into());
                continue;
            }
            let chosen = ranges(
                input.treatment.activation_calibrator(),
                &input.histogram,
                scheme,
            )
            .and_then(|ranges| Affine::from_ranges(scheme, &ranges))
            .map_err(Error::in_layer(input.layer))?;
            *quantized = quantized
                .clone()
                .with_activations(Activations::Static(chosen));
        }
        Ok(())
    }
}
