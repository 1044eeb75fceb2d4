//! Layers prepared for training by a recipe, trained, and converted.

use lowbit::{
    Gptq, Granularity, ScaleKind, Scheme, SchemeBuilder,
    calibrate::MeanSquaredError,
    flow::{
        FloatWeights, InputStatistics, Pipeline, Preparation, QatModel, QatPreparation, QatStart,
        QatState, Recipe, Treatment,
    },
    prelude::*,
    qat::{
        AffineFakeQuant, Clipped, ElasticBits, FoldedBatchNorm, ParameterRole, Proximal,
        ProximalFakeQuant, ProximalMap, Schedule, StepGuard, StretchedElastic,
    },
};
use ndarray::Array2;
use proptest::prelude::*;

use super::support::bell;

fn recipe(weights: Scheme, activations: Option<Scheme>) -> Recipe {
    let treatment = Treatment::new(weights, Pipeline::gptq());
    Recipe::new().quantize(
        "layer",
        match activations {
            None => treatment,
            Some(activations) => treatment.with_activations(activations),
        },
    )
}

fn statistics(x: &Array2<f32>) -> InputStatistics {
    let mut inputs = InputStatistics::of_columns(x.ncols()).unwrap();
    inputs.take(x).unwrap();
    inputs
}

fn weights() -> impl Strategy<Value = SchemeBuilder> {
    let mapping = prop::sample::select(vec![
        lowbit::Mapping::Symmetric,
        lowbit::Mapping::SymmetricHalfRange,
        lowbit::Mapping::Asymmetric,
        lowbit::Mapping::AsymmetricFloat,
    ]);
    let granularity = prop_oneof![
        Just(Granularity::PerTensor),
        Just(Granularity::PerAxis(0)),
        (1..20_usize).prop_map(Granularity::PerGroup),
    ];
    (1..=8_u32, any::<bool>(), mapping, granularity)
        .prop_filter("a scheme", |(bits, _, mapping, _)| {
            *bits > 1 || !mapping.is_symmetric()
        })
        .prop_map(|(bits, unsigned, mapping, granularity)| {
            let builder = Scheme::int(bits).mapping(mapping).granularity(granularity);
            if unsigned {
                builder.unsigned()
            } else {
                builder
            }
        })
}

