//! Folded batch norm against batch norm, and its gradients against finite differences.

use lowbit::{Error, qat::FoldedBatchNorm};
use ndarray::{Array2, Axis};

use super::support::Noise;

fn random(noise: &mut Noise, shape: (usize, usize)) -> Array2<f32> {
    Array2::from_shape_simple_fn(shape, || noise.next())
}

fn norm(noise: &mut Noise) -> FoldedBatchNorm {
    let mut three =
        |at: f32, by: f32| -> Vec<f32> { (0..3).map(|_| at + by * noise.next()).collect() };
    let (gamma, beta) = (three(1.0, 0.5), three(0.0, 1.0));
    let (mean, variance) = (three(0.0, 0.5), three(1.0, 0.5));
    let mut norm = FoldedBatchNorm::new(3)
        .unwrap()
        .with_statistics(&mean, &variance)
        .unwrap();
    norm.set(&gamma, &beta).unwrap();
    norm
}

#[test]
fn without_quantization_it_is_batch_norm() {
    let mut noise = Noise(31);
    let mut folded = norm(&mut noise);
    let (x, w) = (random(&mut noise, (20, 4)), random(&mut noise, (3, 4)));
    let product = x.dot(&w.t());
    let quantized = x.dot(&folded.fold(&w).unwrap().t());
    let before = folded.clone();
    let (y, _) = folded.forward(&quantized, Some(&product)).unwrap();
    for (channel, values) in product.axis_iter(Axis(1)).enumerate() {
        let mean = values.mean().unwrap();
        let variance = values.mapv(|v| (v - mean).powi(2)).mean().unwrap();
        for (value, y) in values.iter().zip(y.column(channel)) {
            let expected = before.gamma()[channel] * (value - mean) / (variance + 1e-5).sqrt()
                + before.beta()[channel];
            assert!((y - expected).abs() < 1e-4, "{y} {expected}");
        }
        let moved = 0.9 * before.mean()[channel] + 0.1 * mean;
        assert!((folded.mean()[channel] - moved).abs() < 1e-5);
        let moved = 0.9 * before.variance()[channel] + 0.1 * variance * 20.0 / 19.0;
        assert!((folded.variance()[channel] - moved).abs() < 1e-5);
    }
    // frozen: what is deployed
    folded.freeze(true);
    let weights = folded.fold(&w).unwrap();
    let frozen = folded.clone();
    let (y, _) = folded.forward(&x.dot(&weights.t()), None).unwrap();
    let deployed = x.dot(&weights.t()) + ndarray::aview1(&folded.bias());
    assert_eq!(y, deployed);
    assert_eq!(folded, frozen);
    for (channel, values) in product.axis_iter(Axis(1)).enumerate() {
        for (value, y) in values.iter().zip(y.column(channel)) {
            let deviation = (frozen.variance()[channel] + 1e-5).sqrt();
            let expected = frozen.gamma()[channel] * (value - frozen.mean()[channel]) / deviation
                + frozen.beta()[channel];
            assert!((y - expected).abs() < 1e-4);
        }
    }
}

/// A stand-in for rounding that has a derivative.
fn bend(w: f32) -> f32 {
    w + 0.2 * (3.0 * w).sin()
}

