//! The gradients of fake quantization against finite differences.

use lowbit::{
    Affine, FakeQuantExt, FloatFormat, Format, Granularity, Groups, Mapping, Range, Ranges, Scheme,
    StraightThroughEstimator,
    codes::minifloat,
    fake_quantize,
    qat::{AffineFakeQuant, Clipped, Lsq, Plain, TorchLearnable},
};
use ndarray::{Array2, ArrayD, IxDyn};

use super::support::{Noise, granularities};

fn schemes() -> Vec<Scheme> {
    [
        Scheme::int(8),
        Scheme::int(2).narrow_range(),
        Scheme::int(4).unsigned(),
        Scheme::int(3).unsigned().asymmetric(),
        Scheme::int(16).asymmetric(),
        Scheme::int(1).unsigned().asymmetric_float(),
        Scheme::int(4).asymmetric_float(),
        Scheme::float(FloatFormat::E4M3),
        Scheme::float(FloatFormat::E2M1),
    ]
    .map(|scheme| scheme.build().unwrap())
    .to_vec()
}

/// Parameters that differ from group to group; codes reach to about ±1 for 8 bits and 0.3 for few.
fn parameters(scheme: Scheme, noise: &mut Noise) -> Affine {
    let groups = Groups::new(&[5, 10], scheme.granularity()).unwrap();
    let levels = match scheme.format() {
        Format::Float(float) => float.max_value(),
        _ => (scheme.quant_max() - scheme.quant_min()) as f32 / 2.0,
    };
    let scale: Vec<f32> = (0..groups.parameters())
        .map(|_| (0.6 + 0.3 * noise.next()) / levels)
        .collect();
    let zero_point = scale.iter().map(|_| match scheme.mapping() {
        Mapping::Asymmetric => {
            let middle = (scheme.quant_max() + scheme.quant_min()) as f32 / 2.0;
            (middle + levels * noise.next()).round()
        }
        Mapping::AsymmetricFloat => levels * (0.5 + noise.next()),
        _ => scheme.middle() as f32,
    });
    let zero_point = zero_point.collect();
    Affine::new(scheme, &groups.parameter_shape(), scale, zero_point).unwrap()
}

/// What an estimator takes the forward pass for, at one element: rounding errors are constants,
/// found at the element, and so is what is clamped.
struct Surrogate {
    /// The output in steps less the input in steps.
    residual: f64,
    /// The code it is clamped to, if it is; levels for small floats.
    clamped: Option<f64>,
    /// Whether codes are counted from a zero point.
    integer: bool,
}

impl Surrogate {
    fn at(x: f32, scale: f32, zero: f32, scheme: &Scheme, estimator: &str) -> Self {
        let position = x / scale;
        let (level, low, high, rounded, shift) = match (scheme.format(), scheme.mapping()) {
            (Format::Float(float), _) => {
                let best = (0..1_u16 << float.bits())
                    .map(|pattern| minifloat::decode(pattern as u8, float))
                    .filter(|value| value.is_finite())
                    .min_by(|a, b| (a - position).abs().total_cmp(&(b - position).abs()))
                    .unwrap();
                (best, -float.max_value(), float.max_value(), position, 0.0)
            }
            (_, mapping) => {
                let (low, high) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
                let rounded = if mapping == Mapping::AsymmetricFloat {
                    (position + zero).round_ties_even()
                } else if estimator == "torch" {
                    (x * (1.0 / scale) + zero).round_ties_even()
                } else {
                    position.round_ties_even() + zero
                };
                let level = rounded.clamp(low, high) - zero;
                (level, low, high, rounded, zero)
            }
        };
        let inside = match estimator {
            "plain" => true,
            "lsq" => low - shift < position && position < high - shift,
            _ => low <= rounded && rounded <= high,
        };
        let end = if position > 0.5 * (low + high) - shift {
            high
        } else {
            low
        };
        Self {
            residual: f64::from(level) - f64::from(position),
            clamped: (!inside).then_some(end.into()),
            integer: matches!(scheme.format(), Format::Int(_)),
        }
    }

    fn output(&self, x: f64, scale: f64, zero: f64) -> f64 {
        match self.clamped {
            None => (x / scale + self.residual) * scale,
            Some(end) if self.integer => (end - zero) * scale,
            Some(end) => end * scale,
        }
    }
}

