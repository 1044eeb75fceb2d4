//! Shapes, schemes and numbers of every kind.

use lowbit::{
    Activations, Affine, Error, FloatFormat, Granularity, Groups, PackedLinear, QTensor, Scheme,
    SchemeBuilder, matmul_integer,
};
use ndarray::{Array1, Array2, ArrayD, arr0};
use proptest::prelude::*;

use super::support::{Random, affine, codes};

fn granularities() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        (0_usize..3).prop_map(Granularity::PerAxis),
        Just(Granularity::PerRow),
        (1_usize..70).prop_map(Granularity::PerGroup),
        Just(Granularity::PerGroup(usize::MAX)),
        (0_usize..3, 1_usize..70)
            .prop_map(|(axis, size)| Granularity::PerGroupAlong { axis, size }),
        (1_usize..5, 1_usize..70)
            .prop_map(|(rows, columns)| Granularity::PerBlock { rows, columns }),
    ]
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let int = (
        1_u32..=16,
        any::<bool>(),
        any::<bool>(),
        0..4_u8,
        granularities(),
    );
    int.prop_filter_map(
        "a possible scheme",
        |(bits, signed, float, mapping, granularity)| {
            let builder = if float {
                Scheme::float(
                    [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1][bits as usize % 3],
                )
            } else {
                Scheme::int(bits)
            };
            let builder = if signed { builder } else { builder.unsigned() };
            let builder = match mapping {
                0 => builder.symmetric(),
                1 => builder.asymmetric(),
                2 => builder.asymmetric_float(),
                _ => builder.narrow_range(),
            };
            builder.granularity(granularity).build().ok()
        },
    )
}

proptest! {
    #[test]
    fn every_layer_is_packed_and_run_or_refused(
        weights in schemes(),
        activations in schemes(),
        fixed in any::<bool>(),
        shape in prop::collection::vec(0_usize..40, 0..4),
        x_shape in prop::collection::vec(0_usize..5, 0..3),
        inputs in prop::option::of(0_usize..40),
        bias in prop::option::of(prop::collection::vec(prop::num::f32::ANY, 0..40)),
        values in prop::collection::vec(prop::num::f32::ANY, 1..50),
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        prop_assume!(Groups::new(&shape, weights.granularity()).is_ok());
        let parameters = affine(weights, &shape, &mut random);
        let count: usize = shape.iter().product();
        let flat = codes(&weights, (1, count), &mut random).into_raw_vec_and_offset().0;
        let tensor = ArrayD::from_shape_vec(shape.clone(), flat).unwrap();
        let tensor = QTensor::from_codes(&tensor, &parameters).unwrap();
        let Ok(layer) = PackedLinear::pack(&tensor, bias.as_deref()) else {
            return Ok(());
        };
        prop_assert_eq!(shape.len(), 2);
        let mut x_shape = x_shape;
        x_shape.push(inputs.unwrap_or(shape[1]));
        let x = ArrayD::from_shape_fn(x_shape.clone(), |_| values[random.below(values.len())]);
        let fits = x_shape.last() == Some(&shape[1]);
        let y = layer.forward(&x);
        prop_assert_eq!(y.is_ok(), fits);
        let activations = if fixed {
            let per_tensor = SchemeBuilder::from(activations).per_tensor().build().unwrap();
            Activations::Static(affine(per_tensor, &[], &mut random))
        } else {
            Activations::Dynamic(activations)
        };
        let Ok(layer) = layer.with_activations(activations) else {
            return Ok(());
        };
        match layer.forward(&x) {
            Ok(y) => {
                prop_assert!(fits && !x.iter().any(|x| x.is_nan()));
                prop_assert_eq!(y.shape().last(), Some(&shape[0]));
            }
            Err(Error::ShapeMismatch { .. }) => prop_assert!(!fits),
            Err(Error::NonFinite { .. }) => prop_assert!(x.iter().any(|x| !x.is_finite())),
            Err(Error::InvalidScale { .. }) => prop_assert!(!fixed),
            Err(error) => prop_assert!(false, "{error}"),
        }
        let bytes = x.mapv(|x| x.to_bits() as u8);
        let _ = layer.forward(&bytes);
        let _ = layer.accumulate(&bytes.mapv(u8::cast_signed));
    }
}

