//! The fake-quants of one layer.

use ndarray::{Array, Array2, ArrayD, ArrayRef, ArrayRef2, Dimension, IxDyn};

use super::QatLayerState;
use crate::{
    affine::{Affine, Ranges},
    calibrate::{FullRange, MeanSquaredError, ranges, ranges_of},
    error::{Error, Result},
    flow::QuantizedLayer,
    kernel::Activations,
    observe::{MovingAverageMinMax, Observer, ObserverExt},
    qat::{FakeQuant, FakeQuantExt, Gradients, Oscillations, Stage, dampening_loss},
    scheme::{Granularity, Scheme, SchemeBuilder},
};

/// The fake-quants of a linear layer in training: that of its weights `[out, in]`, and that of its
/// inputs if these are quantized too. A convolution is a linear layer of patches.
///
/// Made by [`QatPreparation`](super::QatPreparation). The weights themselves stay with the model.
///
/// **The law.** [`convert`](Self::convert) gives a layer that computes what the forward pass in
/// training computed, `fake_input(x) · fake_weights(w)ᵀ`:
/// - bit for bit where scales are powers of two and no sum of products exceeds 24 bits, since then
///   the sums of training are exact, as the integer ones always are;
/// - otherwise within `(in + 4) · 2⁻²³ · Σ |x̂ · ŵ|` for each output, what the sums of training may
///   have lost.
#[derive(Debug)]
pub struct QatLayer {
    pub(super) weights: Box<dyn FakeQuant>,
    /// What the fake-quant of the weights was started from last.
    pub(super) weights_start: Affine,
    /// The scheme that is deployed.
    pub(super) target: Scheme,
    pub(super) input: Option<LayerInput>,
    pub(super) oscillations: Option<Oscillations>,
}

/// The fake-quant of the inputs.
#[derive(Debug)]
pub(super) struct LayerInput {
    pub(super) fake: Box<dyn FakeQuant>,
    pub(super) scheme: Scheme,
    /// What the fake-quant was started from last; none before the first batch was seen.
    pub(super) start: Option<Affine>,
    /// Sees the inputs of training, where calibration has not.
    pub(super) observer: Option<MovingAverageMinMax>,
    pub(super) observing: bool,
    pub(super) enabled: bool,
}

impl LayerInput {
    fn is_dynamic(&self) -> bool {
        self.scheme.granularity() == Granularity::PerRow
    }
}

impl QatLayer {
    /// The fake-quant of the weights.
    #[must_use]
    pub fn weights(&self) -> &dyn FakeQuant {
        &*self.weights
    }

    /// The fake-quant of the weights, for an optimizer to set its parameters.
    pub fn weights_mut(&mut self) -> &mut dyn FakeQuant {
        &mut *self.weights
    }

    /// The fake-quant of the inputs, if they are quantized.
    #[must_use]
    pub fn input(&self) -> Option<&dyn FakeQuant> {
        self.input.as_ref().map(|input| &*input.fake)
    }

    /// The fake-quant of the inputs, for an optimizer to set its parameters.
    pub fn input_mut(&mut self) -> Option<&mut dyn FakeQuant> {
        match &mut self.input {
            Some(input) => Some(&mut *input.fake),
            None => None,
        }
    }

    /// What is known of weights that oscillate, if they are tracked.
    #[must_use]
    pub fn oscillations(&self) -> Option<&Oscillations> {
        self.oscillations.as_ref()
    }

    /// Shows a batch of inputs to the observer of a layer that was not calibrated; the range is their
    /// moving average until the [`Stage`] freezes it. Without effect otherwise.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for inputs that are not finite; [`Error::ShapeMismatch`] for other
    /// channels than before. The range is then as before.
    pub fn observe<D: Dimension>(&mut self, x: &ArrayRef<f32, D>) -> Result<()> {
        let Some(input) = &mut self.input else {
            return Ok(());
        };
        let Some(observer) = input.observer.as_mut().filter(|_| input.observing) else {
            return Ok(());
        };
        observer.observe(x)?;
        let ranges: Ranges = ranges(&FullRange, &*observer, &input.scheme)?;
        let affine = Affine::from_ranges(&input.scheme, &ranges)?;
        input.fake.restart(&affine)?;
        input.start = Some(affine);
        Ok(())
    }

