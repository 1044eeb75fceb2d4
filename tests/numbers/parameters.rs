//! Parameters: what is refused, what is chosen from ranges, and the tensors that ranges come from.

use half::f16;
use lowbit::{
    Affine, Error, FloatFormat, Granularity, Groups, Mapping, Parameter, Range, Ranges, ScaleKind,
    Scheme, fake_quantize,
};
use ndarray::{Array2, arr1};
use proptest::prelude::*;

use super::support::{array, formats, schemes_for, shapes};

#[test]
fn scales_that_are_no_steps_are_refused_with_their_index() {
    let bad = [
        0.0,
        -0.0,
        -1.0,
        1e-45,
        1.1e-38,
        f32::INFINITY,
        f32::NEG_INFINITY,
        f32::NAN,
    ];
    for kind in [ScaleKind::F32, ScaleKind::F16, ScaleKind::PowerOfTwo] {
        let scheme = Scheme::int(8).per_axis(0).scale_kind(kind).build().unwrap();
        for scale in bad {
            let error = Affine::symmetric(scheme, &[2], vec![1.0, scale]).unwrap_err();
            assert!(
                matches!(error, Error::InvalidScale { index: 1, .. }),
                "{error}"
            );
        }
    }
    let refused = |kind: ScaleKind, scale: f32| {
        let scheme = Scheme::int(8).scale_kind(kind).build().unwrap();
        Affine::symmetric(scheme, &[], vec![scale]).is_err()
    };
    assert!(refused(ScaleKind::F16, 0.1));
    assert!(refused(ScaleKind::F16, 65_536.0));
    assert!(refused(ScaleKind::F16, 2_f32.powi(-15))); // subnormal there
    assert!(!refused(ScaleKind::F16, 2_f32.powi(-14)));
    assert!(!refused(ScaleKind::F16, f16::MAX.to_f32()));
    assert!(refused(ScaleKind::PowerOfTwo, 3.0));
    assert!(!refused(ScaleKind::PowerOfTwo, 2_f32.powi(-126)));
}

#[test]
fn zero_points_outside_their_type_are_refused() {
    let refused = |builder: lowbit::SchemeBuilder, zero: f32| match Affine::per_tensor(
        builder.build().unwrap(),
        1.0,
        zero,
    ) {
        Ok(_) => false,
        Err(Error::InvalidZeroPoint { index: 0, .. }) => true,
        Err(other) => unreachable!("{other}"),
    };
    for bad in [128.0, -129.0, 0.5, f32::NAN, f32::INFINITY, 1e30] {
        assert!(refused(Scheme::int(8).asymmetric(), bad), "{bad}");
    }
    assert!(refused(Scheme::int(8).asymmetric().narrow_range(), -128.0));
    assert!(refused(Scheme::int(8).asymmetric().unsigned(), -1.0));
    assert!(!refused(Scheme::int(8).asymmetric().unsigned(), 255.0));
    assert!(refused(Scheme::int(8), 1.0));
    assert!(refused(Scheme::int(8).unsigned(), 0.0));
    assert!(!refused(Scheme::int(8).unsigned(), 128.0));
    assert!(refused(Scheme::int(8).asymmetric_float(), f32::NAN));
    assert!(!refused(Scheme::int(8).asymmetric_float(), -1e30));
    assert!(refused(Scheme::float(FloatFormat::E4M3), 1.0));
}

#[test]
fn numbers_of_parameters_that_are_not_those_of_the_shape_are_refused() {
    let scheme = Scheme::int(8).per_axis(0).build().unwrap();
    let is_shape =
        |result: lowbit::Result<Affine>| matches!(result, Err(Error::ShapeMismatch { .. }));
    assert!(is_shape(Affine::symmetric(scheme, &[3], vec![1.0; 2])));
    assert!(is_shape(Affine::new(scheme, &[2], vec![1.0; 2], vec![0.0])));
    let absurd = Affine::symmetric(scheme, &[usize::MAX, usize::MAX], vec![]);
    assert!(matches!(absurd, Err(Error::TooLarge { .. })));
    assert!(matches!(
        Ranges::new(&[2], vec![]),
        Err(Error::ShapeMismatch { .. })
    ));
    let affine = Affine::symmetric(scheme, &[1], vec![1.0]).unwrap();
    assert!(affine.parameter(1).is_err() && affine.range(usize::MAX).is_err());
    for (min, max) in [(1.0, 0.0), (f32::NAN, 0.0), (0.0, f32::INFINITY)] {
        assert!(matches!(
            Range::new(min, max),
            Err(Error::InvalidRange { .. })
        ));
    }
}

