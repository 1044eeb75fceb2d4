//! Proximal maps as a quantizer: they need the number of the step, and a grid that follows the
//! weights.

use lowbit::{
    Affine, QTensor, Result, Scheme,
    calibrate::{MeanSquaredError, ranges_of},
    prelude::*,
    qat::{Gradients, Proximal},
};
use ndarray::{ArrayD, ArrayViewD};

use crate::network::{Network, Steps};

/// Steps from one fit of the grid to the next.
const REFIT: u64 = 10;

/// The weights that a proximal map makes of latent ones; the gradient goes to the latent ones as it
/// is.
#[derive(Debug)]
pub struct ProximalFake {
    scheme: Scheme,
    proximal: Proximal,
    step: u64,
    affine: Option<Affine>,
}

impl ProximalFake {
    pub fn new(scheme: Scheme, proximal: Proximal) -> Self {
        Self {
            scheme,
            proximal,
            step: 0,
            affine: None,
        }
    }

    fn grid(&self, weights: &ArrayViewD<'_, f32>) -> Result<Affine> {
        match &self.affine {
            Some(affine) => Ok(affine.clone()),
            None => {
                let ranges = ranges_of(&MeanSquaredError::default(), weights, &self.scheme, None)?;
                Affine::from_ranges(&self.scheme, &ranges)
            }
        }
    }
}

impl FakeQuant for ProximalFake {
    /// Counts the step, and fits the grid now and then, until the map is rounding.
    fn observe_view(&mut self, weights: ArrayViewD<'_, f32>) -> Result<()> {
        if self.step.is_multiple_of(REFIT) && self.proximal.freedom(self.step) > 0.0 {
            self.affine = None;
            self.affine = Some(self.grid(&weights)?);
        }
        self.step += 1;
        Ok(())
    }

    fn forward_view(&self, weights: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        self.proximal
            .weights(self.step, &weights, &self.grid(&weights)?)
    }

    fn backward_view(
        &self,
        _: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        Ok(Gradients {
            input: gradient.to_owned(),
            scale: vec![],
            zero_point: vec![],
        })
    }

    fn convert_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        QTensor::quantize(&weights, &self.grid(&weights)?)
    }
}

/// Shows every quantizer the weights before each step.
pub struct Clock;

impl<F: FakeQuant> Steps<F> for Clock {
    fn begin(&mut self, network: &mut Network<F>) -> Result<()> {
        for layer in &mut network.0 {
            if let Some(fake) = &mut layer.fake {
                fake.weights.observe(&layer.weights)?;
            }
        }
        Ok(())
    }
}
