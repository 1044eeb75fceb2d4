//! Arrays against the formula, element by element.

use half::{bf16, f16};
use lowbit::{Affine, affine::scalar, dequantize, fake_quantize, quantize};
use ndarray::ArrayD;
use proptest::prelude::*;

use super::{
    oracle::{self, Number},
    support::{affine, array, numbers, schemes_for, seeds, shapes},
};

/// Whether two results are the same number with the same sign of zero.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

fn check<A: Number>(values: &[f64], affine: &Affine, shape: &[usize]) -> Result<(), TestCaseError> {
    let values: Vec<A> = values.iter().map(|&x| A::of(x)).collect();
    let x = array(shape, &values);
    let codes: ArrayD<i32> = quantize(&x, affine).unwrap();
    let back: ArrayD<A> = dequantize(&codes, affine).unwrap();
    let fake = fake_quantize(&x, affine).unwrap();
    prop_assert_eq!(codes.shape(), shape);
    let groups = affine.groups(shape).unwrap();
    let scheme = affine.scheme();
    for (element, &x) in x.iter().enumerate() {
        let parameter = affine.parameter(groups.parameter_of(element)).unwrap();
        let (scale, zero) = (parameter.scale, parameter.zero_point);
        let code = codes.as_slice().unwrap()[element];
        let expected = oracle::code(x, scale, zero, scheme);
        prop_assert_eq!(
            code,
            expected,
            "{} / {:e} + {} as {}",
            x.value(),
            scale,
            zero,
            scheme
        );
        prop_assert_eq!(scalar::quantize(x.to_real(), scale, zero, scheme), code);

        let number = oracle::number::<A>(code, scale, zero, scheme);
        let back = back.as_slice().unwrap()[element].value();
        prop_assert!(
            same(back, number),
            "{code} of {scheme}: {back} and {number}"
        );
        let fake = fake.as_slice().unwrap()[element].value();
        prop_assert!(
            same(fake, number),
            "{} as {scheme}: {fake} and {number}",
            x.value()
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn every_type_granularity_and_scheme_follows_the_formula(
        (shape, scheme) in shapes().prop_flat_map(schemes_for),
        values in prop::collection::vec(numbers(), 1..40),
        seeds in seeds(),
    ) {
        let affine = affine(scheme, &shape, &seeds);
        check::<f32>(&values, &affine, &shape)?;
        check::<f64>(&values, &affine, &shape)?;
        check::<f16>(&values, &affine, &shape)?;
        check::<bf16>(&values, &affine, &shape)?;
    }

    #[test]
    fn codes_of_any_integer_type_stand_for_what_the_formula_gives(
        codes in prop::collection::vec(any::<i16>(), 1..30),
        scheme in super::support::formats(),
        seeds in seeds(),
    ) {
        let affine = affine(scheme, &[codes.len()], &seeds);
        let parameter = affine.parameter(0).unwrap();
        let narrow: Vec<i8> = codes.iter().map(|&code| code as i8).collect();
        let of_narrow = dequantize::<f32, _, _>(&ndarray::arr1(&narrow), &affine).unwrap();
        let of_wide = dequantize::<f64, _, _>(&ndarray::arr1(&codes), &affine).unwrap();
        for (index, (&narrow, &wide)) in narrow.iter().zip(&codes).enumerate() {
            let (scale, zero) = (parameter.scale, parameter.zero_point);
            let number = oracle::number::<f32>(narrow.into(), scale, zero, &scheme);
            prop_assert!(same(of_narrow[index].into(), number));
            let number = oracle::number::<f64>(wide.into(), scale, zero, &scheme);
            prop_assert!(same(of_wide[index], number));
        }
    }
}

#[test]
fn ties_go_to_the_even_code_before_the_zero_point_is_added() {
    let scheme = lowbit::Scheme::int(8).asymmetric().build().unwrap();
    for zero in [0.0, 1.0, -3.0] {
        let affine = Affine::per_tensor(scheme, 2.0, zero).unwrap();
        let x = ndarray::arr1(&[1.0_f32, 3.0, 5.0, -1.0, -3.0, -5.0]);
        let codes = quantize::<_, i8, _>(&x, &affine).unwrap();
        let expected = [0, 2, 2, 0, -2, -2].map(|code| code + zero as i8);
        assert_eq!(codes.to_vec(), expected);
    }
}
