//! Schedules, oscillations, dampening and the guard of steps.

use lowbit::{
    Affine, Error, FakeQuantExt, Scheme,
    qat::{
        AffineFakeQuant, Clipped, Lsq, Oscillations, ParameterRole, Schedule, StepGuard,
        dampening_loss,
    },
};
use ndarray::{Array1, Array2, array};

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

/// Algorithm 1 of the paper, for one weight after the other.
#[test]
fn oscillations_are_those_of_the_paper() {
    let affine = Affine::per_tensor(Scheme::int(3).build().unwrap(), 1.0, 0.0).unwrap();
    let mut noise = Noise(21);
    let momentum = 0.05_f32;
    let mut oscillations = Oscillations::new(momentum).unwrap();
    let count = 40;
    let mut state: Vec<(i32, i32, f64, f64, Option<i32>)> = vec![];
    let mut frozen = 0;
    for step in 0..200 {
        let weights = Array1::from_shape_simple_fn(count, || 1.5 + 2.2 * noise.next());
        let codes: Vec<i32> = weights
            .iter()
            .map(|w| w.round_ties_even().clamp(-4.0, 3.0) as i32)
            .collect();
        oscillations.observe(&weights, &affine).unwrap();
        if step == 0 {
            state = codes
                .iter()
                .map(|&c| (c, 0, 0.0, f64::from(c), None))
                .collect();
        } else {
            for ((last, direction, frequency, average, held), &code) in state.iter_mut().zip(&codes)
            {
                if held.is_some() {
                    continue;
                }
                let change = (code - *last).signum();
                let oscillated = f64::from(u8::from(change * *direction == -1));
                let m = f64::from(momentum);
                *frequency = m * oscillated + (1.0 - m) * *frequency;
                *average = m * f64::from(code) + (1.0 - m) * *average;
                if change != 0 {
                    *direction = change;
                }
                *last = code;
            }
        }
        for (got, (_, _, expected, ..)) in oscillations.frequencies().zip(&state) {
            assert!((f64::from(got) - expected).abs() < 1e-5);
        }
        if step > 100 {
            frozen += oscillations.freeze(0.6).unwrap();
            for (_, _, frequency, average, held) in &mut state {
                if held.is_none() && *frequency > 0.6 {
                    *held = Some(average.round() as i32);
                }
            }
        }
    }
    assert!(frozen > 0 && frozen < count, "{frozen}");
    assert_eq!(oscillations.frozen_share(), frozen as f64 / count as f64);
    let mut weights = Array1::from_elem(count, 0.25_f32);
    let mut gradient = Array1::from_elem(count, 1.0_f32);
    let half = Affine::per_tensor(Scheme::int(3).build().unwrap(), 0.5, 0.0).unwrap();
    oscillations.hold(&mut weights, &half).unwrap();
    oscillations.mask(&mut gradient).unwrap();
    for ((weight, gradient), (.., held)) in weights.iter().zip(&gradient).zip(&state) {
        match held {
            Some(code) => assert_eq!((*weight, *gradient), (*code as f32 * 0.5, 0.0)),
            None => assert_eq!((*weight, *gradient), (0.25, 1.0)),
        }
    }
    oscillations.reset();
    assert_eq!(oscillations.frozen_share(), 0.0);
}

#[test]
fn held_weights_quantize_to_their_codes_whatever_the_scale() {
    let mut noise = Noise(22);
    for granularity in granularities() {
        for builder in [
            Scheme::int(4),
            Scheme::int(3).asymmetric(),
            Scheme::int(2).asymmetric_float(),
        ] {
            let scheme = builder.granularity(granularity).build().unwrap();
            let weights = noise.array(1.0);
            let affine = Affine::of(&scheme, &weights).unwrap();
            let mut oscillations = Oscillations::new(1.0).unwrap();
            oscillations.observe(&weights, &affine).unwrap();
            // a change and one back: everything that moved oscillates
            oscillations
                .observe(&weights.mapv(|w| -w), &affine)
                .unwrap();
            oscillations.observe(&weights, &affine).unwrap();
            oscillations.freeze(0.5).unwrap();
            let scales = affine
                .scale()
                .iter()
                .map(|s| s * (1.0 + 0.7 * noise.next()));
            let moved = Affine::new(
                scheme,
                affine.shape(),
                scales.collect(),
                affine.zero_point().to_vec(),
            );
            let moved = moved.unwrap();
            let mut held = weights.clone();
            oscillations.hold(&mut held, &moved).unwrap();
            let codes = |w: &Array2<f32>, affine: &Affine| {
                lowbit::quantize::<f32, i32, _>(w, affine).unwrap()
            };
            let (before, after) = (codes(&weights, &affine), codes(&held, &moved));
            let mut gradient = Array2::ones((5, 10));
            oscillations.mask(&mut gradient).unwrap();
            for ((before, after), gradient) in before.iter().zip(&after).zip(&gradient) {
                assert!(*gradient != 0.0 || before == after);
            }
        }
    }
}

