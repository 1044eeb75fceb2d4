//! Training with oscillating weights tracked, dampened or frozen.

use lowbit::{
    Result,
    prelude::*,
    qat::{Oscillations, Schedule, Stage, dampening_loss},
};
use ndarray::Array2;

use crate::{
    Quantized,
    digits::Digits,
    network::{Layer, Network, Steps},
};

/// Steps at the end over which the loss is watched.
const LAST: u64 = 100;

/// What is done about oscillations.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stabiliser {
    None,
    Dampening,
    Freezing,
}

/// How steady a training was at its end.
#[derive(Clone, Copy)]
pub struct Stability {
    /// Part of the weights that oscillate, in percent.
    pub oscillating: f64,
    /// Part of the weights that were frozen, in percent.
    pub frozen: f64,
    /// Standard deviation of the loss on test images over the last steps, in parts of its mean.
    pub wobble: f64,
}

impl Stabiliser {
    pub const ALL: [Self; 3] = [Self::None, Self::Dampening, Self::Freezing];

    pub fn name(self) -> &'static str {
        match self {
            Self::None => "LSQ alone",
            Self::Dampening => "dampening",
            Self::Freezing => "freezing",
        }
    }

    /// The plan for a training of so many steps.
    pub fn steps<'a>(
        self,
        network: &Quantized,
        steps: u64,
        test: &'a Digits,
    ) -> Result<Stabilised<'a>> {
        let schedule = Schedule::new(steps)?;
        let schedule = match self {
            Self::None => schedule,
            Self::Dampening => schedule.with_dampening(3e-2, steps / 4)?,
            Self::Freezing => schedule.with_freezing(0.1, 0.011, steps / 4)?,
        };
        let layers = network.0.iter();
        let oscillations = layers.map(|_| Oscillations::new(0.01));
        Ok(Stabilised {
            stage: schedule.at(0),
            schedule,
            step: 0,
            oscillations: oscillations.collect::<Result<_>>()?,
            test,
            losses: vec![],
        })
    }
}

pub struct Stabilised<'a> {
    schedule: Schedule,
    stage: Stage,
    step: u64,
    oscillations: Vec<Oscillations>,
    test: &'a Digits,
    losses: Vec<f64>,
}

impl Stabilised<'_> {
    pub fn stability(&self) -> Stability {
        // Layers have different numbers of weights.
        let part = |of: &dyn Fn(&Oscillations) -> f64| {
            let weighed = self.oscillations.iter();
            let (sum, count) = weighed.fold((0.0, 0.0), |(sum, count), layer| {
                let weights = layer.frequencies().len() as f64;
                (sum + weights * of(layer), count + weights)
            });
            100.0 * sum / count
        };
        let count = self.losses.len() as f64;
        let mean = self.losses.iter().sum::<f64>() / count;
        let squares: f64 = self.losses.iter().map(|loss| (loss - mean).powi(2)).sum();
        Stability {
            oscillating: part(&|layer| layer.share(0.005)),
            frozen: part(&Oscillations::frozen_share),
            wobble: (squares / count).sqrt() / mean,
        }
    }
}

impl<F: FakeQuant> Steps<F> for Stabilised<'_> {
    fn begin(&mut self, _: &mut Network<F>) -> Result<()> {
        self.stage = self.schedule.at(self.step);
        self.step += 1;
        Ok(())
    }

    fn gradient(
        &mut self,
        index: usize,
        layer: &Layer<F>,
        gradient: &mut Array2<f32>,
    ) -> Result<()> {
        if let (Some(fake), true) = (&layer.fake, self.stage.dampening > 0.0) {
            let affine = fake.weights.affine_view(layer.weights.view().into_dyn())?;
            *gradient += &dampening_loss(&layer.weights, &affine, self.stage.dampening)?.1;
        }
        self.oscillations[index].mask(gradient)
    }

    fn end(&mut self, network: &mut Network<F>) -> Result<()> {
        for (layer, oscillations) in network.0.iter_mut().zip(&mut self.oscillations) {
            let Some(fake) = &layer.fake else { continue };
            let affine = fake.weights.affine_view(layer.weights.view().into_dyn())?;
            oscillations.hold(&mut layer.weights, &affine)?;
            oscillations.observe(&layer.weights, &affine)?;
            if let Some(threshold) = self.stage.freezing {
                oscillations.freeze(threshold)?;
                oscillations.hold(&mut layer.weights, &affine)?;
            }
        }
        if self.step + LAST > self.schedule.steps() {
            self.losses.push(loss(network, self.test)?);
        }
        Ok(())
    }
}

/// Mean cross-entropy.
fn loss<F: FakeQuant>(network: &Network<F>, data: &Digits) -> Result<f64> {
    let tapes = network.forward(&data.images)?;
    let logits = &tapes[tapes.len() - 1].output;
    let each = logits
        .rows()
        .into_iter()
        .zip(&data.labels)
        .map(|(row, &label)| {
            let max = row.fold(f32::MIN, |max, &v| max.max(v));
            let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
            sum.ln() - f64::from(row[label] - max)
        });
    Ok(each.sum::<f64>() / data.len() as f64)
}
