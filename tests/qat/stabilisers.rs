//! Schedules, dampening, the guard of steps, and stored state.

use lowbit::{
    Affine, Error, FakeQuantExt, Scheme,
    qat::{
        AffineFakeQuant, Clipped, Oscillations, ParameterRole, Schedule, StepGuard, dampening_loss,
    },
};
use ndarray::{Array1, array};

use super::support::{Noise, granularities};

#[test]
fn a_schedule_says_what_is_on_at_each_step() {
    let schedule = Schedule::new(100)
        .unwrap()
        .with_delay(10, 30)
        .with_bits(&[(0, 8), (20, 4), (40, 2)])
        .unwrap()
        .with_range_freeze(50)
        .with_batch_norm_freeze(60)
        .with_dampening(0.2, 70)
        .unwrap()
        .with_freezing(0.1, 0.01, 80)
        .unwrap()
        .with_rates(0.5, 9, 0.1)
        .unwrap()
        .with_quantizer_rate(0.01)
        .unwrap()
        .with_weight_decay(0.3)
        .unwrap();
    for step in 0..120 {
        let stage = schedule.at(step);
        assert_eq!(stage.weights, step >= 10);
        assert_eq!(stage.activations, step >= 30);
        let bits = match step {
            0..20 => 8,
            20..40 => 4,
            _ => 2,
        };
        assert_eq!(stage.bits, Some(bits));
        assert_eq!(stage.observing, step < 50);
        assert_eq!(stage.batch_norm_frozen, step >= 60);
        assert_eq!(stage.dampening > 0.0, step > 70);
        assert_eq!(stage.freezing.is_some(), step >= 80);
        assert_eq!(stage.decay(ParameterRole::Weight), 0.3);
        assert_eq!(stage.decay(ParameterRole::Bias), 0.0);
        assert_eq!(stage.decay(ParameterRole::Quantizer), 0.0);
        let (rate, slow) = (
            stage.rate(ParameterRole::Weight),
            stage.rate(ParameterRole::Quantizer),
        );
        assert!((slow - 0.01 * rate).abs() < 1e-12);
        if step < 9 {
            assert!((rate - 0.5 * (step + 1) as f64 / 10.0).abs() < 1e-12);
        }
    }
    assert!((schedule.at(9).rate(ParameterRole::Bias) - 0.5).abs() < 1e-12);
    // half way along the cosines
    assert!((schedule.at(54).rate(ParameterRole::Weight) - 0.275).abs() < 1e-12);
    let last = schedule.at(99);
    assert!((last.rate(ParameterRole::Weight) - 0.05).abs() < 1e-12);
    assert!((last.dampening - 0.2).abs() < 1e-12);
    assert!((last.freezing.unwrap() - 0.01).abs() < 1e-12);
    assert!((schedule.at(80).freezing.unwrap() - 0.1).abs() < 1e-12);
    assert_eq!(schedule.at(u64::MAX), last);
}

#[test]
fn schedules_that_make_no_sense_are_refused() {
    assert!(Schedule::new(0).is_err());
    let schedule = || Schedule::new(10).unwrap();
    for bits in [&[(1, 8)][..], &[(0, 8), (0, 4)], &[(0, 0)], &[(0, 9)]] {
        assert!(schedule().with_bits(bits).is_err(), "{bits:?}");
    }
    for bad in [f64::NAN, -1.0, f64::INFINITY] {
        assert!(schedule().with_dampening(bad, 0).is_err());
        assert!(schedule().with_freezing(bad, 0.1, 0).is_err());
        assert!(schedule().with_freezing(0.1, bad, 0).is_err());
        assert!(schedule().with_rates(bad, 0, 0.1).is_err());
        assert!(schedule().with_rates(0.1, 0, bad).is_err());
        assert!(schedule().with_quantizer_rate(bad).is_err());
        assert!(schedule().with_weight_decay(bad).is_err());
    }
    let one = Schedule::new(1)
        .unwrap()
        .with_rates(0.1, u64::MAX, 0.5)
        .unwrap();
    assert!(one.at(0).rate(ParameterRole::Weight).is_finite());
    // a warm-up as long as the training only grows
    let warming = schedule().with_rates(1.0, 20, 0.0).unwrap();
    let rates: Vec<f64> = (0..10)
        .map(|s| warming.at(s).rate(ParameterRole::Weight))
        .collect();
    assert!(rates.windows(2).all(|pair| pair[0] < pair[1]), "{rates:?}");
}