#[test]
fn a_depth_without_columns_takes_no_memory() {
    let weights = ArrayD::<f32>::zeros(vec![0, usize::MAX >> 24]);
    for scheme in [Scheme::int(4).per_axis(0), Scheme::int(8).per_group(32)] {
        let affine = Affine::of(&scheme.build().unwrap(), &weights).unwrap();
        let tensor = QTensor::quantize(&weights, &affine).unwrap();
        let layer = PackedLinear::pack(&tensor, None).unwrap();
        assert_eq!(layer.dim(), (0, usize::MAX >> 24));
        let tokens = Scheme::int(8).per_row().build().unwrap();
        let layer = layer.with_activations(Activations::Dynamic(tokens));
        assert!(layer.is_ok() || matches!(layer, Err(Error::DepthOverflow { .. })));
    }
}

#[test]
fn shapes_that_do_not_belong_together_are_refused() {
    let scheme = Scheme::int(8).build().unwrap();
    let one = Affine::per_tensor(scheme, 1.0, 0.0).unwrap();
    let weights = QTensor::quantize(&Array2::<f32>::ones((3, 4)), &one).unwrap();
    let layer = PackedLinear::pack(&weights, None).unwrap();
    assert!(matches!(
        layer.forward(&Array1::<f32>::ones(3)),
        Err(Error::ShapeMismatch { .. })
    ));
    assert!(matches!(
        layer.forward(&arr0(1.0_f32)),
        Err(Error::ShapeMismatch { .. })
    ));
    assert!(matches!(
        PackedLinear::pack(&weights, Some(&[0.0; 4])),
        Err(Error::ShapeMismatch { .. })
    ));
    let nan = PackedLinear::pack(&weights, Some(&[0.0, f32::NAN, 0.0]));
    assert!(matches!(nan, Err(Error::NonFinite { .. })));
    let cube = QTensor::quantize(&ArrayD::<f32>::ones(vec![2, 2, 2]), &one).unwrap();
    assert!(matches!(
        PackedLinear::pack(&cube, None),
        Err(Error::Unsupported { .. })
    ));

    let (a, b) = (Array2::<u8>::ones((2, 3)), Array2::<i8>::ones((4, 5)));
    assert!(matches!(
        matmul_integer(&a, &[0], &b, &[0]),
        Err(Error::ShapeMismatch { .. })
    ));
    // Zero points at the far end, where no code is farther from them than 0.
    for (za, zb) in [(0, 0), (255, 255), (0, 255), (255, 0)] {
        let deep = lowbit::matmul_integer(
            &Array2::<u8>::zeros((0, 33_026)),
            &[za],
            &Array2::<u8>::zeros((33_026, 0)),
            &[zb],
        );
        assert!(matches!(
            deep,
            Err(Error::DepthOverflow {
                limit: 33_025,
                got: 33_026
            })
        ));
    }
    let b = Array2::<i8>::ones((3, 5));
    assert!(matches!(
        matmul_integer(&a, &[], &b, &[0]),
        Err(Error::ShapeMismatch { .. })
    ));
    assert!(matches!(
        matmul_integer(&a, &[0], &b, &[0, 0]),
        Err(Error::ShapeMismatch { .. })
    ));
    let (a, b) = (
        Array2::<u8>::zeros((0, 40_000)),
        Array2::<u8>::zeros((40_000, 0)),
    );
    assert!(matches!(
        matmul_integer(&a, &[0], &b, &[0]),
        Err(Error::DepthOverflow { .. })
    ));
}

#[test]
fn weights_that_no_kernel_takes_are_refused() {
    let refused = |scheme: SchemeBuilder, code: i32| {
        let scheme = scheme.build().unwrap();
        let weights = affine(scheme, &[4, 6], &mut Random(3));
        let weights = QTensor::from_codes(&Array2::from_elem((4, 6), code), &weights).unwrap();
        matches!(
            PackedLinear::pack(&weights, None),
            Err(Error::Unsupported { .. })
        )
    };
    // Scales that change from one input to the next, and codes of 16 bits.
    let along = |axis| Granularity::PerGroupAlong { axis, size: 2 };
    assert!(refused(Scheme::int(4).per_axis(1), 1));
    assert!(refused(Scheme::int(4).granularity(along(0)), 1));
    assert!(!refused(Scheme::int(4).granularity(along(1)), 1));
    assert!(refused(Scheme::int(16), 1));
    assert!(!refused(Scheme::int(8), 1));
    // Small floats that are infinite or NaN, with either sign; the greatest finite ones are taken.
    for (format, finite) in [(FloatFormat::E4M3, 0x7e), (FloatFormat::E5M2, 0x7b)] {
        for sign in [0, 0x80] {
            assert!(!refused(Scheme::float(format), finite | sign));
            for special in finite + 1..0x80 {
                assert!(refused(Scheme::float(format), special | sign), "{special}");
            }
        }
    }
    for code in 0..16 {
        assert!(!refused(Scheme::float(FloatFormat::E2M1), code));
    }
}

