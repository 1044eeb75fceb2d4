//! What is learned in place of scales and zero points.

use std::sync::Arc;

use lowbit::{
    Affine, FakeQuant, FakeQuantExt, Groups, ScaleKind, Scheme,
    qat::{
        AffineFakeQuant, Clipped, Ends, FixedParameters, LearnedFakeQuant, Lsq, Parametrization,
        StepAndOffset, StepSize, Threshold,
    },
};
use ndarray::Array2;

use super::support::{Noise, bits, granularities};

/// Scale and zero point from latents, written down anew.
type Map = fn([f64; 2], &Scheme, f64) -> [f64; 2];

fn cases() -> Vec<(Scheme, Arc<dyn Parametrization>, Map)> {
    let build = |builder: lowbit::SchemeBuilder| builder.build().unwrap();
    vec![
        (build(Scheme::int(3)), Arc::new(StepSize), |p, _, z| {
            [p[0], z]
        }),
        (
            build(Scheme::int(4).asymmetric()),
            Arc::new(StepSize),
            |p, _, z| [p[0], z],
        ),
        (
            build(Scheme::int(4).unsigned().asymmetric()),
            Arc::new(Threshold::new(15.0).unwrap()),
            |p, _, z| [p[0] / 15.0, z],
        ),
        (
            build(Scheme::int(3).unsigned().asymmetric_float()),
            Arc::new(StepAndOffset),
            |p, _, _| [p[0], -p[1] / p[0]],
        ),
        (
            build(Scheme::int(3).unsigned().asymmetric()),
            Arc::new(Ends),
            |p, scheme, _| {
                let steps = f64::from(scheme.quant_max() - scheme.quant_min());
                let scale = (p[1] - p[0]) / steps;
                [scale, f64::from(scheme.quant_min()) - p[0] / scale]
            },
        ),
        (build(Scheme::int(3)), Arc::new(Ends), |p, _, z| {
            [p[0] / 3.0, z]
        }),
    ]
}

fn start(scheme: Scheme, noise: &mut Noise) -> Affine {
    let groups = Groups::new(&[5, 10], scheme.granularity()).unwrap();
    let levels = (scheme.quant_max() - scheme.quant_min()) as f32 / 2.0;
    let scale: Vec<f32> = (0..groups.parameters())
        .map(|_| (0.6 + 0.3 * noise.next()) / levels)
        .collect();
    let zero = scale.iter().map(|_| {
        if scheme.mapping().is_symmetric() {
            0.0
        } else {
            scheme.quant_min() as f32 + (levels * (1.0 + 0.5 * noise.next())).round()
        }
    });
    let zero = zero.collect();
    Affine::new(scheme, &groups.parameter_shape(), scale, zero).unwrap()
}