fn estimators() -> [(&'static str, Box<dyn StraightThroughEstimator>); 4] {
    [
        ("clipped", Box::new(Clipped)),
        ("plain", Box::new(Plain)),
        ("lsq", Box::new(Lsq)),
        (
            "torch",
            Box::new(TorchLearnable::per_channel(0.25).unwrap()),
        ),
    ]
}

/// `1 / √(N · Qp)` from the definition.
fn lsq_factor(scheme: &Scheme, elements: usize) -> f64 {
    let levels = match scheme.format() {
        Format::Float(float) => f64::from(float.max_value()),
        Format::Int(_) if scheme.mapping().is_symmetric() => {
            f64::from(scheme.quant_max() - scheme.middle())
        }
        _ => f64::from(scheme.quant_max()),
    };
    1.0 / (elements as f64 * levels).sqrt()
}

#[test]
fn gradients_are_the_finite_differences_of_the_surrogate() {
    let mut noise = Noise(1);
    let mut clamped = 0;
    for scheme in schemes() {
        for granularity in granularities() {
            let scheme = scheme.with_granularity(granularity).unwrap();
            let affine = parameters(scheme, &mut noise);
            let groups = affine.groups(&[5, 10]).unwrap();
            let (x, g) = (noise.array(1.5), noise.array(1.0));
            for (name, estimator) in estimators() {
                let fake = AffineFakeQuant::new(affine.clone(), estimator);
                let gradients = fake.backward(&x, &g).unwrap();
                let mut sums = vec![[0.0_f64; 3]; groups.parameters()];
                for (index, ((&x, &g), &got)) in x.iter().zip(&g).zip(&gradients.input).enumerate()
                {
                    let parameter = groups.parameter_of(index);
                    let (s, z) = (affine.scale()[parameter], affine.zero_point()[parameter]);
                    let surrogate = Surrogate::at(x, s, z, &scheme, name);
                    clamped += usize::from(surrogate.clamped.is_some());
                    let difference = |f: &dyn Fn(f64) -> f64, at: f32, step: f64| {
                        (f(f64::from(at) + step) - f(f64::from(at) - step)) / (2.0 * step)
                    };
                    let (wide_x, wide_s, wide_z) = (f64::from(x), f64::from(s), f64::from(z));
                    let step = wide_s * 1e-3;
                    let dx = difference(&|x| surrogate.output(x, wide_s, wide_z), x, step);
                    let ds = difference(&|s| surrogate.output(wide_x, s, wide_z), s, step);
                    let dz = difference(&|z| surrogate.output(wide_x, wide_s, z), z, 1e-3);
                    let g = f64::from(g);
                    assert!((f64::from(got) - g * dx).abs() < 1e-6, "{scheme} {name}");
                    sums[parameter][0] += g * ds;
                    sums[parameter][1] += g * dz;
                    sums[parameter][2] += (g * wide_x / wide_s).abs() + (g * ds).abs();
                }
                for (parameter, [ds, dz, size]) in sums.into_iter().enumerate() {
                    let factor = match name {
                        "lsq" => lsq_factor(&scheme, groups.elements_of(parameter)),
                        "torch" => 0.25,
                        _ => 1.0,
                    };
                    let (s, z) = (gradients.scale[parameter], gradients.zero_point[parameter]);
                    let error = (f64::from(s) - factor * ds).abs();
                    assert!(error < 1e-6 * factor * size, "{scheme} {name}: {s} {ds}");
                    let error = (f64::from(z) - factor * dz).abs();
                    assert!(error < 1e-6 * factor * size, "{scheme} {name}: {z} {dz}");
                }
            }
        }
    }
    assert!(
        clamped > 1_000,
        "the cases reach beyond the ends: {clamped}"
    );
}

#[test]
fn gradients_of_clipped_values_are_the_finite_differences_of_the_forward_pass() {
    let mut noise = Noise(2);
    for scheme in schemes() {
        for granularity in granularities() {
            let scheme = scheme.with_granularity(granularity).unwrap();
            let affine = parameters(scheme, &mut noise);
            let x = noise.array(1.0).mapv(|x| (x.abs() + 9.0) * x.signum());
            let g = noise.array(1.0);
            let loss = |fake: &AffineFakeQuant<Clipped>| -> f64 {
                let y = fake.forward(&x).unwrap();
                y.iter()
                    .zip(&g)
                    .map(|(&y, &g)| f64::from(y) * f64::from(g))
                    .sum()
            };
            let fake = AffineFakeQuant::new(affine.clone(), Clipped);
            let gradients = fake.backward(&x, &g).unwrap();
            assert!(gradients.input.iter().all(|&gradient| gradient == 0.0));
            for parameter in 0..affine.scale().len() {
                let scale = affine.scale()[parameter];
                let at = |scale: f32| {
                    let mut fake = fake.clone();
                    let mut scales = fake.scale().to_vec();
                    scales[parameter] = scale;
                    fake.set_scale(&scales).unwrap();
                    loss(&fake)
                };
                let (low, high) = (scale * 0.75, scale * 1.25);
                let slope = (at(high) - at(low)) / (f64::from(high) - f64::from(low));
                let got = f64::from(gradients.scale[parameter]);
                let size = 1.0 + got.abs() + f64::from(scale.recip());
                assert!((slope - got).abs() < 1e-4 * size, "{scheme}: {slope} {got}");
                if scheme.mapping() == Mapping::AsymmetricFloat {
                    let zero = affine.zero_point()[parameter];
                    let at = |zero: f32| {
                        let mut fake = fake.clone();
                        let mut zeros = fake.zero_point().to_vec();
                        zeros[parameter] = zero;
                        fake.set_zero_point(&zeros).unwrap();
                        loss(&fake)
                    };
                    let slope = at(zero + 0.5) - at(zero - 0.5);
                    let got = f64::from(gradients.zero_point[parameter]);
                    assert!((slope - got).abs() < 1e-4, "{scheme}: {slope} {got}");
                }
            }
        }
    }
}

#[test]
fn the_scale_factor_of_lsq_counts_the_elements_that_share_a_scale() {
    // rows of 5 in groups of 2: the last one has a single element
    let scheme = Scheme::int(4).per_group(2).build().unwrap();
    let affine = Affine::symmetric(scheme, &[1, 3], vec![1.0; 3]).unwrap();
    let x = Array2::from_elem((1, 5), 100.0_f32);
    let g = Array2::from_elem((1, 5), 1.0);
    let gradients = AffineFakeQuant::new(affine, Lsq).backward(&x, &g).unwrap();
    let of = |n: f32| 7.0 * n / (n * 7.0).sqrt();
    for (got, expected) in gradients.scale.iter().zip([of(2.0), of(2.0), of(1.0)]) {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
}

#[test]
fn lsq_ends_its_interval_at_the_last_codes_and_clipped_half_a_step_later() {
    let affine = Affine::per_tensor(Scheme::int(2).build().unwrap(), 1.0, 0.0).unwrap();
    let x = ndarray::array![1.0_f32, 1.25, 1.5, -2.0, -2.5, -2.75, 0.75];
    let ones = ndarray::Array1::ones(7);
    let lsq = AffineFakeQuant::new(affine.clone(), Lsq)
        .backward(&x, &ones)
        .unwrap();
    assert_eq!(lsq.input.to_vec(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let clipped = AffineFakeQuant::new(affine, Clipped)
        .backward(&x, &ones)
        .unwrap();
    // −2.5 rounds to −2, 1.5 to 2, which is clamped
    assert_eq!(clipped.input.to_vec(), [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]);
}

#[test]
fn the_latent_zero_point_rounds_alike_in_both_passes() {
    // ends of ties: −2.5 → −2, −3.5 → −4; and beyond the codes
    for (latent, effective) in [
        (-2.5, -2.0),
        (-3.5, -4.0),
        (2.5, 2.0),
        (99.0, 7.0),
        (-99.0, -8.0),
    ] {
        let scheme = Scheme::int(4).asymmetric().build().unwrap();
        let mut fake = AffineFakeQuant::new(Affine::per_tensor(scheme, 1.0, 0.0).unwrap(), Clipped);
        fake.set_zero_point(&[latent]).unwrap();
        assert_eq!(fake.affine().zero_point(), [effective]);
        assert_eq!(fake.zero_point(), [latent]);
        let x = ndarray::Array1::from_iter((-40..40).map(|x| x as f32 * 0.5));
        let inside = fake.backward(&x, &ndarray::Array1::ones(80)).unwrap().input;
        let y = fake.forward(&x).unwrap();
        let exact =
            fake_quantize(&x, &Affine::per_tensor(scheme, 1.0, effective).unwrap()).unwrap();
        assert_eq!(y, exact);
        for ((&x, &y), &inside) in x.iter().zip(&y).zip(&inside) {
            assert_eq!(inside == 1.0, x.round_ties_even() == y, "{latent} {x} {y}");
        }
    }
}

#[test]
fn torch_per_tensor_shifts_negative_zero_points_in_the_backward_pass() {
    // zero point −2: codes −8 to 7 stand for −6 to 9; with −1, for −7 to 8
    let scheme = Scheme::int(4).asymmetric().build().unwrap();
    let affine = Affine::per_tensor(scheme, 1.0, -2.0).unwrap();
    let x = ndarray::array![-7.25_f32, 9.0];
    let ones = ndarray::array![1.0_f32, 1.0];
    let as_torch = AffineFakeQuant::new(affine.clone(), TorchLearnable::per_tensor(1.0).unwrap());
    assert_eq!(
        as_torch.backward(&x, &ones).unwrap().input.to_vec(),
        [1.0, 0.0]
    );
    let as_forward = AffineFakeQuant::new(affine, TorchLearnable::per_channel(1.0).unwrap());
    assert_eq!(
        as_forward.backward(&x, &ones).unwrap().input.to_vec(),
        [0.0, 1.0]
    );
    assert!(TorchLearnable::per_tensor(f32::NAN).is_err());
}

#[test]
fn torch_rounds_halves_to_even_codes_in_the_backward_pass() {
    // 0.5 lies between the codes 1 and 2, so between 0 and 1 steps from the zero point
    let scheme = Scheme::int(4).asymmetric().build().unwrap();
    let affine = Affine::per_tensor(scheme, 1.0, 1.0).unwrap();
    let (x, one) = (ndarray::array![0.5_f32], ndarray::array![1.0_f32]);
    let fake = AffineFakeQuant::new(affine.clone(), TorchLearnable::per_channel(1.0).unwrap());
    assert_eq!(fake.forward(&x).unwrap()[0], 0.0);
    assert_eq!(fake.backward(&x, &one).unwrap().scale, [0.5]);
    let as_forward = AffineFakeQuant::new(affine, Clipped);
    assert_eq!(as_forward.backward(&x, &one).unwrap().scale, [-0.5]);
    // Between the codes 7 and 8, which is even and clamped; between 6 and 7.
    for (zero, x, input) in [(0.0, 7.5_f32, 0.0), (1.0, 6.5, 0.0), (1.0, 5.5, 1.0)] {
        let affine = Affine::per_tensor(scheme, 1.0, zero).unwrap();
        let fake = AffineFakeQuant::new(affine, TorchLearnable::per_channel(1.0).unwrap());
        let gradients = fake.backward(&ndarray::array![x], &one).unwrap();
        assert_eq!(gradients.input[0], input, "{zero} {x}");
    }
}

#[test]
fn first_scales_of_lsq_are_those_of_the_paper() {
    let mut noise = Noise(3);
    let x = noise.array(2.0);
    for granularity in granularities() {
        for scheme in schemes() {
            let scheme = scheme.with_granularity(granularity).unwrap();
            let groups = Groups::new(&[5, 10], granularity).unwrap();
            let affine = Lsq::initial(&x, &scheme).unwrap();
            for parameter in 0..groups.parameters() {
                let (mut sum, mut count) = (0.0, 0);
                for (index, &x) in x.iter().enumerate() {
                    if groups.parameter_of(index) == parameter {
                        sum += f64::from(x.abs());
                        count += 1;
                    }
                }
                // lsq_factor of one element is 1 / √Qp
                let qp = lsq_factor(&scheme, 1).min(1.0);
                let expected = 2.0 * sum / f64::from(count) * qp;
                let got = f64::from(affine.scale()[parameter]);
                assert!((got - expected).abs() < 1e-6 * expected, "{scheme}");
            }
        }
    }
    let scheme = Scheme::int(4).build().unwrap();
    let nan = ndarray::array![[1.0_f32], [f32::NAN]];
    let error = Lsq::initial(&nan, &scheme).unwrap_err();
    assert!(matches!(error, lowbit::Error::NonFinite { position, .. } if position == [1, 0]));
    let nothing: ArrayD<f32> = ArrayD::zeros(IxDyn(&[0, 3]));
    assert_eq!(Lsq::initial(&nothing, &scheme).unwrap().scale(), [1.0]);
    assert!(
        Lsq::initial(
            &ndarray::arr0(1.0),
            &scheme.with_granularity(Granularity::PerRow).unwrap()
        )
        .is_err()
    );
}

#[test]
fn a_thousand_small_gradients_are_not_lost_beside_a_large_one() {
    let scheme = Scheme::int(8).build().unwrap();
    let ranges = Ranges::per_tensor(Range::new(-127.0, 127.0).unwrap());
    let fake = AffineFakeQuant::new(Affine::from_ranges(&scheme, &ranges).unwrap(), Clipped);
    let x = ndarray::Array1::from_elem(100_001, 1e9_f32);
    let mut g = ndarray::Array1::from_elem(100_001, 1.0_f32);
    g[0] = 1e10;
    g[100_000] = -1e10;
    let gradients = fake.backward(&x, &g).unwrap();
    assert_eq!(gradients.scale, [127.0 * 99_999.0]);
}