#[test]
fn the_formulas_of_the_mappings_are_those_of_the_specification() {
    let of = |builder: lowbit::SchemeBuilder, min: f32, max: f32| {
        let range = Range::new(min, max).unwrap();
        let parameter = Parameter::from_range(&builder.build().unwrap(), range).unwrap();
        (parameter.scale, parameter.zero_point)
    };
    assert_eq!(of(Scheme::int(8), -1.0, 2.0), (2.0 / 127.0, 0.0));
    assert_eq!(
        of(Scheme::int(8).unsigned(), -1.0, 2.0),
        (2.0 / 127.0, 128.0)
    );
    let half = Scheme::int(8).mapping(Mapping::SymmetricHalfRange);
    assert_eq!(of(half, -1.0, 2.0), (2.0 / 127.5, 0.0));
    assert_eq!(of(half.narrow_range(), -1.0, 2.0), (2.0 / 127.0, 0.0));
    let asymmetric = Scheme::int(8).asymmetric();
    assert_eq!(of(asymmetric, -1.0, 2.0), (3.0 / 255.0, -43.0));
    assert_eq!(of(asymmetric, 1.0, 2.0), (2.0 / 255.0, -128.0)); // made to contain 0
    assert_eq!(of(asymmetric, -2.0, -1.0), (2.0 / 255.0, 127.0));
    let float = Scheme::int(4).unsigned().asymmetric_float();
    assert_eq!(of(float, 1.0, 2.5), (0.1, -10.0)); // as it is
    let e4m3 = Scheme::float(FloatFormat::E4M3);
    assert_eq!(of(e4m3, -1.0, 2.0), (2.0 / 448.0, 0.0));
    let power = Scheme::int(8).scale_kind(ScaleKind::PowerOfTwo);
    assert_eq!(of(power, -1.0, 127.5), (2.0, 0.0)); // rounded up
    assert_eq!(of(power, -1.0, 127.0), (1.0, 0.0));
    let f16_scale = Scheme::int(8).scale_kind(ScaleKind::F16);
    assert_eq!(of(f16_scale, 0.0, 12.7).0, f16::from_f32(0.1).to_f32());
}

#[test]
fn parameters_of_degenerate_ranges_are_valid() {
    let ends = [
        (0.0, 0.0),
        (-0.0, 0.0),
        (3.5, 3.5),
        (-3.5, -3.5),
        (1e-45, 1e-45),
        (-1e-45, 1e-45),
        (0.0, 1e-40),
        (f32::MIN, f32::MAX),
        (0.0, f32::MAX),
        (f32::MIN, f32::MIN),
        (1e30, 1e30),
        (1.0, 1.0_f32.next_up()),
        (1e30, 1e30_f32.next_up()),
    ];
    for (min, max) in ends {
        let range = Range::new(min, max).unwrap();
        for mapping in [
            Mapping::Symmetric,
            Mapping::SymmetricHalfRange,
            Mapping::Asymmetric,
            Mapping::AsymmetricFloat,
        ] {
            for bits in [2, 3, 8, 16] {
                let scheme = Scheme::int(bits).mapping(mapping).build().unwrap();
                let affine = Affine::from_ranges(&scheme, &Ranges::per_tensor(range)).unwrap();
                let scale = affine.scale()[0];
                assert!(scale.is_normal() && scale > 0.0);
                if (min, max) == (0.0, 0.0) {
                    assert_eq!(scale, 1.0);
                } else if range.magnitude() < f32::MIN_POSITIVE {
                    assert_eq!(scale, f32::MIN_POSITIVE, "{range:?} {scheme}");
                }
                // Checked once more as if they came from outside.
                let zero_point = affine.zero_point().to_vec();
                Affine::new(scheme, &[], vec![scale], zero_point).unwrap();
                let clips = mapping == Mapping::SymmetricHalfRange;
                if min == max && min.is_normal() && !clips {
                    let fake = fake_quantize(&arr1(&[min]), &affine).unwrap()[0];
                    let close = (fake - min).abs() <= min.abs() * 4e-3;
                    assert!(close || fake.is_infinite(), "{min} {fake} {scheme}");
                }
            }
        }
    }
}

#[test]
fn a_range_too_wide_for_its_scales_is_refused_with_its_index() {
    let scheme = Scheme::int(8)
        .per_axis(0)
        .scale_kind(ScaleKind::F16)
        .build()
        .unwrap();
    let narrow = Range::new(-1.0, 1.0).unwrap();
    let wide = Range::new(-1.0, 1e30).unwrap();
    let ranges = Ranges::new(&[3], vec![narrow, narrow, wide]).unwrap();
    let error = Affine::from_ranges(&scheme, &ranges).unwrap_err();
    assert!(
        matches!(error, Error::InvalidScale { index: 2, .. }),
        "{error}"
    );
}

