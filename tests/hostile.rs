//! Any bits, numbers, shapes and codes at the entry points of schemes, parameters and tensors: an
//! answer or a typed error, in debug and in release.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use lowbit::{
    Affine, Error, FloatFormat, Granularity, Groups, Mapping, Parameter, QTensor, Range, Ranges,
    ScaleKind, Scheme, affine::scalar, codes::PackedCodes, codes::minifloat, dequantize,
    fake_quantize, quantize,
};
use ndarray::ArrayD;
use proptest::prelude::*;

/// Any description of a scheme, most of them impossible.
fn builders() -> impl Strategy<Value = lowbit::SchemeBuilder> {
    let bits = prop_oneof![4 => 0..18_u32, 1 => any::<u32>()];
    let mapping = prop::sample::select(vec![
        Mapping::Symmetric,
        Mapping::SymmetricHalfRange,
        Mapping::Asymmetric,
        Mapping::AsymmetricFloat,
    ]);
    let kind = prop::sample::select(vec![ScaleKind::F32, ScaleKind::F16, ScaleKind::PowerOfTwo]);
    let float = prop::option::weighted(
        0.2,
        prop::sample::select(vec![
            FloatFormat::E4M3,
            FloatFormat::E5M2,
            FloatFormat::E2M1,
        ]),
    );
    let size = prop_oneof![4 => 0..5_usize, 1 => any::<usize>()];
    let granularity = (0..6_u8, size.clone(), size).prop_map(|(kind, axis, size)| match kind {
        0 => Granularity::PerTensor,
        1 => Granularity::PerAxis(axis),
        2 => Granularity::PerGroup(size),
        3 => Granularity::PerGroupAlong { axis, size },
        4 => Granularity::PerBlock {
            rows: axis,
            columns: size,
        },
        _ => Granularity::PerRow,
    });
    (bits, mapping, kind, float, granularity, any::<[bool; 2]>()).prop_map(
        |(bits, mapping, kind, float, granularity, [unsigned, narrow])| {
            let mut builder = float.map_or(Scheme::int(bits), Scheme::float);
            builder = builder
                .mapping(mapping)
                .scale_kind(kind)
                .granularity(granularity);
            if unsigned {
                builder = builder.unsigned();
            }
            if narrow {
                builder = builder.narrow_range();
            }
            builder
        },
    )
}

fn schemes() -> impl Strategy<Value = Scheme> {
    builders().prop_filter_map("not a scheme", |builder| builder.build().ok())
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(0..5_usize, 0..5)
}

fn hostile() -> impl Strategy<Value = f32> {
    prop_oneof![
        2 => 1e-3_f32..4.0,
        2 => (-300..300_i32).prop_map(|x| x as f32),
        1 => prop::num::f32::ANY,
    ]
}

fn array<A: Copy>(shape: &[usize], values: &[A]) -> ArrayD<A> {
    let mut next = values.iter().copied().cycle();
    ArrayD::from_shape_simple_fn(shape, || next.next().unwrap())
}

/// Whether an error is one of a tensor that does not fit parameters or a granularity.
fn misfit(error: &Error) -> bool {
    matches!(
        error,
        Error::ShapeMismatch { .. } | Error::NoSuchAxis { .. } | Error::TooLarge { .. }
    )
}