    /// The weights that the layer computes with, in their shape.
    ///
    /// # Errors
    /// Those of [`FakeQuant::forward_view`].
    pub fn fake_weights(&self, weights: &ArrayRef2<f32>) -> Result<Array2<f32>> {
        self.weights.forward(weights)
    }

    /// The inputs that the layer computes with, in their shape; as they are if they are not
    /// quantized.
    ///
    /// # Errors
    /// Those of [`FakeQuant::forward_view`]; [`Error::Empty`] for a layer without calibration that
    /// has not [observed](Self::observe) anything.
    pub fn fake_input<D: Dimension>(&self, x: &ArrayRef<f32, D>) -> Result<Array<f32, D>> {
        match self.seen()? {
            Some(input) => input.fake.forward(x),
            None => Ok(x.to_owned()),
        }
    }

    /// The gradients of the inputs and of what their fake-quant learns, from that of
    /// [`fake_input`](Self::fake_input).
    ///
    /// # Errors
    /// Those of [`FakeQuant::backward_view`], and of [`fake_input`](Self::fake_input).
    pub fn input_backward<D: Dimension>(
        &self,
        x: &ArrayRef<f32, D>,
        gradient: &ArrayRef<f32, D>,
    ) -> Result<Gradients<D>> {
        if let Some(input) = self.seen()? {
            return input.fake.backward(x, gradient);
        }
        crate::affine::same_shape("gradient", x.shape(), gradient.shape())?;
        Ok(Gradients {
            input: gradient.to_owned(),
            scale: vec![],
            zero_point: vec![],
        })
    }

    /// The fake-quant of the inputs, once it has a range or needs none.
    fn seen(&self) -> Result<Option<&LayerInput>> {
        match &self.input {
            Some(input) if input.enabled && !input.is_dynamic() && input.start.is_none() => {
                Err(unobserved())
            }
            input => Ok(input.as_ref()),
        }
    }

    /// The gradients of the weights and of what their fake-quant learns, from that of
    /// [`fake_weights`](Self::fake_weights), with the dampening of the stage added and without the
    /// part of frozen weights.
    ///
    /// # Errors
    /// Those of [`FakeQuant::backward_view`] and of [`dampening_loss`].
    pub fn weights_backward(
        &self,
        weights: &ArrayRef2<f32>,
        gradient: &ArrayRef2<f32>,
        stage: &Stage,
    ) -> Result<Gradients<ndarray::Ix2>> {
        let mut gradients = self.weights.backward(weights, gradient)?;
        if stage.weights && stage.dampening > 0.0 {
            let affine = self.weights.affine_view(weights.view().into_dyn())?;
            gradients.input += &dampening_loss(weights, &affine, stage.dampening)?.1;
        }
        if let Some(oscillations) = &self.oscillations {
            oscillations.mask(&mut gradients.input)?;
        }
        Ok(gradients)
    }

    /// After an optimizer's step: frozen weights are put back, the codes of the others are looked at,
    /// and those that oscillate more often than the stage allows are frozen. Without effect where
    /// oscillations are not tracked, or weights are not fake-quantized yet.
    ///
    /// # Errors
    /// Those of [`Oscillations::observe`].
    pub fn after_step(&mut self, weights: &mut ArrayRef2<f32>, stage: &Stage) -> Result<()> {
        let Some(oscillations) = self.oscillations.as_mut().filter(|_| stage.weights) else {
            return Ok(());
        };
        let affine = self.weights.affine_view(weights.view().into_dyn())?;
        oscillations.hold(weights, &affine)?;
        oscillations.observe(weights, &affine)?;
        if let Some(threshold) = stage.freezing
            && oscillations.freeze(threshold)? > 0
        {
            oscillations.hold(weights, &affine)?;
        }
        Ok(())
    }

    /// Switches to what a stage says. Where the bits of the weights change, scales start anew from
    /// the ranges of least squared error, and oscillations are forgotten.
    pub(super) fn begin(&mut self, stage: &Stage, weights: &ArrayRef2<f32>) -> Result<()> {
        self.weights.begin_step(stage.step);
        self.weights.switch(stage.weights)?;
        if let Some(input) = &mut self.input {
            input.fake.begin_step(stage.step);
            input.fake.switch(stage.activations)?;
            input.fake.freeze(!stage.observing);
            (input.enabled, input.observing) = (stage.activations, stage.observing);
        }
        let Some(bits) = stage.bits else {
            return Ok(());
        };
        let bits = bits.max(self.target.bits());
        if bits == self.weights_start.scheme().bits() {
            return Ok(());
        }
        let scheme = with_bits(&self.target, bits)?;
        let ranges = ranges_of(&MeanSquaredError::default(), weights, &scheme, None)?;
        let affine = Affine::from_ranges(&scheme, &ranges)?;
        self.weights.restart(&affine)?;
        self.weights_start = affine;
        if let Some(oscillations) = &mut self.oscillations {
            oscillations.reset();
        }
        Ok(())
    }