/// Every number that is learned, by central differences of a loss in which rounding errors and what
/// is clamped are constants.
#[test]
fn gradients_of_learned_numbers_are_finite_differences() {
    let mut noise = Noise(11);
    for granularity in granularities() {
        for (scheme, parametrization, map) in cases() {
            let scheme = scheme.with_granularity(granularity).unwrap();
            let affine = start(scheme, &mut noise);
            let (x, g) = (noise.array(1.2), noise.array(1.0));
            for logarithms in [true, false] {
                let boxed = parametrization.clone();
                let mut fake = LearnedFakeQuant::new(affine.clone(), boxed, Clipped).unwrap();
                if !logarithms {
                    fake = fake.with_sizes_as_they_are();
                }
                let groups = fake.affine().groups(&[5, 10]).unwrap();
                let count = groups.parameters();
                let gradients = fake.backward(&x, &g).unwrap();
                let slopes = fake
                    .parameter_gradients(&gradients.scale, &gradients.zero_point)
                    .unwrap();
                for (at, &got) in slopes.iter().enumerate() {
                    let (latent, group) = (at / count, at % count);
                    let stepped = f64::from(fake.parameters()[at]);
                    let size = logarithms && parametrization.is_size(latent);
                    let loss = |by: f64| -> f64 {
                        let mut latents = fake.latents(group).map(f64::from);
                        let moved = stepped + by;
                        latents[latent] = if size { moved.exp() } else { moved };
                        let zero = f64::from(affine.zero_point()[group]);
                        let [scale, zero] = map(latents, &scheme, zero);
                        let mut sum = 0.0;
                        for (index, (&x, &g)) in x.iter().zip(&g).enumerate() {
                            if groups.parameter_of(index) != group {
                                continue;
                            }
                            let (s, z) = (
                                fake.affine().scale()[group],
                                fake.affine().zero_point()[group],
                            );
                            let position = x / s;
                            let real = scheme.mapping() == lowbit::Mapping::AsymmetricFloat;
                            let code = if real {
                                (position + z).round_ties_even()
                            } else {
                                position.round_ties_even() + z
                            };
                            let (low, high) =
                                (scheme.quant_min() as f32, scheme.quant_max() as f32);
                            let y = if (low..=high).contains(&code) {
                                let error = f64::from(code) - f64::from(z) - f64::from(position);
                                (f64::from(x) / scale + error) * scale
                            } else {
                                (f64::from(code.clamp(low, high)) - zero) * scale
                            };
                            sum += f64::from(g) * y;
                        }
                        sum
                    };
                    let step = 1e-5;
                    let slope = (loss(step) - loss(-step)) / (2.0 * step);
                    let got = f64::from(got);
                    assert!(
                        (slope - got).abs() < 2e-4 * (1.0 + slope.abs()),
                        "{scheme} {parametrization:?} {at}: {slope} {got}"
                    );
                }
            }
        }
    }
}

#[test]
fn learned_numbers_survive_ten_thousand_steps_at_a_hostile_rate() {
    let mut noise = Noise(12);
    for kind in [ScaleKind::F32, ScaleKind::F16, ScaleKind::PowerOfTwo] {
        for (scheme, parametrization, _) in cases() {
            let scheme = scheme.with_granularity(lowbit::Granularity::PerAxis(0));
            let affine = start(scheme.unwrap(), &mut noise);
            for logarithms in [true, false] {
                let boxed = parametrization.clone();
                let start = if kind == ScaleKind::F32 {
                    affine.clone()
                } else {
                    stored(&affine, kind)
                };
                let mut fake = LearnedFakeQuant::new(start, boxed, Lsq).unwrap();
                if !logarithms {
                    fake = fake.with_sizes_as_they_are();
                }
                survive(&mut fake, &mut noise, true);
            }
        }
    }
    let scheme = Scheme::int(4).asymmetric().per_axis(0).build().unwrap();
    let mut fake = AffineFakeQuant::new(start(scheme, &mut noise), Lsq);
    survive(&mut fake, &mut noise, false);
}

/// The same with scales of powers of two, which every kind of scale holds.
fn stored(affine: &Affine, kind: ScaleKind) -> Affine {
    let builder = lowbit::SchemeBuilder::from(*affine.scheme()).scale_kind(kind);
    let scale = vec![0.25; affine.scale().len()];
    let zero = affine.zero_point().to_vec();
    Affine::new(builder.build().unwrap(), affine.shape(), scale, zero).unwrap()
}

fn survive(fake: &mut dyn FakeQuant, noise: &mut Noise, is_bounded: bool) {
    let x = noise.array(1.0);
    for step in 0..10_000 {
        // A rate that throws everything about, by many orders of magnitude.
        let rate = 10_f32.powi(step % 9 - 2);
        let y = fake.forward(&x).unwrap();
        let g = (&y - &x).mapv(|e| e.clamp(-1e6, 1e6) + noise.next());
        let gradients = fake.backward(&x, &g).unwrap();
        let slopes = fake
            .parameter_gradients(&gradients.scale, &gradients.zero_point)
            .unwrap();
        let moved: Vec<f32> = fake
            .parameters()
            .iter()
            .zip(&slopes)
            .map(|(p, s)| (p - rate * s).clamp(f32::MIN, f32::MAX))
            .collect();
        if moved.iter().all(|p| p.is_finite()) {
            fake.set_parameters(&moved).unwrap();
        }
        let affine = fake.affine_view(x.view().into_dyn()).unwrap();
        for (&scale, &zero) in affine.scale().iter().zip(affine.zero_point()) {
            assert!(
                scale > 0.0 && scale.is_normal(),
                "{scale} after step {step}"
            );
            assert!(zero.is_finite());
        }
        assert!(!is_bounded || y.iter().all(|y| y.is_finite()));
    }
}