proptest! {
    #[test]
    fn any_range_has_valid_parameters_or_a_typed_error(
        scheme in formats(), min in any::<f32>(), max in any::<f32>(),
    ) {
        let Ok(range) = Range::new(min.min(max), min.max(max)) else {
            return Ok(());
        };
        match Affine::from_ranges(&scheme, &Ranges::per_tensor(range)) {
            Ok(affine) => {
                prop_assert!(affine.scale()[0].is_normal());
                prop_assert!(affine.zero_point()[0].is_finite());
                prop_assert!(affine.range(0).is_ok());
            }
            Err(error) => {
                // 16-bit scales end at 65,504, and one bit spans the whole range in one step.
                prop_assert!(matches!(error, Error::InvalidScale { .. }), "{}", error);
                let one_bit = scheme.bits() == 1;
                let rounded_up = scheme.scale_kind() == ScaleKind::PowerOfTwo;
                prop_assert!(scheme.scale_kind() == ScaleKind::F16 || one_bit || rounded_up);
            }
        }
    }

    #[test]
    fn ranges_are_the_extremes_of_the_groups(
        (shape, scheme) in shapes().prop_flat_map(schemes_for),
        values in prop::collection::vec(prop::num::f32::NORMAL, 1..50),
    ) {
        let x = array(&shape, &values);
        let granularity = scheme.granularity();
        let groups = Groups::new(&shape, granularity).unwrap();
        let mut extremes = vec![(f32::INFINITY, f32::NEG_INFINITY); groups.parameters()];
        for (element, &x) in x.iter().enumerate() {
            let (min, max) = &mut extremes[groups.parameter_of(element)];
            (*min, *max) = (min.min(x), max.max(x));
        }
        let ranges = Ranges::of(&x, granularity).unwrap();
        prop_assert_eq!(ranges.shape(), groups.parameter_shape());
        for (range, (min, max)) in ranges.as_slice().iter().zip(extremes) {
            let expected = if min <= max { (min, max) } else { (0.0, 0.0) };
            prop_assert_eq!((range.min(), range.max()), expected);
        }
    }

    #[test]
    fn any_shape_has_groups_or_a_typed_error(
        shape in prop::collection::vec(prop_oneof![0..5_usize, any::<usize>()], 0..5),
        kind in 0..6_u8, size in any::<usize>(), small in 0..4_usize,
    ) {
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerAxis(small),
            2 => Granularity::PerGroup(size),
            3 => Granularity::PerGroupAlong { axis: small, size },
            4 => Granularity::PerBlock { rows: small, columns: size },
            _ => Granularity::PerRow,
        };
        if let Ok(groups) = Groups::new(&shape, granularity) {
            prop_assert!(groups.len() <= isize::MAX as usize);
            for index in [0, 1, size, usize::MAX] {
                let _ = (groups.parameter_of(index), groups.position(index));
                prop_assert!(groups.elements_of(index) <= groups.len());
            }
            let run = groups.runs(0..usize::MAX).next();
            prop_assert_eq!(run.is_none(), groups.is_empty());
            // What a tensor of no elements would make an observer hold is bounded.
            let bound = groups.len().max(1 << 20);
            prop_assert!(groups.parameters() <= bound, "{:?} {:?}", shape, granularity);
        }
    }
}

#[test]
fn a_tensor_of_nothing_with_an_absurd_number_of_channels_is_refused() {
    let shape = (1 << 30, 0);
    let x = Array2::<f32>::zeros(shape);
    let absurd = |error: Error| matches!(error, Error::TooLarge { .. });
    for granularity in [Granularity::PerAxis(0), Granularity::PerRow] {
        assert!(absurd(Ranges::of(&x, granularity).unwrap_err()));
    }
    assert!(Ranges::of(&x, Granularity::PerTensor).is_ok());
    assert!(Ranges::of(&x, Granularity::PerAxis(1)).is_ok());
}

#[test]
fn no_scale_is_below_the_least_one_that_is_asked_for() {
    let of = |builder: lowbit::SchemeBuilder, min: f32, max: f32, least: f32| {
        let range = Range::new(min, max).unwrap();
        Parameter::from_range_with_least_scale(&builder.build().unwrap(), range, least)
    };
    let least = f32::EPSILON;
    let int8 = Scheme::int(8);
    for builder in [
        int8,
        int8.mapping(Mapping::SymmetricHalfRange),
        int8.asymmetric(),
        int8.unsigned().asymmetric(),
        int8.asymmetric_float(),
        Scheme::float(FloatFormat::E4M3),
    ] {
        for (min, max) in [(0.0, 0.0), (-1e-12, 1e-9), (-1e-6, -1e-7), (1e-40, 1e-40)] {
            let narrow = of(builder, min, max, least).unwrap();
            assert_eq!(narrow.scale, least, "{min} {max}");
        }
        // No difference where ranges are wide enough, and none at 0.
        for (min, max) in [(-1.0, 2.0), (0.0, 0.5), (-3.0, -1.0)] {
            let plain = of(builder, min, max, 0.0).unwrap();
            assert_eq!(of(builder, min, max, least).unwrap(), plain);
            let scheme = builder.build().unwrap();
            let range = Range::new(min, max).unwrap();
            assert_eq!(Parameter::from_range(&scheme, range).unwrap(), plain);
        }
        for bad in [-1.0, f32::NAN, f32::INFINITY] {
            assert!(matches!(
                of(builder, -1.0, 1.0, bad),
                Err(Error::InvalidOption { .. })
            ));
        }
    }
    // The zero point is that of the scale there is: −10 steps of 2⁻²³.
    let narrow = of(int8.asymmetric(), -10.0 * least, 10.0 * least, least).unwrap();
    assert_eq!(narrow.zero_point, -118.0);
}
