//! Writing blocks: any numbers, and what comes back.

use lowbit::{
    Error,
    io::gguf::{TensorType, dequantize, quantize},
};
use ndarray::{Array1, Array2, Array3, ArrayD, Axis, s};
use proptest::prelude::*;

/// The types that are written.
fn written() -> impl Iterator<Item = TensorType> {
    let unread = |kind: &TensorType| {
        let name = kind.name();
        let codebook = name.starts_with("IQ") && !name.starts_with("IQ4");
        codebook || ["Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"].contains(&name)
    };
    TensorType::ALL
        .iter()
        .copied()
        .filter(move |kind| !unread(kind))
}

fn wave(rows: usize, columns: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        (i + 1) as f32 * ((i * columns + j) as f32 * 0.37).sin()
    })
}

/// The root of the share of the signal that is lost.
fn loss(x: &Array2<f32>, kind: TensorType, importance: Option<&Array1<f32>>) -> f32 {
    let blocks = quantize(kind, x, importance.map(|i| &**i)).unwrap();
    let y = dequantize(kind, &blocks, x.shape()).unwrap();
    let y: Array2<f32> = y.into_dimensionality().unwrap();
    let squares = |a: &Array2<f32>| a.iter().map(|a| a * a).sum::<f32>();
    (squares(&(x - &y)) / squares(x)).sqrt()
}

#[test]
fn what_is_lost_falls_with_the_bits() {
    let x = wave(4, 512);
    let names = ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "Q8_0", "F16", "F32"];
    let losses = names.map(|name| loss(&x, name.parse().unwrap(), None));
    assert!(losses.is_sorted_by(|a, b| a > b), "{losses:?}");
    assert_eq!(losses[7], 0.0);
    for (kind, most) in [
        ("Q4_0", 0.1),
        ("Q5_0", 0.05),
        ("IQ4_NL", 0.1),
        ("MXFP4", 0.2),
        ("NVFP4", 0.2),
    ] {
        let loss = loss(&x, kind.parse().unwrap(), None);
        assert!(loss < most, "{kind}: {loss}");
    }
    assert!(written().count() == 21);
}

#[test]
fn importance_moves_the_error_away_from_what_matters() {
    let x = wave(8, 256);
    let importance = Array1::from_shape_fn(256, |j| if j % 4 == 0 { 100.0 } else { 1.0 });
    for name in ["Q2_K", "Q3_K", "Q4_K", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS"] {
        let kind: TensorType = name.parse().unwrap();
        let error = |importance: Option<&Array1<f32>>| {
            let blocks = quantize(kind, &x, importance.map(|i| &**i)).unwrap();
            let y = dequantize(kind, &blocks, x.shape()).unwrap();
            let columns = |a: f32, b: f32| (a - b) * (a - b);
            let important = x.slice(s![.., ..;4]).to_owned();
            let got = y
                .slice_axis(Axis(1), ndarray::Slice::new(0, None, 4))
                .to_owned();
            important
                .iter()
                .zip(&got)
                .map(|(&a, &b)| columns(a, b))
                .sum::<f32>()
        };
        assert!(error(Some(&importance)) < error(None), "{name}");
    }
}

#[test]
fn any_layout_and_dimension_gives_the_same_blocks() {
    let wide = wave(64, 512);
    let view = wide.slice(s![..;-2, 256..]);
    let plain = view.to_owned();
    let transposed = plain.t().as_standard_layout().to_owned();
    let deep: Array3<f32> = plain.to_shape((4, 8, 256)).unwrap().to_owned();
    for kind in written() {
        let expected = quantize(kind, &plain, None).unwrap();
        assert_eq!(quantize(kind, &view, None).unwrap(), expected);
        assert_eq!(quantize(kind, &transposed.t(), None).unwrap(), expected);
        assert_eq!(quantize(kind, &deep, None).unwrap(), expected);
    }
}

#[test]
fn bad_input_is_refused() {
    let x = wave(2, 256);
    for kind in written() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = x.clone();
            x[[1, 7]] = bad;
            let error = quantize(kind, &x, None).unwrap_err();
            let Error::NonFinite { position, .. } = error else {
                panic!("{kind}: {error}");
            };
            assert_eq!(position, [1, 7]);
        }
        if kind.block_len() > 1 {
            assert!(matches!(
                quantize(kind, &wave(2, 250), None),
                Err(Error::ShapeMismatch { .. })
            ));
        }
        assert!(
            quantize(kind, &Array2::zeros((0, 256)), None)
                .unwrap()
                .is_empty()
        );
        assert!(
            quantize(kind, &Array2::zeros((3, 0)), None)
                .unwrap()
                .is_empty()
        );
    }
    for importance in [
        Array1::zeros(255),
        Array1::from_elem(256, -1.0),
        Array1::from_elem(256, f32::NAN),
    ] {
        assert!(quantize(TensorType::Q4K, &x, Some(&importance)).is_err());
    }
    for kind in ["Q8_K", "IQ2_XS", "I32"] {
        let error = quantize(kind.parse().unwrap(), &x, None).unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_written_is_read_as_numbers(
        values in prop::collection::vec(prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL | prop::num::f32::ZERO, 1..9),
        spread in -40..40_i32,
        important in prop::option::of(prop::collection::vec(prop::num::f32::POSITIVE | prop::num::f32::ZERO, 1..5)),
    ) {
        let row = |values: &[f32]| values.iter().copied().cycle().take(256).collect::<Vec<f32>>();
        let mut x = ArrayD::from_shape_vec(vec![1, 256], row(&values)).unwrap();
        if spread < 0 {
            // Of a size that is met in weights.
            x.mapv_inplace(|x| f32::from_bits(x.to_bits() & 0x807f_ffff | (127 + spread).unsigned_abs() << 23));
        }
        let finite = |i: f32| if i.is_finite() { i } else { 1.0 };
        let importance = important.map(|i| Array1::from(row(&i)).mapv(finite));
        for kind in written() {
            match quantize(kind, &x, importance.as_deref()) {
                Ok(blocks) => {
                    let y = dequantize(kind, &blocks, x.shape()).unwrap();
                    prop_assert!(y.iter().all(|y| y.is_finite()), "{}", kind);
                }
                Err(error) => {
                    let refused = matches!(error, Error::Mismatch { .. });
                    prop_assert!(refused, "{}", error);
                    prop_assert!(x.iter().any(|x| x.abs() > 1e3) || importance.is_some(), "{}", error);
                }
            }
        }
    }
}
