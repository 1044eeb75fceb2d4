//! Codes in, codes out, and the bytes between.

use lowbit::{Affine, Error, FloatFormat, Granularity, Mapping, QTensor, ScaleKind, Scheme};
use ndarray::{Array2, ArrayD, arr1, array, s};
use proptest::prelude::*;

use super::support::{SCALE_KINDS, WIDTHS, affine, builders, codes, schemes, tensor};

#[test]
fn memory_is_the_bits_of_codes_scales_and_zero_points_and_nothing_else() {
    let shape = [5, 3, 7]; // 105 elements, groups of 3 along rows of 7: 45 parameters
    for bits in WIDTHS {
        for kind in SCALE_KINDS {
            for mapping in [
                Mapping::Symmetric,
                Mapping::Asymmetric,
                Mapping::AsymmetricFloat,
            ] {
                let scheme = Scheme::int(bits).mapping(mapping).per_group(3);
                let Ok(scheme) = scheme.scale_kind(kind).build() else {
                    assert!(bits == 1 && mapping == Mapping::Symmetric);
                    continue;
                };
                let width = bits as usize;
                let codes = (105 * width).div_ceil(8);
                let scales = match kind {
                    ScaleKind::F16 => 45 * 2,
                    ScaleKind::PowerOfTwo => 45,
                    _ => 45 * 4,
                };
                let zero_points = match mapping {
                    Mapping::Asymmetric => (45 * width).div_ceil(8),
                    Mapping::AsymmetricFloat => 45 * 4,
                    _ => 0,
                };
                let tensor = tensor(scheme, &shape);
                let expected = codes + scales + zero_points;
                assert_eq!(tensor.memory_bytes(), expected, "{scheme}");
                assert_eq!(tensor.packed().bytes().len(), codes);
                assert_eq!(tensor.effective_bits(), 8.0 * expected as f64 / 105.0);
            }
        }
    }
}

#[test]
fn the_issue_says_what_an_element_takes() {
    for (bits, bytes) in [(4, 500), (3, 375), (1, 125), (8, 1000), (16, 2000)] {
        let scheme = Scheme::int(bits).asymmetric_float().build().unwrap();
        assert_eq!(tensor(scheme, &[1000]).packed().bytes().len(), bytes);
    }
}

#[test]
fn codes_come_back_for_every_scheme() {
    for builder in builders() {
        let scheme = builder.per_axis(1).build().unwrap();
        let shape = [3, 2, 11];
        let (written, affine) = (codes(&scheme, &shape), affine(scheme, &shape));
        let tensor = QTensor::from_codes(&written, &affine).unwrap();
        assert_eq!(tensor.codes::<i32>().unwrap(), written, "{scheme}");
        assert_eq!(tensor.affine(), affine, "{scheme}");
        assert_eq!(tensor.shape(), shape);
        assert_eq!((tensor.len(), tensor.is_empty()), (66, false));
        let fits = scheme.quant_min() >= -128 && scheme.quant_max() <= 127;
        assert_eq!(tensor.codes::<i8>().is_ok(), fits, "{scheme}");
        // Floats are what dequantizing the codes gives.
        let x: ArrayD<f32> = lowbit::dequantize(&written, &affine).unwrap();
        let same = tensor.dequantize::<f32>();
        assert!(x.iter().zip(&same).all(|(a, b)| a.to_bits() == b.to_bits()));
    }
}

#[test]
fn codes_are_taken_from_any_layout_and_written_to_any() {
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let wide = codes(&scheme, &[8, 10]);
    let part = wide.slice(s![..;-2, 1..;3]).reversed_axes();
    let affine = affine(scheme, part.shape());
    let tensor = QTensor::from_codes(&part, &affine).unwrap();
    assert_eq!(tensor.codes::<i32>().unwrap(), part.into_dyn());
    let mut into = Array2::<f64>::zeros((4, 6));
    let mut into = into.slice_mut(s![.., ..;-2]).reversed_axes();
    tensor.dequantize_into(&mut into).unwrap();
    assert_eq!(into.view().into_dyn(), tensor.dequantize::<f64>());
    let mut other = Array2::<f32>::zeros((4, 3));
    let error = tensor.dequantize_into(&mut other).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }));
}