    /// The quantized layer that training computed with.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for weights that are not finite; [`Error::Mismatch`] while the weights
    /// have other bits than they shall be deployed with; [`Error::Empty`] if the inputs have no range
    /// yet; [`Error::ShapeMismatch`] for other weights than these.
    pub fn convert(&self, weights: &ArrayRef2<f32>) -> Result<QuantizedLayer> {
        let tensor = self.weights.convert(weights)?;
        if tensor.scheme().bits() != self.target.bits() {
            return Err(Error::Mismatch {
                what: "bits of the weights",
                expected: self.target.to_string(),
                got: format!("{}, as annealing left them", tensor.scheme()),
            });
        }
        let layer = QuantizedLayer::new(tensor)?;
        let Some(input) = &self.input else {
            return Ok(layer);
        };
        if input.is_dynamic() {
            return Ok(layer.with_activations(Activations::Dynamic(input.scheme)));
        }
        if input.start.is_none() {
            return Err(unobserved());
        }
        // Parameters per tensor go with any shape.
        let any = ArrayD::<f32>::zeros(IxDyn(&[0, weights.ncols()]));
        let affine = input.fake.affine_view(any.view())?;
        Ok(layer.with_activations(Activations::Static(affine)))
    }

    /// What training has changed, apart from the weights.
    #[must_use]
    pub fn state(&self) -> QatLayerState {
        QatLayerState {
            weights_start: self.weights_start.clone(),
            weights: self.weights.parameters(),
            input_start: self.input.as_ref().and_then(|input| input.start.clone()),
            input: self.input().map(FakeQuant::parameters),
            observer: self.input.as_ref().and_then(|input| input.observer.clone()),
            oscillations: self.oscillations.clone(),
        }
    }

    /// Goes on from a state: that of the same layer, prepared in the same way. One that is refused
    /// may have been taken over in part: prepare the layer anew.
    ///
    /// # Errors
    /// [`Error::Mismatch`] for the state of a layer with other parts; those of
    /// [`FakeQuant::restart`] and [`FakeQuant::set_parameters`].
    pub fn restore(&mut self, state: &QatLayerState) -> Result<()> {
        let parts = |input: bool, observer: bool, oscillations: bool| {
            format!("input: {input}, observer: {observer}, oscillations: {oscillations}")
        };
        let observer = self.input.as_ref().is_some_and(|i| i.observer.is_some());
        let expected = parts(self.input.is_some(), observer, self.oscillations.is_some());
        let got = parts(
            state.input.is_some(),
            state.observer.is_some(),
            state.oscillations.is_some(),
        );
        if expected != got {
            return Err(Error::Mismatch {
                what: "state of a layer in training",
                expected,
                got,
            });
        }
        self.weights.restart(&state.weights_start)?;
        self.weights.set_parameters(&state.weights)?;
        self.weights_start = state.weights_start.clone();
        self.oscillations = state.oscillations.clone();
        if let (Some(input), Some(parameters)) = (&mut self.input, &state.input) {
            if let Some(start) = &state.input_start {
                input.fake.restart(start)?;
                input.start = Some(start.clone());
            }
            input.fake.set_parameters(parameters)?;
            if let Some(observer) = &state.observer {
                if observer.granularity() != input.scheme.granularity() {
                    return Err(Error::Mismatch {
                        what: "granularity of the observer",
                        expected: input.scheme.granularity().to_string(),
                        got: observer.granularity().to_string(),
                    });
                }
                input.observer = Some(observer.clone());
            }
        }
        Ok(())
    }
}

fn unobserved() -> Error {
    Error::Empty {
        what: "observer of the layer's inputs".into(),
    }
}

/// The same scheme with other bits.
fn with_bits(scheme: &Scheme, bits: u32) -> Result<Scheme> {
    SchemeBuilder::from(*scheme).bits(bits).build()
}
