//! The methods of papers against their formulas, written down anew.

use lowbit::{
    Affine, FakeQuant, FakeQuantExt, Granularity, Groups, Scheme,
    qat::{
        AffineFakeQuant, BitNet, Dorefa, ElasticBits, Ewgs, GaussianRange, Pact, StretchedElastic,
        TrustMask, hutchinson_trace,
    },
};
use ndarray::{Array2, array};

use super::support::{Noise, granularities};

fn close(a: f64, b: f64, size: f64) -> bool {
    (a - b).abs() <= 2e-6 * (1.0 + size)
}

/// Elements of each group.
fn members(granularity: Granularity) -> Vec<Vec<usize>> {
    let groups = Groups::new(&[5, 10], granularity).unwrap();
    let mut members = vec![vec![]; groups.parameters()];
    for index in 0..50 {
        members[groups.parameter_of(index)].push(index);
    }
    members
}

#[test]
fn stretched_elastic_is_the_formula_of_paretoq() {
    let mut noise = Noise(4);
    for granularity in granularities() {
        for (bits, n, shift) in [
            (ElasticBits::Binary, 0.0, 0.0),
            (ElasticBits::Ternary, 1.5, 0.0),
            (ElasticBits::Two, 2.0, 0.5),
        ] {
            let (mut w, g) = (noise.array(1.3), noise.array(1.0));
            w[[0, 0]] = 0.0;
            let mut fake = StretchedElastic::fake_quant(bits, &w, granularity).unwrap();
            let members = members(granularity);
            for (group, members) in members.iter().enumerate() {
                let sizes = members.iter().map(|&i| w.as_slice().unwrap()[i].abs());
                let expected = match bits {
                    ElasticBits::Binary => sizes.sum::<f32>() / members.len() as f32,
                    _ => sizes.fold(0.0, f32::max),
                };
                // A group of one zero has no size.
                if expected > 0.0 {
                    assert!((fake.latents(group)[0] / expected - 1.0).abs() < 1e-5);
                }
            }
            // Some are clipped.
            let shrunk: Vec<f32> = fake.parameters().iter().map(|a| a - 0.3).collect();
            fake.set_parameters(&shrunk).unwrap();
            let y = fake.forward(&w).unwrap();
            let gradients = fake.backward(&w, &g).unwrap();
            let slopes = fake
                .parameter_gradients(&gradients.scale, &gradients.zero_point)
                .unwrap();
            for (group, members) in members.iter().enumerate() {
                let alpha = f64::from(fake.latents(group)[0]);
                let mut sum = 0.0;
                for &i in members {
                    let at = [i / 10, i % 10];
                    let (w, g) = (f64::from(w[at]), f64::from(g[at]));
                    let v = w / alpha;
                    let binary = bits == ElasticBits::Binary;
                    let level = if binary {
                        if v >= 0.0 { 1.0 } else { -1.0 }
                    } else {
                        ((v.clamp(-0.99, 0.99) * n - shift).round_ties_even() + shift) / n
                    };
                    assert!(close(f64::from(y[at]), alpha * level, 1.0), "{bits:?} {w}");
                    let inside = v.abs() <= if binary { 1.0 } else { 0.99 };
                    let to_w = if inside { g } else { 0.0 };
                    assert!(close(f64::from(gradients.input[at]), to_w, 0.0));
                    let to_alpha = if inside && !binary { level - v } else { level };
                    sum += g * to_alpha;
                }
                // The optimizer steps ln α, and elements are counted by the scale.
                let expected = sum / (members.len() as f64).sqrt() * alpha;
                assert!(close(f64::from(slopes[group]), expected, alpha), "{bits:?}");
            }
        }
    }
}

