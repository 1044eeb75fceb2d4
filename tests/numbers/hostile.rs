//! Numbers at the ends of the floats, and shapes and types that do not fit.

use half::f16;
use lowbit::{
    Affine, Error, FloatFormat, Scheme, dequantize, dequantize_into, fake_quantize,
    fake_quantize_into, quantize, quantize_into,
};
use ndarray::{Array2, arr1, array};
use proptest::prelude::*;

use super::support::{affine, array as array_of, schemes_for, seeds, shapes};

#[test]
fn ends_are_clamped_before_they_become_integers() {
    let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 0.1, 0.0).unwrap();
    let x = arr1(&[
        f32::INFINITY,
        f32::NEG_INFINITY,
        3e9,
        -3e9,
        1e30,
        -1e30,
        f32::MAX,
        f32::MIN,
    ]);
    let ends = [127_i16, -128, 127, -128, 127, -128, 127, -128];
    assert_eq!(quantize::<_, i16, _>(&x, &affine).unwrap().to_vec(), ends);
    let x = x.mapv(f64::from);
    assert_eq!(quantize::<_, i16, _>(&x, &affine).unwrap().to_vec(), ends);
    let fakes = fake_quantize(&x, &affine).unwrap();
    assert!(fakes.iter().all(|x| x.abs() <= 12.9), "{fakes}");
    let halves = arr1(&[f16::INFINITY, f16::NEG_INFINITY, f16::MAX, f16::MIN]);
    let codes = quantize::<_, i8, _>(&halves, &affine).unwrap();
    assert_eq!(codes, arr1(&[127, -128, 127, -128]));
}

#[test]
fn subnormal_numbers_are_zero_under_an_ordinary_scale_and_steps_under_the_least() {
    let x = arr1(&[
        1e-45_f32,
        -1e-45,
        f32::MIN_POSITIVE,
        -3.0 * f32::MIN_POSITIVE,
    ]);
    let scheme = Scheme::int(8).build().unwrap();
    let ordinary = Affine::per_tensor(scheme, 1.0, 0.0).unwrap();
    assert_eq!(quantize::<_, i8, _>(&x, &ordinary).unwrap(), arr1(&[0; 4]));
    let least = Affine::per_tensor(scheme, f32::MIN_POSITIVE, 0.0).unwrap();
    assert_eq!(
        quantize::<_, i8, _>(&x, &least).unwrap(),
        arr1(&[0, 0, 1, -3])
    );
}

#[test]
fn small_floats_of_doubles_are_rounded_once() {
    let scheme = Scheme::float(FloatFormat::E2M1).build().unwrap();
    let affine = Affine::per_tensor(scheme, 1.0, 0.0).unwrap();
    let tie = 2.5_f64; // halfway from 2 to 3; f32 does not tell its neighbours from it
    let x = arr1(&[tie.next_down(), tie, tie.next_up(), 1e300, -1e300, 1e-300]);
    let fake = fake_quantize(&x, &affine).unwrap();
    assert_eq!(fake, arr1(&[2.0, 2.0, 3.0, 6.0, -6.0, 0.0]));
    let codes = quantize::<_, u8, _>(&x, &affine).unwrap();
    assert_eq!(codes, arr1(&[4, 4, 5, 7, 15, 0]));
}

#[test]
fn a_nan_is_named_by_position_in_any_layout_and_stays_nan_in_training() {
    let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1.0, 0.0).unwrap();
    let mut x = Array2::<f32>::zeros((3, 4));
    x[[2, 1]] = f32::NAN;
    x[[1, 3]] = -f32::NAN;
    for (x, expected) in [(x.view(), [1, 3]), (x.t(), [1, 2])] {
        let error = quantize::<_, i8, _>(&x, &affine).unwrap_err();
        assert!(
            matches!(&error, Error::NonFinite { position, .. } if *position == expected),
            "{error}"
        );
        let fake = fake_quantize(&x, &affine).unwrap();
        assert_eq!(fake.mapv(f32::is_nan), x.mapv(f32::is_nan));
    }
    for format in [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1] {
        let affine = Affine::per_tensor(Scheme::float(format).build().unwrap(), 1.0, 0.0).unwrap();
        assert!(quantize::<_, u8, _>(&x, &affine).is_err());
        let fake = fake_quantize(&x.mapv(f64::from), &affine).unwrap();
        assert_eq!(fake.mapv(f64::is_nan), x.mapv(f32::is_nan));
    }
}