#[test]
fn hostile_weights_are_refused_and_change_nothing() {
    let affine = Affine::per_tensor(Scheme::int(3).build().unwrap(), 1.0, 0.0).unwrap();
    let mut oscillations = Oscillations::new(0.1).unwrap();
    let nan = array![1.0_f32, f32::NAN];
    assert!(matches!(
        oscillations.observe(&nan, &affine),
        Err(Error::NonFinite { .. })
    ));
    oscillations
        .observe(&array![1.0_f32, 2.0], &affine)
        .unwrap();
    let before = oscillations.clone();
    assert!(oscillations.observe(&nan, &affine).is_err());
    assert!(oscillations.observe(&array![1.0_f32], &affine).is_err());
    assert!(oscillations.hold(&mut array![1.0_f32], &affine).is_err());
    assert!(oscillations.mask(&mut array![1.0_f32]).is_err());
    assert!(oscillations.freeze(f64::NAN).is_err());
    assert_eq!(oscillations, before);
    let float = Scheme::float(lowbit::FloatFormat::E4M3).build().unwrap();
    let float = Affine::per_tensor(float, 1.0, 0.0).unwrap();
    let refused = oscillations.observe(&array![1.0_f32, 2.0], &float);
    assert!(matches!(refused, Err(Error::Unsupported { .. })));
    for bad in [0.0, f32::NAN, 1.5] {
        assert!(Oscillations::new(bad).is_err());
    }
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

/// The regression of the paper's section 2: one weight whose optimum lies between two codes.
fn toy(dampened: bool, frozen: bool) -> (f64, f64) {
    let count = 64;
    let mut noise = Noise(24);
    let target = Array1::from_shape_simple_fn(count, || 2.0 * noise.next());
    let mut weights = target.clone();
    let affine = Affine::per_tensor(Scheme::int(3).build().unwrap(), 0.6, 0.0).unwrap();
    let fake = AffineFakeQuant::new(affine.clone(), Lsq);
    let mut oscillations = Oscillations::new(0.02).unwrap();
    let schedule = Schedule::new(2_000)
        .unwrap()
        .with_dampening(0.5, 500)
        .unwrap();
    let schedule = schedule.with_freezing(0.2, 0.04, 500).unwrap();
    let mut losses = vec![];
    for step in 0..schedule.steps() {
        let stage = schedule.at(step);
        let y = fake.forward(&weights).unwrap();
        let error = &y - &target;
        losses.push(error.iter().map(|e| f64::from(e * e)).sum::<f64>());
        // noise, as batches have it
        let gradient = error.mapv(|e| e + 0.2 * noise.next());
        let mut gradient = fake.backward(&weights, &gradient).unwrap().input;
        if dampened {
            gradient += &dampening_loss(&weights, &affine, stage.dampening)
                .unwrap()
                .1;
        }
        oscillations.mask(&mut gradient).unwrap();
        weights -= &(gradient * 0.1);
        oscillations.hold(&mut weights, &affine).unwrap();
        oscillations.observe(&weights, &affine).unwrap();
        if let (true, Some(threshold)) = (frozen, stage.freezing) {
            oscillations.freeze(threshold).unwrap();
        }
    }
    let last = &losses[losses.len() - 200..];
    let mean = last.iter().sum::<f64>() / 200.0;
    let variance = last.iter().map(|l| (l - mean).powi(2)).sum::<f64>() / 200.0;
    (oscillations.share(0.005), variance)
}

#[test]
fn dampening_and_freezing_stop_oscillations() {
    let (plain, dampened, frozen) = (toy(false, false), toy(true, false), toy(false, true));
    assert!(plain.0 > 0.5, "{plain:?}");
    assert!(dampened.0 < 0.3 * plain.0, "{dampened:?} {plain:?}");
    assert!(frozen.0 < 0.1 * plain.0, "{frozen:?} {plain:?}");
    assert!(dampened.1 < 0.5 * plain.1, "{dampened:?} {plain:?}");
    assert!(frozen.1 < 0.5 * plain.1, "{frozen:?} {plain:?}");
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