fn activations() -> impl Strategy<Value = SchemeBuilder> {
    (2..=8_u32, any::<[bool; 3]>()).prop_map(|(bits, [unsigned, symmetric, rows])| {
        let builder = Scheme::int(bits);
        let builder = if unsigned {
            builder.unsigned()
        } else {
            builder
        };
        let builder = if symmetric {
            builder
        } else {
            builder.asymmetric()
        };
        if rows { builder.per_row() } else { builder }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The law of converting, over schemes, shapes and data.
    #[test]
    fn the_integer_layer_computes_what_training_computed(
        weights in weights(), activations in activations(),
        (rows, inputs, outputs) in (1..5_usize, 1..70_usize, 1..6_usize),
        seed in any::<u64>(), power_of_two in any::<bool>(), moved in -0.5_f32..0.5,
        start in prop::sample::select(vec![QatStart::MeanSquaredError, QatStart::Lsq, QatStart::Method]),
    ) {
        let kind = if power_of_two { ScaleKind::PowerOfTwo } else { ScaleKind::F32 };
        let (weights, activations) = (
            weights.scale_kind(kind).build().unwrap(),
            activations.scale_kind(kind).build().unwrap(),
        );
        let (x, mut w) = (bell(rows, inputs, seed), bell(outputs, inputs, seed ^ 1));
        let recipe = recipe(weights, Some(activations));
        let seen = statistics(&x);
        let (mut qat, _) = QatPreparation::new(&recipe)
            .with_start(start)
            .prepare(&mut [FloatWeights::new("layer", w.view_mut()).with_inputs(&seen)])
            .unwrap();
        // as if training had moved what is learned
        let layer = qat.layer_mut("layer").unwrap();
        let parameters: Vec<f32> = layer.weights().parameters().iter().map(|p| p + moved).collect();
        layer.weights_mut().set_parameters(&parameters).unwrap();
        if let Some(input) = layer.input_mut() {
            let parameters: Vec<f32> = input.parameters().iter().map(|p| p - moved).collect();
            input.set_parameters(&parameters).unwrap();
        }
        let (fake_x, fake_w) = (layer.fake_input(&x).unwrap(), layer.fake_weights(&w).unwrap());
        let simulated = fake_x.dot(&fake_w.t());
        let converted = layer.convert(&w).unwrap();
        prop_assert_eq!(converted.weights().dequantize::<f32>(), fake_w.clone().into_dyn());
        let integer = converted.pack(None).unwrap().forward(&x).unwrap();
        let one_scale = !matches!(weights.granularity(), Granularity::PerGroup(_));
        if power_of_two && one_scale && weights.mapping() != lowbit::Mapping::AsymmetricFloat {
            prop_assert_eq!(integer, simulated);
        } else {
            let sizes = fake_x.mapv(f32::abs).dot(&fake_w.mapv(f32::abs).t());
            for ((a, b), size) in integer.iter().zip(&simulated).zip(&sizes) {
                let bound = (inputs + 4) as f32 * f32::EPSILON * size;
                prop_assert!((a - b).abs() <= bound, "{} {} {}", a, b, bound);
            }
        }
    }
}

#[test]
fn a_start_from_gptq_has_the_codes_of_gptq() {
    let x = bell(200, 48, 3);
    for builder in [
        Scheme::int(3).per_axis(0),
        Scheme::int(2).asymmetric().per_group(16),
        Scheme::int(4).asymmetric_float().per_group(20),
    ] {
        let scheme = builder.build().unwrap();
        let float = bell(8, 48, 4);
        let mut w = float.clone();
        let seen = statistics(&x);
        let gptq = Gptq::new(scheme, seen.hessian())
            .with_calibrator(lowbit::calibrate::LeastSquares::default())
            .quantize(&float)
            .unwrap();
        let recipe = recipe(scheme, None);
        let (qat, _) = QatPreparation::new(&recipe)
            .with_start(QatStart::Method)
            .prepare(&mut [FloatWeights::new("layer", w.view_mut()).with_inputs(&seen)])
            .unwrap();
        let converted = qat.layer("layer").unwrap().convert(&w).unwrap();
        let codes = |tensor: &lowbit::QTensor| tensor.codes::<i32>().unwrap();
        assert_eq!(codes(converted.weights()), codes(&gptq), "{scheme}");
        // and weights are nearer to the float ones than GPTQ's values are
        let distance = |to: &Array2<f32>| (to - &float).mapv(|e| e * e).sum();
        let values = gptq.dequantize::<f32>().into_dimensionality().unwrap();
        assert!(distance(&w) < 0.7 * distance(&values));
    }
}

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

#[test]
fn annealed_bits_are_switched_and_only_the_last_ones_are_deployed() {
    let recipe = recipe(Scheme::int(3).per_axis(0).build().unwrap(), None);
    let mut w = bell(4, 16, 8);
    let (mut qat, plan) = QatPreparation::new(&recipe)
        .prepare(&mut [
            FloatWeights::new("layer", w.view_mut()),
            FloatWeights::new("other", bell(2, 2, 9).view_mut()),
        ])
        .unwrap();
    assert_eq!(plan.unmatched_layers, ["other"]);
    assert!(qat.layer("other").is_err());
    let schedule = Schedule::new(30)
        .unwrap()
        .with_bits(&[(0, 8), (10, 4), (20, 2)])
        .unwrap();
    let error = |qat: &QatModel| {
        let layer = qat.layer("layer").unwrap();
        (layer.fake_weights(&w).unwrap() - &w).mapv(|e| e * e).sum()
    };
    let mut errors = vec![];
    for step in [0, 10, 20] {
        qat.begin(&schedule.at(step), |_| Some(w.view())).unwrap();
        errors.push(error(&qat));
        let converted = qat.layer("layer").unwrap().convert(&w);
        // 2 bits are fewer than the recipe has: it stays at 3
        assert_eq!(converted.is_ok(), step == 20, "{converted:?}");
    }
    assert!(errors[0] < 0.1 * errors[1] && errors[1] < errors[2]);
    assert!(qat.begin(&schedule.at(0), |_| None).is_err());
    let off = Schedule::new(9).unwrap().with_delay(5, 5).at(0);
    qat.begin(&off, |_| Some(w.view())).unwrap();
    assert_eq!(error(&qat), 0.0);
}

#[test]
fn proximal_maps_harden_with_the_steps_of_the_schedule() {
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let recipe = recipe(scheme, None);
    let mut w = bell(4, 16, 20);
    let (mut qat, _) = QatPreparation::new(&recipe)
        .with_weights(|seed| {
            let map = Proximal::new(ProximalMap::Parq { steepness: 10.0 }, 2, 8)?;
            let ranges = MeanSquaredError::default();
            Ok(Box::new(ProximalFakeQuant::new(*seed.scheme, map, ranges)))
        })
        .prepare(&mut [FloatWeights::new("layer", w.view_mut())])
        .unwrap();
    let schedule = Schedule::new(10).unwrap();
    let mut distances = vec![];
    for step in 0..10 {
        qat.begin(&schedule.at(step), |_| Some(w.view())).unwrap();
        let layer = qat.layer("layer").unwrap();
        let levels = layer.convert(&w).unwrap().weights().dequantize::<f32>();
        let computed = layer.fake_weights(&w).unwrap().into_dyn();
        distances.push((computed - levels).mapv(f32::abs).sum());
    }
    assert!(
        distances.windows(2).all(|pair| pair[0] >= pair[1]),
        "{distances:?}"
    );
    assert!(distances[0] > 0.5 && distances[8] == 0.0, "{distances:?}");
}

#[test]
fn what_cannot_be_prepared_is_named() {
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let plain = recipe(scheme, None);
    let mut w = bell(4, 8, 10);
    let from_method = QatPreparation::new(&plain).with_start(QatStart::Method);
    let error = from_method.prepare(&mut [FloatWeights::new("layer", w.view_mut())]);
    assert!(
        error.unwrap_err().to_string().contains("statistics"),
        "no statistics"
    );
    let rotated = Pipeline::gptq().with_preparation(Preparation::Rotation(0));
    let rotated = Recipe::new().quantize("*", Treatment::new(scheme, rotated));
    let seen = statistics(&bell(30, 8, 11));
    let error = QatPreparation::new(&rotated)
        .with_start(QatStart::Method)
        .prepare(&mut [FloatWeights::new("layer", w.view_mut()).with_inputs(&seen)]);
    assert!(matches!(error, Err(lowbit::Error::Layer { .. })));
    let channels = Scheme::int(8).per_axis(1).build().unwrap();
    let by_channel = recipe(scheme, Some(channels));
    let error =
        QatPreparation::new(&by_channel).prepare(&mut [FloatWeights::new("layer", w.view_mut())]);
    assert!(error.is_err());
    let mut nan = Array2::from_elem((2, 2), f32::NAN);
    let error =
        QatPreparation::new(&plain).prepare(&mut [FloatWeights::new("layer", nan.view_mut())]);
    assert!(error.is_err());
    // inputs that were neither calibrated nor seen have no range
    let fixed = recipe(scheme, Some(Scheme::int(8).build().unwrap()));
    let (mut qat, _) = QatPreparation::new(&fixed)
        .prepare(&mut [FloatWeights::new("layer", w.view_mut())])
        .unwrap();
    let layer = qat.layer_mut("layer").unwrap();
    let x = bell(3, 8, 12);
    assert!(layer.fake_input(&x).is_err());
    assert!(layer.convert(&w).is_err());
    layer.observe(&x).unwrap();
    assert!(layer.fake_input(&x).is_ok());
    assert!(layer.convert(&w).is_ok());
    assert!(layer.observe(&Array2::from_elem((1, 8), f32::NAN)).is_err());
    // the state of another model
    let (other, _) = QatPreparation::new(&plain)
        .prepare(&mut [FloatWeights::new("layer", w.view_mut())])
        .unwrap();
    assert!(qat.restore(&other.state()).is_err());
    assert!(qat.restore(&QatState::default()).is_err());
    assert!(QatPreparation::new(&plain).with_oscillations(2.0).is_err());
}

#[test]
fn elastic_weights_and_other_fake_quants_convert_too() {
    let x = bell(5, 40, 13);
    for (bits, scheme) in [ElasticBits::Binary, ElasticBits::Ternary, ElasticBits::Two]
        .map(|bits| (bits, bits.scheme(Granularity::PerAxis(0)).unwrap()))
    {
        let recipe = recipe(scheme, Some(Scheme::int(8).per_row().build().unwrap()));
        let mut w = bell(3, 40, 14);
        let (qat, _) = QatPreparation::new(&recipe)
            .with_weights(move |seed| {
                let weights = seed.weights.expect("weights");
                let fake = StretchedElastic::fake_quant(bits, &weights, Granularity::PerAxis(0))?;
                Ok(Box::new(fake))
            })
            .prepare(&mut [FloatWeights::new("layer", w.view_mut())])
            .unwrap();
        let layer = qat.layer("layer").unwrap();
        let simulated = layer
            .fake_input(&x)
            .unwrap()
            .dot(&layer.fake_weights(&w).unwrap().t());
        let integer = layer
            .convert(&w)
            .unwrap()
            .pack(None)
            .unwrap()
            .forward(&x)
            .unwrap();
        assert!((integer - simulated).iter().all(|e| e.abs() < 1e-3));
    }
    let recipe = recipe(Scheme::int(4).build().unwrap(), None);
    let mut w = bell(3, 40, 15);
    let (qat, _) = QatPreparation::new(&recipe)
        .with_weights(|seed| {
            let start = seed.start.expect("a start").clone();
            let estimator: Box<dyn StraightThroughEstimator> = Box::new(Clipped);
            Ok(Box::new(AffineFakeQuant::new(start, estimator)))
        })
        .prepare(&mut [FloatWeights::new("layer", w.view_mut())])
        .unwrap();
    assert!(qat.layer("layer").unwrap().convert(&w).is_ok());
}