#[test]
fn pact_is_the_formula_of_the_paper() {
    let scheme = Scheme::int(4).unsigned().asymmetric().build().unwrap();
    let fake = Pact::fake_quant(&scheme, 0.7)
        .unwrap()
        .with_sizes_as_they_are();
    let mut noise = Noise(5);
    let (x, g) = (noise.array(1.5), noise.array(1.0));
    let gradients = fake.backward(&x, &g).unwrap();
    let slope = fake
        .parameter_gradients(&gradients.scale, &gradients.zero_point)
        .unwrap();
    let alpha = 0.7_f32;
    let mut to_alpha = 0.0;
    for ((&x, &g), (&dx, &y)) in x
        .iter()
        .zip(&g)
        .zip(gradients.input.iter().zip(&fake.forward(&x).unwrap()))
    {
        // y = ½ (|x| − |x − α| + α), and α / 15 is a step
        let clipped = 0.5 * (x.abs() - (x - alpha).abs() + alpha);
        assert!((y - (clipped / alpha * 15.0).round() * alpha / 15.0).abs() < 1e-6);
        assert_eq!(dx, if (0.0..alpha).contains(&x) { g } else { 0.0 });
        to_alpha += if x >= alpha { f64::from(g) } else { 0.0 };
    }
    assert!(
        close(f64::from(slope[0]), to_alpha, 1.0),
        "{slope:?} {to_alpha}"
    );
    assert!(Pact::fake_quant(&scheme, f32::NAN).is_err());
    assert!(Pact::fake_quant(&scheme, -1.0).is_err());
    let rows = scheme.with_granularity(Granularity::PerRow).unwrap();
    assert!(Pact::fake_quant(&rows, 1.0).is_err());
}

#[test]
fn ewgs_scales_each_gradient_by_its_own_error() {
    let mut noise = Noise(6);
    for granularity in granularities() {
        let scheme = Scheme::int(3).unsigned().asymmetric();
        let scheme = scheme.granularity(granularity).build().unwrap();
        let groups = Groups::new(&[5, 10], granularity).unwrap();
        let scale: Vec<f32> = (0..groups.parameters())
            .map(|_| 0.3 + 0.1 * noise.next())
            .collect();
        let zero = vec![3.0; scale.len()];
        let affine = Affine::new(scheme, &groups.parameter_shape(), scale.clone(), zero).unwrap();
        let fake = AffineFakeQuant::new(affine, Ewgs::new(0.9).unwrap());
        let (x, g) = (noise.array(2.0), noise.array(1.0));
        let gradients = fake.backward(&x, &g).unwrap();
        let mut sums = vec![0.0; scale.len()];
        for (index, (&x, &g)) in x.iter().zip(&g).enumerate() {
            let s = f64::from(scale[groups.parameter_of(index)]);
            let (x, g) = (f64::from(x), f64::from(g));
            // Normalized to [0, 1]: 7 steps from −3 to 4
            let xn = (x / s + 3.0) / 7.0;
            let inside = (0.0..=1.0).contains(&xn);
            let xq = (xn.clamp(0.0, 1.0) * 7.0).round_ties_even() / 7.0;
            let slope = 1.0 + 0.9 * g.signum() * (xn - xq);
            let expected = if inside { g * slope } else { 0.0 };
            let got = f64::from(gradients.input.as_slice().unwrap()[index]);
            assert!(close(got, expected, 0.0), "{got} {expected}");
            // y = s (7 xq − 3), xq moving with xn by the slope
            let moved = if inside { slope * -x / s } else { 0.0 };
            sums[groups.parameter_of(index)] += g * (7.0 * xq - 3.0 + moved);
        }
        for (&got, expected) in gradients.scale.iter().zip(sums) {
            assert!(close(f64::from(got), expected, 10.0), "{got} {expected}");
        }
    }
    assert!(Ewgs::new(-1.0).is_err() && Ewgs::new(f32::NAN).is_err());
    assert!(Ewgs::from_curvature(f64::NAN, 1, 1.0).is_err());
    assert!(Ewgs::from_curvature(1.0, 0, 1.0).is_err());
    assert!(Ewgs::from_curvature(1.0, 1, 0.0).is_err());
    assert_eq!(Ewgs::from_curvature(-5.0, 1, 1.0).unwrap().delta(), 0.0);
}

