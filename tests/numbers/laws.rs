//! What quantizing promises whatever the numbers.

use lowbit::{
    Affine, Format, Mapping, QTensor, Range, Ranges, ScaleKind, dequantize, fake_quantize, quantize,
};
use ndarray::{Array1, ArrayD};
use proptest::prelude::*;

use super::support::{affine, array, formats, numbers, schemes_for, seeds, shapes};

fn bits(values: &ArrayD<f32>) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #[test]
    fn fake_quantizing_is_dequantizing_what_was_quantized_bit_for_bit(
        (shape, scheme) in shapes().prop_flat_map(schemes_for),
        values in prop::collection::vec(numbers(), 1..40),
        seeds in seeds(),
    ) {
        let affine = affine(scheme, &shape, &seeds);
        let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        let x = array(&shape, &values);
        let fake = fake_quantize(&x, &affine).unwrap();
        let codes: ArrayD<i32> = quantize(&x, &affine).unwrap();
        let back: ArrayD<f32> = dequantize(&codes, &affine).unwrap();
        prop_assert_eq!(bits(&back), bits(&fake));
        let tensor = QTensor::quantize(&x, &affine).unwrap();
        prop_assert_eq!(bits(&tensor.dequantize::<f32>()), bits(&fake));
    }

    #[test]
    fn a_number_on_the_grid_stays_where_it_is(
        scheme in formats(),
        values in prop::collection::vec(-300.0_f32..300.0, 1..40),
        scale in 1e-2_f32..2.0,
        zero in -100.0_f32..100.0,
    ) {
        let affine = affine(scheme, &[values.len()], &[(scale, zero)]);
        let once = fake_quantize(&Array1::from(values), &affine).unwrap();
        let twice = fake_quantize(&once, &affine).unwrap();
        if scheme.mapping() == Mapping::AsymmetricFloat {
            // A real zero point rounds each number that a code stands for.
            for (once, twice) in once.iter().zip(&twice) {
                prop_assert!((once - twice).abs() <= 1e-4 * affine.scale()[0]);
            }
        } else {
            prop_assert_eq!(once, twice);
        }
    }

    #[test]
    fn codes_do_not_fall_where_numbers_rise(
        scheme in formats(), mut values in prop::collection::vec(numbers(), 1..40), seeds in seeds(),
    ) {
        values.sort_by(f64::total_cmp);
        let affine = affine(scheme, &[values.len()], &seeds);
        let fake = fake_quantize(&Array1::from(values), &affine).unwrap();
        for pair in fake.to_vec().windows(2) {
            prop_assert!(pair[0] <= pair[1], "{} {}", pair[0], pair[1]);
        }
    }

    #[test]
    fn what_lies_in_the_range_moves_by_at_most_half_a_step(
        scheme in formats(),
        ends in (-50.0_f32..50.0, -50.0_f32..50.0),
        parts in prop::collection::vec(0.0_f32..=1.0, 1..40),
    ) {
        let chosen = Range::new(ends.0.min(ends.1), ends.0.max(ends.1)).unwrap();
        let affine = Affine::from_ranges(&scheme, &Ranges::per_tensor(chosen)).unwrap();
        let covered = affine.range(0).unwrap();
        let scale = f64::from(affine.scale()[0]);
        let zero = f64::from(affine.zero_point()[0]).abs();
        // Division and a real zero point round in f32.
        let slack = 1e-5 * scale * (1.0 + zero + f64::from(covered.magnitude()) / scale);
        let within = |part: f32| {
            let (low, high) = (chosen.min().max(covered.min()), chosen.max().min(covered.max()));
            low + part * (high - low).max(0.0)
        };
        let x: Array1<f32> = parts.into_iter().map(within).collect();
        let fake = fake_quantize(&x, &affine).unwrap();
        for (&x, &fake) in x.iter().zip(&fake) {
            let moved = (f64::from(x) - f64::from(fake)).abs();
            let step = match scheme.format() {
                Format::Int(_) => scale,
                // The least normal distance, or the share of the fraction bits.
                _ => scale.max(f64::from(x.abs()) / 2.0),
            };
            prop_assert!(moved <= step / 2.0 + slack, "{x} {fake} under {scale} as {scheme}");
        }
        // All but half a step of the chosen range is covered, where the stored scale can be as
        // fine as it needs to be and no code is left out.
        let half_range = scheme.mapping() == Mapping::SymmetricHalfRange;
        if scheme.scale_kind() != ScaleKind::F16 && matches!(scheme.format(), Format::Int(_)) {
            let short = if half_range { 1.0 } else { 0.5 } * scale + slack;
            prop_assert!(f64::from(covered.min()) <= f64::from(chosen.min()) + short);
            prop_assert!(f64::from(covered.max()) >= f64::from(chosen.max()) - short);
        }
    }

    #[test]
    fn zero_is_exact_where_the_zero_point_is_a_code(
        scheme in formats(), ends in (any::<f32>(), any::<f32>()),
    ) {
        prop_assume!(ends.0.is_finite() && ends.1.is_finite());
        let range = Range::new(ends.0.min(ends.1), ends.0.max(ends.1)).unwrap();
        if scheme.mapping() != Mapping::AsymmetricFloat
            && let Ok(affine) = Affine::from_ranges(&scheme, &Ranges::per_tensor(range))
        {
            let zeros = ndarray::arr1(&[0.0_f32, -0.0]);
            let fake = fake_quantize(&zeros, &affine).unwrap();
            prop_assert_eq!(fake.mapv(f32::to_bits), ndarray::arr1(&[0, 0]));
        }
    }
}