#[test]
fn dampening_has_the_gradient_of_its_loss() {
    let mut noise = Noise(23);
    for granularity in granularities() {
        for builder in [
            Scheme::int(3),
            Scheme::int(2).asymmetric(),
            Scheme::int(3).asymmetric_float(),
        ] {
            let scheme = builder.granularity(granularity).build().unwrap();
            let affine = Affine::of(&scheme, &noise.array(0.7)).unwrap();
            let weights = noise.array(1.0);
            let (loss, gradient) = dampening_loss(&weights, &affine, 0.3).unwrap();
            let fake = AffineFakeQuant::new(affine.clone(), Clipped);
            let levels = fake.forward(&weights).unwrap();
            let groups = affine.groups(&[5, 10]).unwrap();
            let mut expected = 0.0;
            for (index, ((&w, &level), &slope)) in
                weights.iter().zip(&levels).zip(&gradient).enumerate()
            {
                let range = affine.range(groups.parameter_of(index)).unwrap();
                let one = |w: f64| {
                    let clipped = w.clamp(range.min().into(), range.max().into());
                    0.3 * (clipped - f64::from(level)).powi(2)
                };
                let w = f64::from(w);
                expected += one(w);
                let difference = (one(w + 1e-4) - one(w - 1e-4)) / 2e-4;
                assert!((difference - f64::from(slope)).abs() < 1e-3, "{scheme}");
            }
            assert!((loss - expected).abs() < 1e-4, "{loss} {expected}");
        }
    }
    let affine = Affine::per_tensor(Scheme::int(3).build().unwrap(), 1.0, 0.0).unwrap();
    assert!(dampening_loss(&array![1.0_f32], &affine, f64::NAN).is_err());
    assert!(dampening_loss(&array![1.0_f32], &affine, -1.0).is_err());
}

#[test]
fn stored_state_is_checked_when_it_is_read() {
    let affine = Affine::per_tensor(Scheme::int(3).build().unwrap(), 1.0, 0.0).unwrap();
    let mut oscillations = Oscillations::new(0.5).unwrap();
    for weights in [[1.0_f32, 2.0], [2.0, 1.0], [1.0, 2.0]] {
        oscillations
            .observe(&Array1::from_vec(weights.to_vec()), &affine)
            .unwrap();
    }
    let text = serde_json::to_string(&oscillations).unwrap();
    assert_eq!(
        serde_json::from_str::<Oscillations>(&text).unwrap(),
        oscillations
    );
    for (from, to) in [
        (r#""momentum":0.5"#, r#""momentum":2.0"#),
        (r#""shape":[2]"#, r#""shape":[3]"#),
        (r#""shape":[2]"#, r#""shape":[18446744073709551615,2]"#),
        (r#""frequency":[0.5,"#, r#""frequency":[-1.0,"#),
        (r#""frequency":[0.5,"#, r#""frequency":["#),
        (r#""average":["#, r#""average":[1e30,"#),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text);
        assert!(serde_json::from_str::<Oscillations>(&bad).is_err(), "{bad}");
    }
    let guard = StepGuard::new().with_greatest_norm(2.0).unwrap();
    let text = serde_json::to_string(&guard).unwrap();
    assert_eq!(serde_json::from_str::<StepGuard>(&text).unwrap(), guard);
    let bad = text.replacen("2.0", "-2.0", 1);
    assert!(serde_json::from_str::<StepGuard>(&bad).is_err(), "{bad}");
    let norm = lowbit::qat::FoldedBatchNorm::new(2).unwrap();
    let text = serde_json::to_string(&norm).unwrap();
    assert_eq!(
        serde_json::from_str::<lowbit::qat::FoldedBatchNorm>(&text).unwrap(),
        norm
    );
    for (from, to) in [
        (r#""variance":[1.0,"#, r#""variance":[-1.0,"#),
        (r#""beta":[0.0,"#, r#""beta":["#),
        (r#""momentum":0.1"#, r#""momentum":0.0"#),
    ] {
        let bad = text.replacen(from, to, 1);
        assert_ne!(bad, text);
        assert!(
            serde_json::from_str::<lowbit::qat::FoldedBatchNorm>(&bad).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn the_guard_lets_finite_steps_through_and_gives_up_in_the_end() {
    let mut guard = StepGuard::new()
        .with_patience(2)
        .with_greatest_norm(10.0)
        .unwrap();
    let mut gradients = [1.0_f32, 2.0];
    assert!(guard.admit(1.0, &mut [&mut gradients]).unwrap());
    assert_eq!(gradients, [1.0, 2.0]);
    gradients = [f32::MAX, f32::MAX];
    assert!(guard.admit(1.0, &mut [&mut gradients]).unwrap());
    let norm = (gradients[0].powi(2) + gradients[1].powi(2)).sqrt();
    assert!((norm - 10.0).abs() < 1e-4);
    for _ in 0..2 {
        assert!(!guard.admit(f64::NAN, &mut [&mut gradients]).unwrap());
    }
    assert!(guard.admit(0.0, &mut [&mut gradients]).unwrap());
    let mut bad = [f32::INFINITY];
    for _ in 0..2 {
        assert!(!guard.admit(0.0, &mut [&mut gradients, &mut bad]).unwrap());
    }
    assert!(matches!(
        guard.admit(0.0, &mut [&mut bad]),
        Err(Error::NonFinite { .. })
    ));
    assert_eq!(guard.skipped(), 5);
    assert!(StepGuard::new().with_greatest_norm(f64::NAN).is_err());
}