#[test]
fn the_trace_of_hutchinson_is_the_trace() {
    // 30 on the diagonal in all; off it, random numbers that cancel
    let mut noise = Noise(7);
    let mut matrix = Array2::from_shape_simple_fn((20, 20), || 0.3 * noise.next());
    matrix = &matrix + &matrix.t();
    for i in 0..20 {
        matrix[[i, i]] = 1.5;
    }
    let product = |v: &[f32]| Ok(matrix.dot(&ndarray::aview1(v)).to_vec());
    let trace = hutchinson_trace(20, 2_000, 1, product).unwrap();
    assert!((trace - 30.0).abs() < 2.0, "{trace}");
    assert_eq!(trace, hutchinson_trace(20, 2_000, 1, product).unwrap());
    assert!(hutchinson_trace(0, 1, 1, product).is_err());
    assert!(hutchinson_trace(20, 0, 1, product).is_err());
    assert!(hutchinson_trace(usize::MAX, 1, 1, product).is_err());
    assert!(hutchinson_trace(19, 1, 1, |_| Ok(vec![])).is_err());
    assert!(hutchinson_trace(1, 1, 1, |_| Ok(vec![f32::NAN])).is_err());
}

#[test]
fn trust_masks_pass_what_moved_by_half_a_step_at_most() {
    let mut noise = Noise(8);
    let x = noise.array(1.0).mapv(|x| 3.0 * x * x * x);
    for (bits, width) in [(1, 0.7979), (2, 1.4935), (3, 2.0511), (4, 2.5139)] {
        for granularity in granularities() {
            let fake = TrustMask::fake_quant(bits, granularity).unwrap();
            let y = fake.forward(&x).unwrap();
            let passed = fake.backward(&x, &Array2::ones((5, 10))).unwrap().input;
            for members in members(granularity) {
                let at = |i: usize| [i / 10, i % 10];
                let square = members.iter().map(|&i| f64::from(x[at(i)]).powi(2));
                let rms = (square.sum::<f64>() / members.len() as f64).sqrt();
                let reach = width * rms + 1e-8;
                let step = 2.0 * reach / f64::from((1 << bits) - 1);
                for i in members {
                    let (x, y) = (f64::from(x[at(i)]), f64::from(y[at(i)]));
                    let clipped = x.clamp(-reach, reach);
                    let expected = (clipped / step + 0.5).round() * step - step / 2.0;
                    // The ends round up and beyond in the formula as it is printed.
                    let expected = expected.clamp(-reach, reach);
                    let tie =
                        ((clipped / step).fract().abs()).min(1.0 - (clipped / step).fract().abs());
                    assert!(
                        (y - expected).abs() < 1e-5 || tie < 1e-4,
                        "{bits} {x} {y} {expected}"
                    );
                    let limit = width * rms / f64::from((1 << bits) - 1);
                    let error = (y - x).abs() - limit;
                    assert!(error.abs() < 1e-5 || (passed[at(i)] == 1.0) == (error < 0.0));
                }
            }
        }
    }
    assert!(TrustMask::new(0.0).is_err() && TrustMask::new(f32::NAN).is_err());
    assert!(TrustMask::fake_quant(0, Granularity::PerTensor).is_err());
    assert!(TrustMask::fake_quant(9, Granularity::PerTensor).is_err());
}

/// The expected squared error of a uniform grid over ±width on normal values.
fn gaussian_error(bits: u32, width: f64) -> f64 {
    let step = 2.0 * width / f64::from((1 << bits) - 1);
    let (mut sum, h) = (0.0, 1e-3);
    let mut x = -9.0;
    while x < 9.0 {
        let code = ((x + width) / step)
            .round()
            .clamp(0.0, f64::from((1 << bits) - 1));
        let error = x - (code * step - width);
        sum += error * error * (-0.5 * x * x).exp() * h;
        x += h;
    }
    sum
}

#[test]
fn gaussian_ranges_have_the_least_error_on_normal_values() {
    use lowbit::{Calibrator, observe::Statistics};
    for bits in 1..=8 {
        let scheme = Scheme::int(bits).asymmetric_float().build().unwrap();
        let ones = Statistics::of_values(&[1.0, -1.0]).unwrap();
        let range = GaussianRange::new(bits)
            .unwrap()
            .range(&ones, &scheme)
            .unwrap();
        let width = f64::from(range.max());
        let here = gaussian_error(bits, width);
        for other in [width * 0.98, width * 1.02] {
            assert!(here < gaussian_error(bits, other), "{bits} bits: {width}");
        }
    }
}

