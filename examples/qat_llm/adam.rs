//! Adam, and how its rate goes over the steps.

use std::f32::consts::PI;

/// The rate of a step: from 0 up over the first twentieth, then down along half a cosine to 0.
pub fn rate(step: usize, steps: usize, most: f32) -> f32 {
    let warm_up = (steps / 20).max(1);
    if step < warm_up {
        return most * (step + 1) as f32 / warm_up as f32;
    }
    let done = (step - warm_up) as f32 / (steps - warm_up).max(1) as f32;
    most * 0.5 * (1.0 + (PI * done).cos())
}

/// The moments of some parameters (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1).
#[derive(Debug, Clone)]
pub struct Adam {
    mean: Vec<f32>,
    square: Vec<f32>,
    steps: i32,
}

/// Gradients of few stories are noisy, and those of some weights change much while training goes on.
const BETAS: [f32; 2] = [0.95, 0.98];
const EPSILON: f32 = 1e-8;

impl Adam {
    pub fn new(parameters: usize) -> Self {
        Self {
            mean: vec![0.0; parameters],
            square: vec![0.0; parameters],
            steps: 0,
        }
    }

    /// Moves the parameters against their gradients, both in the same order.
    pub fn step<'a>(
        &mut self,
        parameters: impl IntoIterator<Item = &'a mut f32>,
        gradients: impl IntoIterator<Item = &'a f32>,
        rate: f32,
    ) {
        self.steps += 1;
        let [mean_left, square_left] = BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        let rate = rate / mean_left;
        let moments = self.mean.iter_mut().zip(&mut self.square);
        for ((parameter, &gradient), (mean, square)) in
            parameters.into_iter().zip(gradients).zip(moments)
        {
            *mean += (1.0 - BETAS[0]) * (gradient - *mean);
            *square += (1.0 - BETAS[1]) * (gradient * gradient - *square);
            *parameter -= rate * *mean / ((*square / square_left).sqrt() + EPSILON);
        }
    }
}