#[test]
fn parameters_are_all_of_the_state() {
    let mut noise = Noise(13);
    for granularity in granularities() {
        for (scheme, parametrization, _) in cases() {
            let scheme = scheme.with_granularity(granularity).unwrap();
            let affine = start(scheme, &mut noise);
            let new = || {
                let boxed = parametrization.clone();
                LearnedFakeQuant::new(affine.clone(), boxed, Lsq).unwrap()
            };
            let mut fake = new();
            let mut moved = fake.parameters();
            for parameter in &mut moved {
                *parameter += 3.0 * noise.next();
            }
            fake.set_parameters(&moved).unwrap();
            let kept = fake.parameters();
            let mut restored = new();
            restored.set_parameters(&kept).unwrap();
            assert_eq!(bits(&restored.parameters()), bits(&kept));
            assert_eq!(restored.affine(), fake.affine());
            let x = noise.array(1.0);
            let y = fake.forward(&x).unwrap();
            assert_eq!(bits(&y), bits(&restored.forward(&x).unwrap()));
            assert_eq!(fake.convert(&x).unwrap().dequantize::<f32>(), y.into_dyn());
        }
    }
}

#[test]
fn schemes_that_do_not_fit_and_numbers_that_are_none_are_refused() {
    let affine = |builder: lowbit::SchemeBuilder| {
        Affine::per_tensor(builder.build().unwrap(), 0.5, 0.0).unwrap()
    };
    assert!(LearnedFakeQuant::new(affine(Scheme::int(4)), StepAndOffset, Lsq).is_err());
    assert!(LearnedFakeQuant::new(affine(Scheme::int(4).asymmetric_float()), Ends, Lsq).is_err());
    let float = Scheme::float(lowbit::FloatFormat::E4M3);
    assert!(LearnedFakeQuant::new(affine(float), Ends, Lsq).is_err());
    assert!(Threshold::new(0.0).is_err() && Threshold::new(f32::NAN).is_err());
    let mut fake = LearnedFakeQuant::new(affine(Scheme::int(4)), StepSize, Lsq).unwrap();
    for bad in [vec![], vec![1.0, 1.0], vec![f32::NAN], vec![f32::INFINITY]] {
        assert!(fake.set_parameters(&bad).is_err());
    }
    assert!(fake.parameter_gradients(&[], &[]).is_err());
    assert!((fake.affine().scale()[0] - 0.5).abs() < 1e-6);
    // other bits, and the same parametrization
    fake.restart(&affine(Scheme::int(2))).unwrap();
    assert_eq!(fake.affine().scheme().bits(), 2);
    let other = Scheme::int(2).per_axis(0).build().unwrap();
    assert!(
        fake.restart(&Affine::symmetric(other, &[2], vec![1.0; 2]).unwrap())
            .is_err()
    );
    let mut fixed = LearnedFakeQuant::new(affine(Scheme::int(4)), FixedParameters, Lsq).unwrap();
    assert_eq!(fixed.affine().scale(), [0.5]);
    assert!(fixed.set_parameters(&[1.0]).is_err());
    fixed.set_parameters(&[]).unwrap();
    // tensors of no elements have no groups
    let empty = Array2::<f32>::zeros((0, 3));
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let none = Affine::symmetric(scheme, &[0], vec![]).unwrap();
    let fake = LearnedFakeQuant::new(none, StepSize, Lsq).unwrap();
    let gradients = fake.backward(&empty, &empty).unwrap();
    assert!(
        fake.parameter_gradients(&gradients.scale, &[])
            .unwrap()
            .is_empty()
    );
}