#[test]
fn bit_net_is_the_formula_of_the_paper() {
    let mut noise = Noise(9);
    let x = noise.array(2.0);
    let weights = BitNet::weights(Granularity::PerTensor).unwrap();
    let y = weights.forward(&x).unwrap();
    let mean = x.iter().map(|x| x.abs()).sum::<f32>() / 50.0;
    for (&x, &y) in x.iter().zip(&y) {
        let level = (x / mean).round().clamp(-1.0, 1.0);
        assert!((y - level * mean).abs() < 1e-5, "{x} {y}");
    }
    assert_eq!(weights.backward(&x, &x).unwrap().input, x);
    let zeros = Array2::<f32>::zeros((2, 3));
    assert_eq!(weights.forward(&zeros).unwrap(), zeros);
    let tokens = BitNet::activations().unwrap().forward(&x).unwrap();
    for (x, y) in x.rows().into_iter().zip(tokens.rows()) {
        let step = x.fold(0.0_f32, |max, x| max.max(x.abs())) / 127.0;
        for (x, y) in x.iter().zip(y) {
            assert!((y - (x / step).round() * step).abs() < 1e-5);
        }
    }
}

/// eq. 9 of DoReFa without rounding: what its gradient is the derivative of.
fn smooth(w: &[f64]) -> Vec<f64> {
    let max = w.iter().fold(0.0_f64, |max, w| max.max(w.tanh().abs()));
    w.iter().map(|w| w.tanh() / max).collect()
}

#[test]
fn dorefa_is_the_formula_of_the_paper_and_its_gradient_the_finite_difference() {
    let mut noise = Noise(10);
    let (w, g) = (noise.array(1.5), noise.array(1.0));
    for granularity in granularities() {
        let fake = Dorefa::new(3, granularity).unwrap();
        let y = fake.forward(&w).unwrap();
        let gradients = fake.backward(&w, &g).unwrap().input;
        // The fitted one is the same times a factor for each group.
        let fitted = Dorefa::fitted(3, &w, granularity).unwrap();
        let near = fitted.forward(&w).unwrap();
        let steep = fitted.backward(&w, &g).unwrap().input;
        let misfit = |y: &Array2<f32>| (y - &w).mapv(|e| e * e).sum();
        assert!(misfit(&near) < misfit(&y));
        assert_eq!(
            fitted.convert(&w).unwrap().dequantize::<f32>(),
            near.clone().into_dyn()
        );
        for (((near, y), steep), g) in near.iter().zip(&y).zip(&steep).zip(&gradients) {
            assert!((near * g - y * steep).abs() < 1e-4);
        }
        for members in members(granularity) {
            let at = |i: usize| [i / 10, i % 10];
            let values: Vec<f64> = members.iter().map(|&i| f64::from(w[at(i)])).collect();
            let normalized = smooth(&values);
            for (place, &i) in members.iter().enumerate() {
                let quantized = ((normalized[place] / 2.0 + 0.5) * 7.0).round() / 7.0;
                assert!((f64::from(y[at(i)]) - (2.0 * quantized - 1.0)).abs() < 1e-5);
                let loss = |by: f64| -> f64 {
                    let mut moved = values.clone();
                    moved[place] += by;
                    let outputs = smooth(&moved);
                    let pairs = outputs.iter().zip(&members);
                    pairs.map(|(y, &i)| y * f64::from(g[at(i)])).sum()
                };
                let slope = (loss(1e-5) - loss(-1e-5)) / 2e-5;
                let got = f64::from(gradients[at(i)]);
                assert!((slope - got).abs() < 1e-4, "{granularity}: {slope} {got}");
            }
        }
    }
    let zeros = array![[0.0_f32, 0.0]];
    let fake = Dorefa::new(2, Granularity::PerTensor).unwrap();
    assert!(fake.forward(&zeros).unwrap().iter().all(|y| y.is_finite()));
    assert!(
        fake.backward(&zeros, &zeros)
            .unwrap()
            .input
            .iter()
            .all(|y| *y == 0.0)
    );
    assert!(fake.forward(&array![f32::NAN, 1.0]).unwrap()[0].is_nan());
    assert!(fake.convert(&array![f32::NAN, 1.0]).is_err());
    assert!(Dorefa::fitted(2, &array![f32::NAN], Granularity::PerTensor).is_err());
    assert!(Dorefa::new(1, Granularity::PerTensor).is_err());
    assert!(Dorefa::activations(9).is_err());
}
