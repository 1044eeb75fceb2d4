//! A training that is interrupted, and one that is not.

use lowbit::{
    Scheme,
    flow::{FloatWeights, Pipeline, QatModel, QatPreparation, QatState, Recipe, Treatment},
    qat::{FoldedBatchNorm, ParameterRole, Schedule, StepGuard},
};
use ndarray::Array2;

use super::support::bell;

/// A training of two layers with everything switched on, up to a step.
struct Run {
    qat: QatModel,
    weights: [Array2<f32>; 2],
    velocity: [Array2<f32>; 2],
    norm: FoldedBatchNorm,
    guard: StepGuard,
    next: u64,
}

fn new_run() -> Run {
    let weights = Scheme::int(2).per_axis(0).build().unwrap();
    let activations = Scheme::int(4).unsigned().asymmetric().build().unwrap();
    let treatment = Treatment::new(weights, Pipeline::nearest()).with_activations(activations);
    let recipe = Recipe::new().quantize("*", treatment);
    let mut w = [bell(6, 12, 5), bell(3, 6, 6)];
    let [first, second] = &mut w;
    let (qat, _) = QatPreparation::new(&recipe)
        .with_oscillations(0.05)
        .unwrap()
        .prepare(&mut [
            FloatWeights::new("first", first.view_mut()),
            FloatWeights::new("second", second.view_mut()),
        ])
        .unwrap();
    Run {
        qat,
        velocity: [Array2::zeros((6, 12)), Array2::zeros((3, 6))],
        weights: w,
        norm: FoldedBatchNorm::new(6).unwrap(),
        guard: StepGuard::new().with_greatest_norm(3.0).unwrap(),
        next: 0,
    }
}

fn schedule() -> Schedule {
    Schedule::new(60)
        .unwrap()
        .with_delay(3, 8)
        .with_bits(&[(0, 8), (15, 4), (25, 2)])
        .unwrap()
        .with_range_freeze(40)
        .with_batch_norm_freeze(50)
        .with_dampening(0.01, 20)
        .unwrap()
        .with_freezing(0.3, 0.05, 35)
        .unwrap()
        .with_rates(0.1, 5, 0.2)
        .unwrap()
        .with_quantizer_rate(0.1)
        .unwrap()
}

