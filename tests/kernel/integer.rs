//! Integer sums: equal to the reference, on every instruction set.

use lowbit::{Activations, Affine, Isa, PackedLinear, Scheme, matmul_integer, quantize};
use ndarray::{Array2, s};
use proptest::prelude::*;

use super::{
    reference::{self, Explicit},
    support::{
        Random, activation_schemes, affine, codes, layers, quantized, tensor, weight_schemes,
    },
};

/// Below, at and above the edges of tiles, panels, blocks and groups.
const SHAPES: [(usize, usize, usize); 12] = [
    (0, 3, 5),
    (3, 0, 5),
    (3, 5, 0),
    (1, 1, 1),
    (1, 16, 32),
    (2, 17, 31),
    (5, 15, 33),
    (6, 33, 64),
    (7, 31, 100),
    (13, 40, 65),
    (27, 9, 129),
    (40, 70, 96),
];

#[test]
fn every_kernel_equals_the_reference() {
    let mut random = Random(1);
    for bits in 1..=8 {
        for (index, scheme) in weight_schemes(bits).into_iter().enumerate() {
            let (rows, outputs, depth) = SHAPES[(index + bits as usize) % SHAPES.len()];
            let weights = tensor(scheme, (outputs, depth), &mut random);
            let bias: Vec<f32> = (0..outputs).map(|_| random.float()).collect();
            let bias = random.next().is_multiple_of(2).then_some(bias.as_slice());
            for activation in activation_schemes() {
                let input = affine(activation, &[rows, depth], &mut random);
                let x = codes(&activation, (rows, depth), &mut random);
                let explicit = Explicit::with(x.clone(), &input);
                let group = match scheme.granularity() {
                    lowbit::Granularity::PerGroup(size)
                    | lowbit::Granularity::PerGroupAlong { size, .. } => size,
                    lowbit::Granularity::PerBlock { columns, .. } => columns,
                    _ => depth,
                };
                let w = Explicit::of(&weights);
                let expected = reference::scaled(&explicit, &w, group, bias);
                for layer in layers(&weights, bias) {
                    let layer = quantized(&layer, &input);
                    let got = if activation.quant_min() < 0 {
                        layer.forward(&x.mapv(|code| code as i8)).unwrap()
                    } else {
                        layer.forward(&x.mapv(|code| code as u8)).unwrap()
                    };
                    let name = layer.kernel();
                    assert_eq!(
                        got, expected,
                        "{name} {scheme} by {activation} {rows}x{outputs}x{depth}"
                    );
                    let whole =
                        group >= depth && scheme.mapping() != lowbit::Mapping::AsymmetricFloat;
                    if whole && activation.quant_min() < 0 {
                        let got = layer.accumulate(&x.mapv(|code| code as i8)).unwrap();
                        let expected = reference::exact(&explicit, &w);
                        assert_eq!(got.mapv(i64::from), expected, "{name} {scheme}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_tile_height_and_panel_edge_is_exact_at_the_extremes() {
    for bits in [1, 2, 3, 4, 5, 6, 7, 8] {
        let scheme = Scheme::int(bits)
            .unsigned()
            .asymmetric()
            .per_axis(0)
            .build()
            .unwrap();
        let greatest = scheme.quant_max();
        let depth = 32 * 17 + 5;
        for (w, zero) in [
            (greatest, 0.0),
            (0, greatest as f32),
            (greatest, greatest as f32),
        ] {
            let outputs = 37;
            let weights = Affine::new(scheme, &[outputs], vec![1.0; outputs], vec![zero; outputs]);
            let weights = weights.unwrap();
            let weights =
                lowbit::QTensor::from_codes(&Array2::from_elem((outputs, depth), w), &weights);
            for layer in layers(&weights.unwrap(), None) {
                for (x, x_zero) in [(-128, 127.0), (127, -128.0), (-128, 0.0), (127, 127.0)] {
                    let input = Scheme::int(8).asymmetric().build().unwrap();
                    let layer = quantized(&layer, &Affine::per_tensor(input, 1.0, x_zero).unwrap());
                    let product = (x - x_zero as i32) * (w - zero as i32) * depth as i32;
                    for rows in 1..=30 {
                        let got = layer.accumulate(&Array2::from_elem((rows, depth), x as i8));
                        let expected = Array2::from_elem((rows, outputs), product);
                        assert_eq!(got.unwrap(), expected, "{} {bits} bits", layer.kernel());
                    }
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn matmul_integer_is_the_sum_of_products(
        (rows, depth, columns) in (0_usize..20, 0_usize..80, 0_usize..40),
        seed in any::<u64>(),
        each in any::<(bool, bool)>(),
    ) {
        let mut random = Random(seed);
        let zeros = |each: bool, many: usize| if each && many > 0 { many } else { 1 };
        let a = Array2::from_shape_simple_fn((rows, depth), || random.code(0, 255) as u8);
        let b = Array2::from_shape_simple_fn((depth, columns), || random.code(-128, 127) as i8);
        let za: Vec<u8> = (0..zeros(each.0, rows)).map(|_| random.code(0, 255) as u8).collect();
        let zb: Vec<i8> = (0..zeros(each.1, columns)).map(|_| random.code(-128, 127) as i8).collect();
        let expected = Array2::from_shape_fn((rows, columns), |(m, n)| {
            let (za, zb) = (i32::from(za[m % za.len()]), i32::from(zb[n % zb.len()]));
            (0..depth).map(|k| (i32::from(a[[m, k]]) - za) * (i32::from(b[[k, n]]) - zb)).sum::<i32>()
        });
        let got = matmul_integer(&a, &za, &b, &zb).unwrap();
        prop_assert_eq!(&got, &expected);
        // Any layout; and the operands' types the other way round.
        let turned = matmul_integer(&b.t().to_owned(), &zb, &a.t(), &za).unwrap();
        prop_assert_eq!(turned, expected.t());
    }
}

#[test]
fn dynamic_activations_are_those_that_quantizing_gives() {
    let mut random = Random(5);
    let scheme = Scheme::int(4).per_group(32).build().unwrap();
    let weights = tensor(scheme, (19, 75), &mut random);
    let x = Array2::from_shape_simple_fn((9, 75), || random.float());
    for dynamic in activation_schemes() {
        for granularity in [lowbit::Granularity::PerRow, lowbit::Granularity::PerTensor] {
            let dynamic = lowbit::SchemeBuilder::from(dynamic).granularity(granularity);
            let dynamic = dynamic.build().unwrap();
            let affine = Affine::of(&dynamic, &x).unwrap();
            let explicit = Explicit::with(quantize(&x, &affine).unwrap(), &affine);
            let expected = reference::scaled(&explicit, &Explicit::of(&weights), 32, None);
            for layer in layers(&weights, None) {
                let layer = layer
                    .with_activations(Activations::Dynamic(dynamic))
                    .unwrap();
                assert_eq!(layer.forward(&x).unwrap(), expected, "{dynamic}");
                // Any layout and dimension, and a strided view.
                let turned = x.t().as_standard_layout().into_owned();
                assert_eq!(layer.forward(&turned.t()).unwrap(), expected);
                let cube = x.to_shape((3, 3, 75)).unwrap();
                assert_eq!(
                    layer.forward(&cube).unwrap().into_flat(),
                    expected.flatten()
                );
                if granularity == lowbit::Granularity::PerRow {
                    let back = layer.forward(&x.slice(s![..;-2, ..])).unwrap();
                    assert_eq!(back, expected.slice(s![..;-2, ..]));
                }
            }
        }
    }
}

#[test]
fn sums_at_the_limit_of_the_depth_are_exact() {
    // 255 · 255 · 33,025 is within 32 bits, one more product is not.
    let depth = 33_025;
    let scheme = Scheme::int(8).unsigned().asymmetric().build().unwrap();
    let affine = Affine::per_tensor(scheme, 1.0, 0.0).unwrap();
    for &isa in Isa::available() {
        let pack = |depth: usize| {
            let codes = Array2::from_elem((2, depth), 255_u8);
            let weights = lowbit::QTensor::from_codes(&codes, &affine).unwrap();
            PackedLinear::pack_for(isa, &weights, None)
                .unwrap()
                .with_activations(Activations::Static(affine.clone()))
        };
        let sums = pack(depth)
            .unwrap()
            .accumulate(&Array2::from_elem((1, depth), 255_u8));
        assert_eq!(sums.unwrap(), Array2::from_elem((1, 2), 255 * 255 * 33_025));
        let error = pack(depth + 1).unwrap_err();
        assert!(matches!(
            error,
            lowbit::Error::DepthOverflow {
                limit: 33_025,
                got: 33_026
            }
        ));
    }
}
