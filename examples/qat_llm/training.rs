//! The training loop.

use std::{fmt, time::Instant};

use lowbit::{
    Error, Result, Scheme,
    prelude::*,
    qat::{DynamicFakeQuant, Plain},
};
use ndarray::Array2;
use rayon::prelude::*;

use crate::{
    adam::rate,
    llama::{
        Llama, Rest, loss,
        training::{AsTheyAre, Inputs, Weights},
    },
    progress::Progress,
    stories::{Batches, Story},
    student::{Rates, Student},
};

/// What is learned from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// The next token.
    CrossEntropy,
    /// The float model's probabilities of the next token.
    Distillation,
}

impl fmt::Display for Objective {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CrossEntropy => "ce",
            Self::Distillation => "kl",
        })
    }
}

/// How it is trained.
#[derive(Debug, Clone)]
pub struct Training {
    pub objective: Objective,
    pub steps: usize,
    /// Stories a step.
    pub batch: usize,
    /// The greatest rates.
    pub rates: Rates,
    pub seed: u64,
}

/// Inputs of layers quantized per token.
#[derive(Debug)]
pub struct PerToken(DynamicFakeQuant<Plain>);

impl PerToken {
    pub fn new(scheme: Scheme) -> Self {
        Self(DynamicFakeQuant::new(scheme, Plain))
    }
}

impl Inputs for PerToken {
    fn forward(&self, _: usize, x: &Array2<f32>) -> Result<Option<Array2<f32>>> {
        self.0.forward(x).map(Some)
    }

    fn backward(&self, _: usize, x: &Array2<f32>, gradient: Array2<f32>) -> Result<Array2<f32>> {
        Ok(self.0.backward(x, &gradient)?.input)
    }
}

/// Gradients of all that is trained.
pub struct Sums {
    pub weights: Vec<Weights>,
    pub rest: Rest,
}

impl Sums {
    fn zeros(student: &Student) -> Self {
        let zeros = |weights: &Weights| weights.each_ref().map(|w| Array2::zeros(w.dim()));
        Self {
            weights: student.weights.iter().map(zeros).collect(),
            rest: Rest::zeros(&student.model),
        }
    }

    fn add(&mut self, other: &Self) {
        let weights = self.weights.iter_mut().flatten();
        for (sum, gradient) in weights.zip(other.weights.iter().flatten()) {
            *sum += gradient;
        }
        for (sum, gradient) in self.rest.iter_mut().zip(other.rest.iter()) {
            *sum += gradient;
        }
    }

    fn numbers_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        let weights = self.weights.iter_mut().flatten().flatten();
        weights.chain(self.rest.iter_mut())
    }
}

/// Trains a student of this model.
pub fn train(
    teacher: &Llama,
    student: &mut Student,
    inputs: Option<Scheme>,
    stories: &[&Story],
    training: &Training,
    label: &str,
) -> Result<()> {
    let inputs: Box<dyn Inputs> = match inputs {
        Some(scheme) => Box::new(PerToken::new(scheme)),
        None => Box::new(AsTheyAre),
    };
    let mut batches = Batches::new(stories, training.batch, training.seed);
    let mut progress = Progress::new(label, training.steps);
    let started = Instant::now();
    for step in 0..training.steps {
        let batch = batches.next();
        let batch: Vec<&Story> = batch.iter().map(|&story| stories[story]).collect();
        let (loss, mut sums) = sums(teacher, student, &*inputs, &batch, training.objective)?;
        let tokens: usize = batch.iter().map(|story| story.window.tokens.len()).sum();
        for sum in sums.numbers_mut() {
            *sum /= tokens as f32;
        }
        let most = training.rates;
        let now = |most| rate(step, training.steps, most);
        let rates = Rates {
            weights: now(most.weights),
            scales: now(most.scales),
            zero_points: now(most.zero_points),
            rest: now(most.rest),
        };
        student.step(&sums, rates)?;
        progress.show(step + 1, loss / tokens as f64, started.elapsed());
    }
    progress.end();
    Ok(())
}

/// The sum of the losses of some stories, and its gradients; the same on any number of threads.
fn sums(
    teacher: &Llama,
    student: &Student,
    inputs: &dyn Inputs,
    batch: &[&Story],
    objective: Objective,
) -> Result<(f64, Sums)> {
    let each = batch
        .par_iter()
        .map(|story| one(teacher, student, inputs, story, objective))
        .collect::<Result<Vec<_>>>()?;
    let sum = each
        .into_iter()
        .reduce(|(mut loss, mut sums), (other, gradients)| {
            loss += other;
            sums.add(&gradients);
            (loss, sums)
        });
    sum.ok_or_else(|| Error::other("there are no stories to train on"))
}

/// The loss of a story, and its gradients.
fn one(
    teacher: &Llama,
    student: &Student,
    inputs: &dyn Inputs,
    story: &Story,
    objective: Objective,
) -> Result<(f64, Sums)> {
    let model = &student.model;
    let mut x = model.embed(&story.window.tokens)?;
    let mut traces = Vec::with_capacity(student.weights.len());
    for (block, weights) in model.layers().iter().zip(&student.weights) {
        let (y, trace) = block.trace(x, weights, inputs)?;
        traces.push(trace);
        x = y;
    }
    let logits = model.logits(&x);
    let (loss, gradient) = match objective {
        Objective::CrossEntropy => loss::cross_entropy(&logits, &story.window.targets),
        Objective::Distillation => loss::divergence(&logits, &teacher.head_of(&story.teacher)),
    };
    let mut sums = Sums::zeros(student);
    let mut gradient = model.logits_backward(&x, &gradient, Some(&mut sums.rest));
    let blocks = model
        .layers()
        .iter()
        .zip(&student.weights)
        .zip(&traces)
        .zip(&mut sums.weights)
        .zip(&mut sums.rest.norms);
    for ((((block, weights), trace), sums), norms) in blocks.rev() {
        gradient = block.backward(trace, weights, inputs, gradient, sums, Some(norms))?;
    }
    model.embed_backward(&story.window.tokens, &gradient, &mut sums.rest);
    Ok((loss, sums))
}