#[test]
fn gradients_are_finite_differences_of_the_whole_step() {
    let mut noise = Noise(32);
    let start = norm(&mut noise);
    let (x, w) = (random(&mut noise, (7, 4)), random(&mut noise, (3, 4)));
    let g = random(&mut noise, (7, 3));
    for frozen in [false, true] {
        let run = |w: &Array2<f32>, gamma: &[f32], beta: &[f32]| {
            let mut norm = start.clone();
            norm.freeze(frozen);
            norm.set(gamma, beta).unwrap();
            let quantized = x.dot(&norm.fold(w).unwrap().mapv(bend).t());
            let float = x.dot(&w.t());
            let (y, tape) = norm.forward(&quantized, Some(&float)).unwrap();
            let loss: f64 = y
                .iter()
                .zip(&g)
                .map(|(&y, &g)| f64::from(y) * f64::from(g))
                .sum();
            (loss, tape)
        };
        let (gamma, beta) = (start.gamma().to_vec(), start.beta().to_vec());
        let (_, tape) = run(&w, &gamma, &beta);
        let back = start.backward(&tape, &g).unwrap();
        let folded = start.fold(&w).unwrap();
        let slope = folded.mapv(|w| 1.0 + 0.6 * (3.0 * w).cos());
        let to_folded = back.quantized.t().dot(&x) * slope;
        let (mut to_w, part) = start.fold_backward(&w, &to_folded).unwrap();
        assert_eq!(back.float.is_some(), !frozen);
        if let Some(float) = &back.float {
            to_w += &float.t().dot(&x);
        }
        let check = |got: f32, loss: &dyn Fn(f32) -> f64, what: &str| {
            let step = 1e-2;
            let slope = (loss(step) - loss(-step)) / (2.0 * f64::from(step));
            let error = (slope - f64::from(got)).abs();
            assert!(
                error < 5e-3 * (1.0 + slope.abs()),
                "{what} {frozen}: {slope} {got}"
            );
        };
        for at in [[0, 0], [1, 3], [2, 2], [1, 0]] {
            let loss = |by: f32| {
                let mut moved = w.clone();
                moved[at] += by;
                run(&moved, &gamma, &beta).0
            };
            check(to_w[at], &loss, "weight");
        }
        for channel in 0..3 {
            let moved = |values: &[f32], by: f32| {
                let mut moved = values.to_vec();
                moved[channel] += by;
                moved
            };
            let to_gamma = part[channel] + back.gamma[channel];
            check(
                to_gamma,
                &|by| run(&w, &moved(&gamma, by), &beta).0,
                "gamma",
            );
            check(
                back.beta[channel],
                &|by| run(&w, &gamma, &moved(&beta, by)).0,
                "beta",
            );
        }
    }
}

#[test]
fn estimated_statistics_are_averages_over_batches() {
    let mut noise = Noise(33);
    let mut norm = norm(&mut noise);
    let batches: Vec<Array2<f32>> = (0..5).map(|_| random(&mut noise, (16, 3))).collect();
    norm.begin_estimation();
    for batch in &batches {
        norm.observe(batch).unwrap();
    }
    norm.end_estimation();
    for channel in 0..3 {
        let means = batches.iter().map(|b| b.column(channel).mean().unwrap());
        assert!((norm.mean()[channel] - means.sum::<f32>() / 5.0).abs() < 1e-5);
        let variances = batches.iter().map(|b| b.column(channel).var(1.0));
        assert!((norm.variance()[channel] - variances.sum::<f32>() / 5.0).abs() < 1e-5);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    assert!(FoldedBatchNorm::new(0).is_err() && FoldedBatchNorm::new(usize::MAX).is_err());
    let mut norm = FoldedBatchNorm::new(2).unwrap();
    let (two, three) = (Array2::<f32>::zeros((4, 2)), Array2::<f32>::zeros((4, 3)));
    assert!(
        norm.clone()
            .with_statistics(&[0.0; 2], &[-1.0, 1.0])
            .is_err()
    );
    assert!(
        norm.clone()
            .with_statistics(&[f32::NAN, 0.0], &[1.0; 2])
            .is_err()
    );
    assert!(norm.clone().with_momentum(0.0, 1e-5).is_err());
    assert!(norm.clone().with_momentum(0.1, f32::NAN).is_err());
    assert!(norm.set(&[1.0], &[0.0; 2]).is_err());
    assert!(norm.set(&[1.0, f32::NAN], &[0.0; 2]).is_err());
    assert!(norm.fold(&three).is_err());
    assert!(norm.observe(&three).is_err());
    assert!(norm.forward(&three, Some(&three)).is_err());
    assert!(norm.forward(&two, Some(&three)).is_err());
    assert!(matches!(norm.forward(&two, None), Err(Error::Empty { .. })));
    let nan = Array2::from_elem((4, 2), f32::NAN);
    let before = norm.clone();
    assert!(matches!(
        norm.forward(&two, Some(&nan)),
        Err(Error::NonFinite { .. })
    ));
    assert_eq!(norm, before);
    let (_, tape) = norm.forward(&two, Some(&two)).unwrap();
    assert!(norm.backward(&tape, &three).is_err());
    assert!(norm.fold_backward(&two, &three).is_err());
    // a batch of no rows says nothing
    let none = Array2::<f32>::zeros((0, 2));
    norm.forward(&none, Some(&none)).unwrap();
    assert!(norm.variance().iter().all(|v| v.is_finite()));
}