#[test]
fn codes_that_the_format_does_not_have_are_named() {
    let refused = |scheme: Scheme, code: i32| {
        let affine = affine(scheme, &[3]);
        match QTensor::from_codes(&arr1(&[1, 1, code]), &affine) {
            Err(Error::InvalidCode { index: 2, got, .. }) => got == code,
            _ => false,
        }
    };
    let narrow = Scheme::int(4).narrow_range().build().unwrap();
    for bad in [-8, 8, i32::MIN, i32::MAX] {
        assert!(refused(narrow, bad), "{bad}");
    }
    let unsigned = Scheme::int(2).unsigned().build().unwrap();
    assert!(refused(unsigned, -1) && refused(unsigned, 4));
    let e2m1 = Scheme::float(FloatFormat::E2M1).build().unwrap();
    assert!(refused(e2m1, 16) && refused(e2m1, -1));
}

#[test]
fn parameters_of_another_shape_are_refused() {
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let affine = Affine::symmetric(scheme, &[2], vec![1.0, 2.0]).unwrap();
    let error = QTensor::from_codes(&array![[1_i8], [1], [1]], &affine).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }));
    let error = QTensor::from_codes(&ndarray::arr0(1_i8), &affine).unwrap_err();
    assert!(matches!(error, Error::NoSuchAxis { .. }));
    let nan = QTensor::quantize(&array![[0.0_f32], [f32::NAN]], &affine).unwrap_err();
    assert!(matches!(nan, Error::NonFinite { position, .. } if position == [1, 0]));
}

#[test]
fn tensors_of_nothing_and_of_one_element_work() {
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerRow,
        Granularity::PerGroup(4),
    ] {
        let scheme = Scheme::int(4).granularity(granularity).build().unwrap();
        for shape in [[0, 3], [3, 0]] {
            let x = Array2::<f32>::zeros(shape);
            let tensor = QTensor::quantize(&x, &Affine::of(&scheme, &x).unwrap()).unwrap();
            assert!(tensor.is_empty() && tensor.packed().is_empty());
            assert_eq!(tensor.effective_bits(), 0.0);
            assert_eq!(tensor.dequantize::<f32>(), x.clone().into_dyn());
            assert_eq!(tensor.codes::<i8>().unwrap().shape(), shape);
        }
    }
    let affine = Affine::per_tensor(Scheme::int(4).build().unwrap(), 0.5, 0.0).unwrap();
    let one = QTensor::quantize(&ndarray::arr0(1.6_f32), &affine).unwrap();
    assert_eq!(one.dequantize::<f32>(), ndarray::arr0(1.5).into_dyn());
    assert_eq!(one.memory_bytes(), 1 + 4);
}

#[test]
fn a_million_elements_print_on_one_short_line() {
    let x = Array2::from_shape_fn((1000, 1000), |(i, j)| (i * j % 17) as f32);
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let tensor = QTensor::quantize(&x, &Affine::of(&scheme, &x).unwrap()).unwrap();
    let printed = format!("{tensor:?} {:?}", tensor.packed());
    assert!(printed.len() < 400, "{printed}");
    assert!(printed.contains("[1000, 1000]") && printed.contains("int4 symmetric per axis 0"));
}

proptest! {
    #[test]
    fn quantizing_packs_the_codes_that_quantizing_gives(
        scheme in schemes(), values in prop::collection::vec(-40.0_f32..40.0, 1..40),
    ) {
        let shape = [3, 5, 7];
        let mut next = values.iter().copied().cycle();
        let x = ArrayD::from_shape_simple_fn(shape.as_slice(), || next.next().unwrap());
        let affine = affine(scheme, &shape);
        let tensor = QTensor::quantize(&x, &affine).unwrap();
        let codes: ArrayD<i32> = lowbit::quantize(&x, &affine).unwrap();
        prop_assert_eq!(tensor.codes::<i32>().unwrap(), codes);
        prop_assert_eq!(&tensor, &QTensor::quantize(&x.mapv(f64::from), &affine).unwrap());
    }
}
