//! Oscillations against the algorithm of the paper, and what stops them.

use lowbit::{
    Affine, Error, FakeQuantExt, Scheme,
    qat::{AffineFakeQuant, Lsq, Oscillations, Schedule, dampening_loss},
};
use ndarray::{Array1, Array2, array};

use super::support::{Noise, granularities};

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
