//! Weight-only products: as near the exact sum as a float sum of that length can be asked to be.

use half::{bf16, f16};
use lowbit::{Affine, FloatFormat, Granularity, Isa, QTensor, Scheme};
use ndarray::Array2;

use super::{
    reference,
    support::{Random, affine, layers, tensor, weight_schemes},
};

/// Rounding errors of a sum of `n` products, relative to the sum of their magnitudes.
fn bound(n: usize) -> f64 {
    (n as f64 + 2.0) * f64::from(f32::EPSILON)
}

fn check(weights: &QTensor, rows: usize, random: &mut Random) {
    let [outputs, depth] = *weights.shape() else {
        panic!("two axes")
    };
    let x = Array2::from_shape_simple_fn((rows, depth), || random.float());
    let bias: Vec<f32> = (0..outputs).map(|_| random.float()).collect();
    let expected = reference::float(x.view(), weights);
    for layer in layers(weights, Some(&bias)) {
        let got = layer.forward(&x).unwrap();
        for (((m, n), &(sum, magnitude)), &got) in expected.indexed_iter().zip(&got) {
            let error = (f64::from(got) - sum - f64::from(bias[n])).abs();
            let limit = bound(depth) * (magnitude + f64::from(bias[n].abs()));
            assert!(
                error <= limit,
                "{} [{m}, {n}] {}: {error:e} > {limit:e}",
                layer.kernel(),
                weights.scheme()
            );
        }
        // A row does not depend on those beside it.
        for row in 0..rows.min(3) {
            let alone = layer.forward(&x.row(row)).unwrap();
            assert_eq!(alone, got.row(row));
        }
    }
}

#[test]
fn every_kernel_is_within_rounding_of_the_exact_sum() {
    let mut random = Random(11);
    let shapes = [
        (1, 16, 32),
        (3, 0, 4),
        (2, 5, 0),
        (4, 17, 33),
        (7, 33, 300),
        (13, 150, 65),
    ];
    for bits in 1..=8 {
        for (index, scheme) in weight_schemes(bits).into_iter().enumerate() {
            let (rows, outputs, depth) = shapes[(index + bits as usize) % shapes.len()];
            let weights = tensor(scheme, (outputs, depth), &mut random);
            check(&weights, rows, &mut random);
        }
    }
}

#[test]
fn small_floats_are_what_their_codes_stand_for() {
    let mut random = Random(12);
    for format in [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1] {
        for granularity in [Granularity::PerTensor, Granularity::PerGroup(16)] {
            let scheme = Scheme::float(format)
                .granularity(granularity)
                .build()
                .unwrap();
            let affine = affine(scheme, &[20, 128], &mut random);
            let finite =
                |&code: &i32| lowbit::codes::minifloat::decode(code as u8, format).is_finite();
            let all: Vec<i32> = (0..=scheme.quant_max()).filter(finite).collect();
            let codes = Array2::from_shape_fn((20, 128), |(o, i)| all[(o * 128 + i) % all.len()]);
            let weights = QTensor::from_codes(&codes, &affine).unwrap();
            check(&weights, 5, &mut random);
            // One weight at a time: the product is exact.
            let dequantized = weights.dequantize::<f32>().into_dimensionality().unwrap();
            for layer in layers(&weights, None) {
                let identity = Array2::from_diag_elem(128, 1.0_f32);
                assert_eq!(
                    layer.forward(&identity).unwrap(),
                    dequantized.t(),
                    "{format:?}"
                );
            }
        }
    }
}

#[test]
fn one_weight_at_a_time_is_the_dequantized_weight() {
    let mut random = Random(13);
    for bits in 1..=8 {
        for scheme in weight_schemes(bits) {
            let weights = tensor(scheme, (19, 50), &mut random);
            let dequantized = weights.dequantize::<f32>().into_dimensionality().unwrap();
            for layer in layers(&weights, None) {
                let identity = Array2::from_diag_elem(50, 1.0_f32);
                let got = layer.forward(&identity).unwrap();
                assert_eq!(got, dequantized.t(), "{} {scheme}", layer.kernel());
            }
        }
    }
}

#[test]
fn sixteen_bit_floats_come_out_as_they_go_in() {
    let mut random = Random(14);
    let scheme = Scheme::int(4).per_group(32).build().unwrap();
    let weights = tensor(scheme, (8, 64), &mut random);
    let x = Array2::from_shape_simple_fn((3, 64), || f16::from_f32(random.float()));
    for layer in layers(&weights, None) {
        let wide = layer.forward(&x.mapv(f16::to_f32)).unwrap();
        assert_eq!(layer.forward(&x).unwrap(), wide.mapv(f16::from_f32));
        let x = x.mapv(|x| bf16::from_f32(x.to_f32()));
        let wide = layer.forward(&x.mapv(bf16::to_f32)).unwrap();
        assert_eq!(layer.forward(&x).unwrap(), wide.mapv(bf16::from_f32));
    }
}

#[test]
fn nan_and_infinity_propagate_in_their_row_alone() {
    let mut random = Random(15);
    let scheme = Scheme::int(8).per_axis(0).build().unwrap();
    let weights = tensor(scheme, (9, 40), &mut random);
    let mut x = Array2::from_shape_simple_fn((3, 40), || random.float());
    x[[1, 7]] = f32::NAN;
    for &isa in Isa::available() {
        let layer = lowbit::PackedLinear::pack_for(isa, &weights, None).unwrap();
        let y = layer.forward(&x).unwrap();
        assert!(y.row(0).iter().chain(y.row(2)).all(|y| y.is_finite()));
        assert!(y.row(1).iter().all(|y| y.is_nan()));
    }
}

#[test]
fn one_row_of_weights_beyond_the_floats_is_as_among_others() {
    // The code that is farthest from 0 stands for no float; it is in no weight, but groups are filled
    // up with it on their way to a whole block.
    for scheme in [
        Scheme::int(4).per_axis(0),
        Scheme::int(8).per_group(20),
        Scheme::int(3).asymmetric().per_group(33),
        Scheme::int(5).asymmetric_float().per_axis(0),
    ] {
        let scheme = scheme.build().unwrap();
        let groups = lowbit::Groups::new(&[9, 45], scheme.granularity()).unwrap();
        let n = groups.parameters();
        let zero = if scheme.mapping() == lowbit::Mapping::Asymmetric {
            3.0
        } else {
            0.0
        };
        let shape = groups.parameter_shape();
        let affine = Affine::new(scheme, &shape, vec![1.5e38; n], vec![zero; n]).unwrap();
        let codes = Array2::from_shape_fn((9, 45), |(o, i)| zero as i32 - (o + i) as i32 % 2);
        let weights = QTensor::from_codes(&codes, &affine).unwrap();
        let x = Array2::from_shape_fn((4, 45), |(m, k)| (m + k) as f32 * 1e-3);
        for layer in layers(&weights, None) {
            let all = layer.forward(&x).unwrap();
            assert!(
                all.iter().all(|y| y.is_finite()),
                "{} {scheme}",
                layer.kernel()
            );
            for (x, y) in x.rows().into_iter().zip(all.rows()) {
                assert_eq!(layer.forward(&x).unwrap(), y, "{} {scheme}", layer.kernel());
            }
        }
    }
}