#[test]
fn activations_that_no_kernel_takes_are_refused() {
    let weights = |scheme: Scheme| {
        let affine = Affine::symmetric(scheme, &[], vec![1.0]).unwrap();
        let weights = QTensor::from_codes(&Array2::<i8>::ones((2, 3)), &affine).unwrap();
        PackedLinear::pack(&weights, None).unwrap()
    };
    let refused = |layer: &PackedLinear, activations: Activations| {
        let layer = layer.clone().with_activations(activations);
        matches!(layer, Err(Error::Unsupported { .. }))
    };
    let integers = weights(Scheme::int(4).build().unwrap());
    let floats = weights(Scheme::float(FloatFormat::E4M3).build().unwrap());
    let of = |builder: SchemeBuilder| Activations::Dynamic(builder.build().unwrap());
    assert!(!refused(&integers, of(Scheme::int(8))) && refused(&floats, of(Scheme::int(8))));
    assert!(!refused(&integers, of(Scheme::int(8).per_row())));
    assert!(refused(&integers, of(Scheme::int(8).per_axis(0))));
    assert!(refused(&integers, of(Scheme::int(8).per_group(2))));
    assert!(refused(&integers, of(Scheme::int(16))));
    assert!(refused(&integers, of(Scheme::int(8).asymmetric_float())));
    assert!(refused(&integers, of(Scheme::float(FloatFormat::E4M3))));
    // Known parameters of one row are not those of another number of rows.
    let scheme = Scheme::int(8).per_row().build().unwrap();
    let row = Affine::symmetric(scheme, &[1], vec![1.0]).unwrap();
    assert!(refused(&integers, Activations::Static(row)));
}

#[test]
fn a_layer_says_what_it_is_packed_for_and_what_it_takes() {
    let scheme = Scheme::int(4).asymmetric().per_group(32).build().unwrap();
    let weights = affine(scheme, &[64, 96], &mut Random(4));
    let weights = QTensor::from_codes(&Array2::<i8>::zeros((64, 96)), &weights).unwrap();
    // Half a byte a code; a scale of 4 bytes and a zero point of 1 for each of three groups.
    let packed = 64 * 96 / 2 + 64 * 3 * 5;
    for &isa in lowbit::Isa::available() {
        let layer = PackedLinear::pack_for(isa, &weights, None).unwrap();
        assert_eq!((layer.isa(), layer.dim()), (isa, (64, 96)));
        assert!(layer.kernel().starts_with(&isa.to_string()));
        assert_eq!(layer.memory_bytes(), packed);
        // A sum of codes for each group, and a scale for each output.
        let quantized =
            layer.with_activations(Activations::Dynamic(Scheme::int(8).build().unwrap()));
        assert_eq!(
            quantized.unwrap().memory_bytes(),
            packed + 4 * (64 * 3 + 64)
        );
        let bias = PackedLinear::pack_for(isa, &weights, Some(&[0.0; 64])).unwrap();
        assert_eq!(bias.memory_bytes(), packed + 4 * 64);
    }
}

#[test]
fn codes_that_are_not_of_the_activations_are_refused() {
    let weights = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1.0, 0.0).unwrap();
    let weights = QTensor::quantize(&Array2::<f32>::ones((3, 4)), &weights).unwrap();
    let layer = PackedLinear::pack(&weights, None).unwrap();
    let codes = Array1::from_elem(4, 9_i8);
    assert!(matches!(
        layer.forward(&codes),
        Err(Error::Unsupported { .. })
    ));
    let four = Scheme::int(4).build().unwrap();
    let dynamic = layer
        .clone()
        .with_activations(Activations::Dynamic(four))
        .unwrap();
    assert!(matches!(
        dynamic.forward(&codes),
        Err(Error::Unsupported { .. })
    ));
    let fixed = Activations::Static(Affine::per_tensor(four, 1.0, 0.0).unwrap());
    let fixed = layer.with_activations(fixed).unwrap();
    let error = fixed.forward(&codes).unwrap_err();
    assert!(
        matches!(
            error,
            Error::InvalidCode {
                index: 0,
                min: -8,
                max: 7,
                got: 9
            }
        ),
        "{error}"
    );
    let unsigned = fixed.forward(&Array1::from_elem(4, 1_u8)).unwrap_err();
    assert!(matches!(unsigned, Error::CodeType { .. }), "{unsigned}");
    assert_eq!(
        fixed.forward(&Array1::from_elem(4, 7_i8)).unwrap(),
        Array1::from_elem(3, 28.0)
    );
}
