//! Any layout, any dimension, and arrays of nothing.

use lowbit::{
    Affine, Granularity, Scheme, dequantize, dequantize_into, fake_quantize, fake_quantize_into,
    quantize, quantize_into,
};
use ndarray::{Array0, Array2, Array3, Array6, ArrayD, arr0, s};
use proptest::prelude::*;

use super::support::{Layout, Spread, affine, array, layouts, numbers, schemes_for, seeds, shapes};

fn cases() -> impl Strategy<Value = (Vec<usize>, Scheme, Layout, Layout)> {
    shapes()
        .prop_flat_map(schemes_for)
        .prop_flat_map(|(shape, scheme)| {
            let axes = shape.len();
            (Just(shape), Just(scheme), layouts(axes), layouts(axes))
        })
}

proptest! {
    #[test]
    fn the_layout_of_input_and_output_changes_nothing(
        (shape, scheme, from, to) in cases(),
        values in prop::collection::vec(numbers(), 1..60),
        seeds in seeds(),
    ) {
        let affine = affine(scheme, &shape, &seeds);
        let values: Vec<f32> = values.iter().map(|&x| x as f32).collect();
        let x = array(&shape, &values);
        let spread = Spread::of(&x, &from);

        let codes: ArrayD<i32> = quantize(&x, &affine).unwrap();
        prop_assert_eq!(&quantize::<_, i32, _>(&spread.view(), &affine).unwrap(), &codes);
        let mut codes_into = Spread::<i32>::zeros(&shape, &to);
        quantize_into(&spread.view(), &affine, &mut codes_into.view_mut()).unwrap();
        prop_assert_eq!(codes_into.view(), codes.view());

        let back: ArrayD<f64> = dequantize(&codes, &affine).unwrap();
        let codes = Spread::of(&codes, &from);
        let mut back_into = Spread::<f64>::zeros(&shape, &to);
        dequantize_into(&codes.view(), &affine, &mut back_into.view_mut()).unwrap();
        prop_assert_eq!(back_into.view(), back.view());

        let fake = fake_quantize(&x, &affine).unwrap();
        let mut fake_into = Spread::<f32>::zeros(&shape, &to);
        fake_quantize_into(&spread.view(), &affine, &mut fake_into.view_mut()).unwrap();
        prop_assert_eq!(fake_into.view(), fake.view());
    }
}

#[test]
fn large_arrays_of_other_layouts_are_as_those_in_order() {
    let scheme = Scheme::int(4).per_axis(1).build().unwrap();
    let scale = (0..301).map(|i| 0.01 + i as f32 * 1e-3).collect();
    let affine = Affine::symmetric(scheme, &[301], scale).unwrap();
    let wide = Array2::from_shape_fn((301, 500), |(i, j)| ((i * 500 + j) as f32 * 0.37).sin());
    let turned = wide.slice(s![.., ..;-2]).reversed_axes();
    let plain = turned.as_standard_layout().into_owned();
    let expected = quantize::<_, i8, _>(&plain, &affine).unwrap();
    assert_eq!(quantize::<_, i8, _>(&turned, &affine).unwrap(), expected);
    assert_eq!(
        fake_quantize(&turned, &affine).unwrap(),
        fake_quantize(&plain, &affine).unwrap()
    );
}

#[test]
fn static_dimensions_from_none_to_six_work() {
    let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 0.5, 0.0).unwrap();
    assert_eq!(
        quantize::<_, i8, _>(&arr0(1.3_f32), &affine).unwrap(),
        arr0(3)
    );
    let one: Array0<f32> = dequantize(&arr0(3_i8), &affine).unwrap();
    assert_eq!(one, arr0(1.5));
    let six = Array6::from_elem((1, 2, 1, 3, 1, 2), 0.7_f32);
    assert_eq!(fake_quantize(&six, &affine).unwrap(), six.mapv(|_| 0.5));
}

#[test]
fn arrays_of_nothing_give_arrays_of_nothing() {
    for shape in [[0, 3, 2], [3, 0, 2], [3, 2, 0], [0, 0, 0]] {
        for granularity in [
            Granularity::PerTensor,
            Granularity::PerAxis(0),
            Granularity::PerAxis(1),
            Granularity::PerAxis(2),
            Granularity::PerRow,
            Granularity::PerGroup(2),
            Granularity::PerGroupAlong { axis: 0, size: 2 },
            Granularity::PerBlock {
                rows: 2,
                columns: 2,
            },
        ] {
            let scheme = Scheme::int(4).granularity(granularity).build().unwrap();
            let x = Array3::<f32>::zeros(shape);
            let affine = Affine::of(&scheme, &x).unwrap();
            assert!(affine.scale().iter().all(|&scale| scale == 1.0));
            let codes = quantize::<_, i8, _>(&x, &affine).unwrap();
            assert_eq!(codes.dim(), x.dim());
            assert_eq!(dequantize::<f32, _, _>(&codes, &affine).unwrap(), x);
            assert_eq!(fake_quantize(&x, &affine).unwrap(), x);
        }
    }
}