#[test]
fn integer_types_that_do_not_hold_the_codes_are_refused() {
    let x = array![[0.0_f32]];
    let refused = |result: Result<(), Error>| matches!(result, Err(Error::CodeType { .. }));
    let of = |builder: lowbit::SchemeBuilder| {
        Affine::symmetric(builder.build().unwrap(), &[], vec![1.0]).unwrap()
    };
    let signed = of(Scheme::int(8));
    assert!(refused(quantize::<_, u8, _>(&x, &signed).map(drop)));
    assert!(refused(quantize::<_, u16, _>(&x, &signed).map(drop)));
    let unsigned = of(Scheme::int(8).unsigned());
    assert!(refused(quantize::<_, i8, _>(&x, &unsigned).map(drop)));
    assert!(quantize::<_, i16, _>(&x, &unsigned).is_ok());
    assert!(quantize::<_, i8, _>(&x, &of(Scheme::int(7).unsigned())).is_ok());
    let wide = of(Scheme::int(16));
    assert!(refused(quantize::<_, i8, _>(&x, &wide).map(drop)));
    assert!(quantize::<_, i32, _>(&x, &wide).is_ok());
    assert!(refused(
        quantize::<_, i8, _>(&x, &of(Scheme::float(FloatFormat::E4M3))).map(drop)
    ));
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let is_shape = |error: Error| matches!(error, Error::ShapeMismatch { .. });
    let scheme = Scheme::int(8).per_axis(1).build().unwrap();
    let affine = Affine::symmetric(scheme, &[2], vec![1.0; 2]).unwrap();
    let (fits, other) = (Array2::<f32>::zeros((3, 2)), Array2::<f32>::zeros((2, 3)));
    let (codes, mut other_codes) = (Array2::<i8>::zeros((3, 2)), Array2::<i8>::zeros((2, 3)));
    assert!(is_shape(quantize::<_, i8, _>(&other, &affine).unwrap_err()));
    assert!(is_shape(fake_quantize(&other, &affine).unwrap_err()));
    assert!(is_shape(
        dequantize::<f32, _, _>(&other_codes, &affine).unwrap_err()
    ));
    assert!(is_shape(
        quantize_into(&fits, &affine, &mut other_codes).unwrap_err()
    ));
    assert!(is_shape(
        dequantize_into(&codes, &affine, &mut other.clone()).unwrap_err()
    ));
    assert!(is_shape(
        fake_quantize_into(&fits, &affine, &mut other.clone()).unwrap_err()
    ));
    let line = arr1(&[0.0_f32]);
    let error = quantize::<_, i8, _>(&line, &affine).unwrap_err();
    assert!(matches!(
        error,
        Error::NoSuchAxis {
            axis: 1,
            dimensions: 1
        }
    ));
}

proptest! {
    #[test]
    fn any_numbers_at_all_are_answered(
        (shape, scheme) in shapes().prop_flat_map(schemes_for),
        values in prop::collection::vec(prop::num::f64::ANY, 1..40),
        seeds in seeds(),
    ) {
        let affine = affine(scheme, &shape, &seeds);
        let x = array_of(&shape, &values);
        let has_nan = x.iter().any(|x| x.is_nan());
        let codes = quantize::<_, i32, _>(&x, &affine);
        prop_assert_eq!(codes.is_err(), has_nan);
        if let Ok(codes) = codes {
            let allowed = scheme.quant_min()..=scheme.quant_max();
            prop_assert!(codes.iter().all(|code| allowed.contains(code)));
        }
        let fake = fake_quantize(&x, &affine).unwrap();
        prop_assert_eq!(fake.mapv(f64::is_nan), x.mapv(f64::is_nan));
    }
}
