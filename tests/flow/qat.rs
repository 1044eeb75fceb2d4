//! Layers prepared for training by a recipe.

use lowbit::{
    Gptq, Granularity, Scheme,
    calibrate::MeanSquaredError,
    flow::{
        FloatWeights, InputStatistics, Pipeline, Preparation, QatModel, QatPreparation, QatStart,
        QatState, Recipe, Treatment,
    },
    prelude::*,
    ptq::gptq::GroupFit,
    qat::{
        AffineFakeQuant, Clipped, ElasticBits, Proximal, ProximalFakeQuant, ProximalMap, Schedule,
        StretchedElastic,
    },
};
use ndarray::Array2;

use super::support::bell;

pub(super) fn recipe(weights: Scheme, activations: Option<Scheme>) -> Recipe {
    let treatment = Treatment::new(weights, Pipeline::gptq());
    Recipe::new().quantize(
        "layer",
        match activations {
            None => treatment,
            Some(activations) => treatment.with_activations(activations),
        },
    )
}

pub(super) fn statistics(x: &Array2<f32>) -> InputStatistics {
    let mut inputs = InputStatistics::of_columns(x.ncols()).unwrap();
    inputs.take(x).unwrap();
    inputs
}

#[test]
fn two_layers_of_one_name_are_refused() {
    let recipe = recipe(Scheme::int(4).per_axis(0).build().unwrap(), None);
    let (mut a, mut b) = (bell(2, 4, 1), bell(3, 4, 2));
    let error = QatPreparation::new(&recipe)
        .prepare(&mut [
            FloatWeights::new("layer", a.view_mut()),
            FloatWeights::new("layer", b.view_mut()),
        ])
        .unwrap_err();
    let expected = "names of layers: expected each once, got \"layer\" twice";
    assert_eq!(error.to_string(), expected);
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
            .with_group_fit(GroupFit::Fresh)
            .with_row_search(18)
            .with_damping(if scheme.bits() < 4 { 0.1 } else { 0.01 })
            .unwrap()
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