impl Run {
    fn train(&mut self, until: u64) {
        let schedule = schedule();
        let target = bell(3, 12, 7);
        while self.next < until {
            let stage = schedule.at(self.next);
            let x = bell(16, 12, 100 + self.next);
            let wanted = x.dot(&target.t());
            self.next += 1;
            let [first, second] = &mut self.weights;
            self.norm.freeze(stage.batch_norm_frozen);
            let folded = self.norm.fold(first).unwrap();
            let of = |name: &str| {
                Some(if name == "first" {
                    folded.view()
                } else {
                    second.view()
                })
            };
            self.qat.begin(&stage, of).unwrap();
            // forward: x → layer, batch norm, ReLU → layer
            let one = self.qat.layer_mut("first").unwrap();
            one.observe(&x).unwrap();
            let fake_x = one.fake_input(&x).unwrap();
            let quantized = fake_x.dot(&one.fake_weights(&folded).unwrap().t());
            let float = fake_x.dot(&first.t());
            let (normed, tape) = self.norm.forward(&quantized, Some(&float)).unwrap();
            let hidden = normed.mapv(|v| v.max(0.0));
            let two = self.qat.layer_mut("second").unwrap();
            two.observe(&hidden).unwrap();
            let fake_hidden = two.fake_input(&hidden).unwrap();
            let fake_second = two.fake_weights(second).unwrap();
            let error = (fake_hidden.dot(&fake_second.t()) - &wanted) / 16.0;
            // backward
            let to_second = error.t().dot(&fake_hidden);
            let to_second = two.weights_backward(second, &to_second, &stage).unwrap();
            let to_hidden = two
                .input_backward(&hidden, &error.dot(&fake_second))
                .unwrap();
            let to_normed = to_hidden.input * normed.mapv(|v| f32::from(v > 0.0));
            let back = self.norm.backward(&tape, &to_normed).unwrap();
            let one = self.qat.layer_mut("first").unwrap();
            let to_folded = back.quantized.t().dot(&fake_x);
            let to_folded = one.weights_backward(&folded, &to_folded, &stage).unwrap();
            let (mut to_first, to_gamma) =
                self.norm.fold_backward(first, &to_folded.input).unwrap();
            if let Some(float) = &back.float {
                to_first += &float.t().dot(&fake_x);
            }
            // the step
            let loss = error.iter().map(|e| f64::from(e * e)).sum();
            let mut gradients = [to_first, to_second.input];
            let mut slopes = [
                one.weights()
                    .parameter_gradients(&to_folded.scale, &to_folded.zero_point)
                    .unwrap(),
                self.qat
                    .layer("second")
                    .unwrap()
                    .weights()
                    .parameter_gradients(&to_second.scale, &to_second.zero_point)
                    .unwrap(),
            ];
            let [g, h] = &mut gradients;
            let [s, t] = &mut slopes;
            let groups: &mut [&mut [f32]] =
                &mut [g.as_slice_mut().unwrap(), h.as_slice_mut().unwrap(), s, t];
            if !self.guard.admit(loss, groups).unwrap() {
                continue;
            }
            let rate = stage.rate(ParameterRole::Weight) as f32;
            for ((w, v), g) in self
                .weights
                .iter_mut()
                .zip(&mut self.velocity)
                .zip(&gradients)
            {
                *v = &*v * 0.9 + g;
                w.scaled_add(-rate, v);
            }
            let moved = |values: &[f32], by: &[f32]| -> Vec<f32> {
                values.iter().zip(by).map(|(v, b)| v - rate * b).collect()
            };
            let part: Vec<f32> = to_gamma
                .iter()
                .zip(&back.gamma)
                .map(|(a, b)| a + b)
                .collect();
            let (gamma, beta) = (
                moved(self.norm.gamma(), &part),
                moved(self.norm.beta(), &back.beta),
            );
            self.norm.set(&gamma, &beta).unwrap();
            let rate = stage.rate(ParameterRole::Quantizer) as f32;
            for (name, slopes) in ["first", "second"].into_iter().zip(&slopes) {
                let fake = self.qat.layer_mut(name).unwrap().weights_mut();
                let moved = fake
                    .parameters()
                    .iter()
                    .zip(slopes)
                    .map(|(p, s)| p - rate * s)
                    .collect::<Vec<_>>();
                fake.set_parameters(&moved).unwrap();
            }
            let second = &mut self.weights[1];
            self.qat
                .layer_mut("second")
                .unwrap()
                .after_step(second, &stage)
                .unwrap();
            // the folded weights of the first are not the model's own: they are tracked only
            let mut folded = self.norm.fold(&self.weights[0]).unwrap();
            self.qat
                .layer_mut("first")
                .unwrap()
                .after_step(&mut folded, &stage)
                .unwrap();
        }
    }

    fn fingerprint(&self) -> String {
        let bits = |w: &Array2<f32>| w.iter().map(|v| v.to_bits()).collect::<Vec<u32>>();
        format!(
            "{:?} {:?} {:?} {:?}",
            self.weights.each_ref().map(bits),
            self.qat.state(),
            self.norm,
            self.guard
        )
    }
}

#[test]
fn an_interrupted_training_goes_on_with_the_same_bits() {
    let mut whole = new_run();
    whole.train(60);
    let shares: Vec<f64> = whole
        .qat
        .names()
        .map(|name| {
            whole
                .qat
                .layer(name)
                .unwrap()
                .oscillations()
                .unwrap()
                .frozen_share()
        })
        .collect();
    assert!(
        shares.iter().sum::<f64>() > 0.0,
        "nothing froze: {shares:?}"
    );
    for at in [1, 5, 17, 30, 45, 55] {
        let mut run = new_run();
        run.train(at);
        // everything through text, into a model that was prepared afresh
        let stored = serde_json::to_string(&(run.qat.state(), &run.norm, &run.guard)).unwrap();
        let (state, norm, guard): (QatState, FoldedBatchNorm, StepGuard) =
            serde_json::from_str(&stored).unwrap();
        let mut fresh = new_run();
        fresh.qat.restore(&state).unwrap();
        let mut resumed = Run {
            qat: fresh.qat,
            norm,
            guard,
            ..run
        };
        resumed.train(60);
        assert_eq!(resumed.fingerprint(), whole.fingerprint(), "from step {at}");
    }
    let converted = whole
        .qat
        .convert(|name| Some(whole.weights[usize::from(name == "second")].view()));
    assert_eq!(converted.unwrap()["second"].weights().scheme().bits(), 2);
}