/// A power of two, and a zero point that the mapping allows, where the numbers let it be.
fn fit(scheme: &Scheme, scale: f32, zero_point: f32) -> (f32, f32) {
    let power = f32::from_bits(scale.abs().to_bits() & 0x7f80_0000);
    let (low, high) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
    let zero_point = match scheme.mapping() {
        Mapping::AsymmetricFloat => zero_point,
        Mapping::Asymmetric => zero_point.round().clamp(low, high),
        _ => scheme.middle() as f32,
    };
    (power, zero_point)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]
    #[test]
    fn descriptions_are_schemes_or_name_the_option_that_is_wrong(builder in builders()) {
        match builder.build() {
            Ok(scheme) => {
                prop_assert!(matches!(scheme.bits(), 1..=8 | 16));
                prop_assert!(scheme.quant_min() < scheme.quant_max());
                let codes = scheme.quant_min()..=scheme.quant_max();
                prop_assert!(codes.contains(&scheme.middle()));
                prop_assert!(!scheme.to_string().is_empty());
            }
            Err(Error::InvalidOption { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn any_parameters_are_checked_before_they_are_used(
        scheme in schemes(), parameter_shape in shapes(), shape in shapes(),
        numbers in prop::collection::vec((hostile(), hostile()), 0..10),
        x in prop::collection::vec(hostile(), 1..10),
        codes in prop::collection::vec(any::<i32>(), 1..10),
        fitting in any::<bool>(),
    ) {
        // Half of the time such as a tensor of the shape could have, to come further.
        let groups = Groups::new(&shape, scheme.granularity());
        let (parameter_shape, numbers) = match groups {
            Ok(groups) if fitting && !numbers.is_empty() => {
                let numbers = numbers.into_iter().cycle().take(groups.parameters());
                let numbers = numbers.map(|(scale, zero)| fit(&scheme, scale, zero));
                (groups.parameter_shape(), numbers.collect())
            }
            _ => (parameter_shape, numbers),
        };
        let (scale, zero_point): (Vec<f32>, Vec<f32>) = numbers.into_iter().unzip();
        let affine = match Affine::new(scheme, &parameter_shape, scale, zero_point) {
            Ok(affine) => affine,
            Err(Error::ShapeMismatch { .. } | Error::InvalidZeroPoint { .. }) => return Ok(()),
            Err(Error::InvalidScale { got, .. }) => {
                let plain = got.is_normal() && got > 0.0;
                prop_assert!(!plain || scheme.scale_kind() != ScaleKind::F32);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        for index in [0, 1, usize::MAX] {
            let there = index < affine.scale().len();
            prop_assert_eq!(affine.parameter(index).is_ok(), there);
            prop_assert_eq!(affine.range(index).is_ok(), there);
        }
        let x = array(&shape, &x);
        let (fake, tensor) = (fake_quantize(&x, &affine), QTensor::quantize(&x, &affine));
        let wide = quantize::<_, i32, _>(&x, &affine);
        match fake {
            Ok(fake) => {
                let has_nan = x.iter().any(|x| x.is_nan());
                prop_assert_eq!(wide.is_err(), has_nan);
                prop_assert_eq!(tensor.is_err(), has_nan);
                prop_assert_eq!(fake.shape(), x.shape());
            }
            Err(error) => {
                prop_assert!(misfit(&error), "{}", error);
                prop_assert!(misfit(&wide.unwrap_err()) && misfit(&tensor.unwrap_err()));
            }
        }
        let codes = array(&shape, &codes);
        match QTensor::from_codes(&codes, &affine) {
            Ok(tensor) => prop_assert_eq!(tensor.codes::<i32>().unwrap(), codes),
            Err(Error::InvalidCode { got, min, max, .. }) => {
                prop_assert!(!(min..=max).contains(&got));
                let x = dequantize::<f32, _, _>(&codes, &affine).unwrap();
                prop_assert_eq!(x.shape(), shape);
            }
            Err(error) => prop_assert!(misfit(&error), "{}", error),
        }
    }

    #[test]
    fn any_range_is_laid_onto_any_scheme_or_refused(
        scheme in schemes(), min in hostile(), max in hostile(),
    ) {
        let range = match Range::new(min, max) {
            Ok(range) => range,
            Err(Error::InvalidRange { .. }) => {
                prop_assert!(!min.is_finite() || !max.is_finite() || min > max);
                return Ok(());
            }
            Err(error) => return Err(TestCaseError::fail(error.to_string())),
        };
        match Parameter::from_range(&scheme, range) {
            Ok(parameter) => {
                prop_assert!(parameter.scale.is_normal() && parameter.scale > 0.0);
                prop_assert!(parameter.zero_point.is_finite());
            }
            Err(error) => prop_assert!(matches!(error, Error::InvalidScale { .. }), "{}", error),
        }
        let one = Ranges::per_tensor(range);
        prop_assert_eq!(one.as_slice(), [range]);
        prop_assert!(Ranges::new(&[3, 0], vec![range]).is_err());
    }

    #[test]
    fn the_scalar_definition_never_panics(
        scheme in schemes(), x in any::<f64>(), code in any::<i32>(),
        scale in prop::num::f32::ANY, zero in prop::num::f32::ANY,
    ) {
        let _ = scalar::quantize(x, scale, zero, &scheme);
        let _ = scalar::dequantize::<f32>(code, scale, zero, &scheme);
        let _ = scalar::dequantize::<f64>(code, scale, zero, &scheme);
        // Parameters such as `Affine` takes give codes that there are.
        let (scale, zero) = (scale.abs().clamp(f32::MIN_POSITIVE, f32::MAX), scheme.middle());
        let scale = if scale.is_nan() { 1.0 } else { scale };
        let code = scalar::quantize(x, scale, zero as f32, &scheme);
        prop_assert!((scheme.quant_min()..=scheme.quant_max()).contains(&code), "{}", code);
    }

    #[test]
    fn any_bytes_are_codes_or_refused(
        bits in prop_oneof![0..18_u32, any::<u32>()],
        len in prop_oneof![0..40_usize, any::<usize>()],
        bytes in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        match PackedCodes::from_bytes(bits, len, bytes.clone()) {
            Ok(packed) => {
                prop_assert_eq!((packed.bits(), packed.len()), (bits, len));
                prop_assert_eq!(packed.bytes(), bytes);
                prop_assert_eq!(packed.is_empty(), len == 0);
            }
            Err(Error::InvalidOption { .. } | Error::TooLarge { .. } | Error::Mismatch { .. }) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }

    #[test]
    fn small_floats_of_any_number_are_the_nearest_there_is(
        value in prop::num::f32::ANY, pattern in any::<u8>(),
    ) {
        for format in [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1] {
            let near = minifloat::decode(minifloat::encode(value, format), format);
            let other = minifloat::decode(pattern, format);
            if value.is_finite() && other.is_finite() {
                let (near, other) = (f64::from(near), f64::from(other));
                let value = f64::from(value);
                prop_assert!((near - value).abs() <= (other - value).abs());
            }
        }
    }
}
