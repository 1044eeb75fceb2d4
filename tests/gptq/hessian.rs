//! The second moments of inputs.

use lowbit::{
    Error,
    observe::{Hessian, InputDeviation},
};
use ndarray::{Array2, Axis, array, s};

use crate::support::{Numbers, on_threads, square};

fn observed(inputs: &Array2<f32>) -> Hessian {
    let mut hessian = Hessian::new(inputs.ncols()).unwrap();
    hessian.observe(inputs).unwrap();
    hessian
}

/// The largest error of an element, in units of `√(Hᵢᵢ Hⱼⱼ)`.
fn relative_error(matrix: &Array2<f64>, exact: &Array2<f64>) -> f64 {
    let unit = exact.diag().mapv(f64::sqrt);
    matrix
        .indexed_iter()
        .map(|((row, column), &value)| {
            let difference = (value - exact[[row, column]]).abs();
            if difference == 0.0 {
                0.0
            } else {
                difference / (unit[row] * unit[column])
            }
        })
        .fold(0.0, f64::max)
}

#[test]
fn the_matrix_is_the_sum_of_products_on_both_sides_of_every_tile_edge() {
    for (tokens, columns) in [
        (1, 1),
        (3, 5),
        (255, 7),
        (256, 255),
        (257, 256),
        (700, 257),
        (40, 530),
    ] {
        let inputs = Numbers(columns as u64).inputs(tokens, columns);
        let hessian = observed(&inputs);
        let matrix = hessian.matrix().unwrap();
        assert!(relative_error(&matrix, &square(&inputs)) < 2e-6);
        assert_eq!(matrix, matrix.t());
        assert_eq!(hessian.tokens(), tokens as u64);
        let diagonal = hessian.diagonal();
        for (a, b) in diagonal.iter().zip(matrix.diag()) {
            approx::assert_relative_eq!(a, b, max_relative = 1e-5);
        }
    }
}

#[test]
fn neither_the_cut_into_batches_nor_their_layout_nor_threads_change_a_bit() {
    let inputs = Numbers(1).inputs(900, 300);
    let whole = on_threads(1, || observed(&inputs).matrix().unwrap());
    for size in [1, 100, 256, 300] {
        let mut hessian = Hessian::new(300).unwrap();
        on_threads(3, || {
            for batch in inputs.axis_chunks_iter(Axis(0), size) {
                hessian.observe(&batch).unwrap();
            }
        });
        assert_eq!(hessian.matrix().unwrap(), whole);
    }
    let transposed = inputs.t().to_owned();
    let mut hessian = Hessian::new(300).unwrap();
    hessian.observe(&transposed.t()).unwrap();
    assert_eq!(hessian.matrix().unwrap(), whole);
    let cube = inputs.to_shape((3, 300, 300)).unwrap();
    let mut hessian = Hessian::new(300).unwrap();
    hessian.observe(&cube).unwrap();
    assert_eq!(hessian.matrix().unwrap(), whole);
    let mut hessian = Hessian::new(300).unwrap();
    for row in inputs.rows() {
        hessian.observe(&row).unwrap();
    }
    assert_eq!(hessian.matrix().unwrap(), whole);
}

#[test]
fn shards_that_are_merged_have_seen_what_all_have_seen() {
    let inputs = Numbers(2).inputs(1_000, 40);
    let whole = observed(&inputs);
    let mut merged = Hessian::new(40).unwrap();
    for shard in inputs.axis_chunks_iter(Axis(0), 310) {
        merged.merge(&observed(&shard.to_owned())).unwrap();
    }
    merged.merge(&Hessian::new(40).unwrap()).unwrap();
    assert_eq!(merged.tokens(), 1_000);
    let exact = square(&inputs);
    assert!(relative_error(&merged.matrix().unwrap(), &exact) < 2e-6);
    assert!(relative_error(&whole.matrix().unwrap(), &exact) < 2e-6);
    merged.reset();
    assert_eq!(merged.tokens(), 0);
    assert_eq!(merged.matrix().unwrap(), Array2::<f64>::zeros((40, 40)));
    let other = Hessian::new(41).unwrap();
    assert!(matches!(
        merged.merge(&other),
        Err(Error::ShapeMismatch { .. })
    ));
}

#[test]
fn what_a_change_costs_is_the_error_of_the_outputs() {
    let inputs = Numbers(3).inputs(600, 290);
    let delta = Numbers(4).matrix(70, 290);
    let hessian = observed(&inputs);
    let outputs = inputs.mapv(f64::from).dot(&delta.mapv(f64::from).t());
    let errors = hessian.row_errors(&delta).unwrap();
    for (error, outputs) in errors.iter().zip(outputs.columns()) {
        approx::assert_relative_eq!(*error, outputs.dot(&outputs), max_relative = 1e-5);
    }
    let total = hessian.error(&delta).unwrap();
    approx::assert_relative_eq!(total, outputs.mapv(|y| y * y).sum(), max_relative = 1e-5);
    let threads = on_threads(3, || hessian.error(&delta).unwrap());
    assert_eq!(total, threads);
}

#[test]
fn magnitudes_that_squares_in_f32_do_not_hold_are_exact_too() {
    let inputs = Numbers(5).inputs(300, 20);
    let exact = square(&inputs);
    for exponent in [-110, -80, 60, 110] {
        let unit = 2.0_f32.powi(exponent);
        let matrix = observed(&(&inputs * unit)).matrix().unwrap();
        let unit = f64::from(unit);
        assert!(relative_error(&(matrix / unit / unit), &exact) < 2e-6);
    }
    let zero = observed(&Array2::zeros((300, 3))).matrix().unwrap();
    assert_eq!(zero, Array2::<f64>::zeros((3, 3)));
}

#[test]
fn a_refused_batch_changes_nothing() {
    let inputs = Numbers(6).inputs(30, 4);
    let mut hessian = observed(&inputs);
    let before = hessian.matrix().unwrap();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut batch = inputs.clone();
        batch[[7, 2]] = bad;
        let error = hessian.observe(&batch).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position, .. } if position == [7, 2]));
        let error = hessian.observe(&batch.slice(s![.., ..;-1])).unwrap_err();
        assert!(matches!(error, Error::NonFinite { position, .. } if position == [7, 1]));
    }
    let error = hessian.observe(&array![1.0_f32]).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { expected, .. } if expected == [4]));
    assert!(hessian.observe(&ndarray::arr0(1.0_f32)).is_err());
    assert!(hessian.error(&Array2::zeros((2, 3))).is_err());
    assert!(hessian.error(&array![[0.0, f32::NAN, 0.0, 0.0]]).is_err());
    hessian.observe(&Array2::zeros((0, 4))).unwrap();
    assert_eq!(hessian.matrix().unwrap(), before);
    assert_eq!(hessian.tokens(), 30);
}

#[test]
fn absurd_sizes_are_refused_before_memory_is_asked_for() {
    assert!(matches!(Hessian::new(0), Err(Error::InvalidOption { .. })));
    assert!(matches!(
        Hessian::new(usize::MAX),
        Err(Error::TooLarge { .. })
    ));
    assert!(matches!(Hessian::new(1 << 31), Err(Error::TooLarge { .. })));
}

#[test]
fn a_deviation_is_that_of_the_inputs() {
    let inputs = Numbers(7).inputs(700, 270);
    let quantized = &inputs + &(Numbers(8).matrix(700, 270) * 0.1);
    let mut whole = InputDeviation::new(270).unwrap();
    whole.observe(&inputs, &quantized).unwrap();
    let difference = (&inputs - &quantized).mapv(f64::from);
    let exact = difference.t().dot(&quantized.mapv(f64::from));
    let scale = exact.mapv(|x| x * x).mean().unwrap().sqrt();
    let close = |cross: Array2<f64>| (cross - &exact).iter().all(|x| x.abs() < 1e-4 * scale);
    assert!(close(whole.cross().unwrap()));
    assert_eq!(
        whole.hessian().matrix().unwrap(),
        observed(&quantized).matrix().unwrap()
    );

    let mut pieces = InputDeviation::new(270).unwrap();
    let mut merged = InputDeviation::new(270).unwrap();
    for start in [0, 350] {
        let rows = s![start..start + 350, ..];
        let (x, y) = (inputs.slice(rows), quantized.slice(rows));
        on_threads(3, || pieces.observe(&x, &y).unwrap());
        let mut shard = InputDeviation::new(270).unwrap();
        shard.observe(&x, &y).unwrap();
        merged.merge(&shard).unwrap();
    }
    assert_eq!(pieces.cross().unwrap(), whole.cross().unwrap());
    assert!(close(merged.cross().unwrap()));
    assert_eq!(merged.hessian().tokens(), 700);

    let error = merged.observe(&inputs, &quantized.slice(s![1.., ..]).to_owned());
    assert!(matches!(error, Err(Error::ShapeMismatch { .. })));
    merged.reset();
    assert_eq!(merged.cross().unwrap(), Array2::<f64>::zeros((270, 270)));
}

#[cfg(feature = "serde")]
mod stored {
    use super::*;

    #[test]
    fn a_hessian_comes_back_as_it_was_and_goes_on() {
        for tokens in [0, 3, 256, 600] {
            let inputs = Numbers(9).inputs(tokens, 261);
            let mut hessian = observed(&inputs);
            // A tree of numbers; as text, serde_json reads the last digit only if asked to.
            let tree = serde_json::to_value(&hessian).unwrap();
            let mut read: Hessian = serde_json::from_value(tree).unwrap();
            assert_eq!(read.tokens(), tokens as u64);
            let more = Numbers(10).inputs(300, 261);
            for hessian in [&mut hessian, &mut read] {
                hessian.observe(&more).unwrap();
            }
            assert_eq!(read.matrix().unwrap(), hessian.matrix().unwrap());
            let delta = Numbers(11).matrix(3, 261);
            assert_eq!(read.error(&delta).unwrap(), hessian.error(&delta).unwrap());
        }
    }

    #[test]
    fn a_deviation_comes_back_as_it_was_and_goes_on() {
        for tokens in [0, 3, 600] {
            let inputs = Numbers(12).inputs(tokens, 20);
            let quantized = &inputs + 0.5;
            let mut deviation = InputDeviation::new(20).unwrap();
            deviation.observe(&inputs, &quantized).unwrap();
            let tree = serde_json::to_value(&deviation).unwrap();
            let mut read: InputDeviation = serde_json::from_value(tree.clone()).unwrap();
            let (more, strayed) = (Numbers(13).inputs(260, 20), Numbers(14).inputs(260, 20));
            for deviation in [&mut deviation, &mut read] {
                deviation.observe(&more, &strayed).unwrap();
            }
            assert_eq!(read.cross().unwrap(), deviation.cross().unwrap());
            assert_eq!(read.hessian().tokens(), tokens as u64 + 260);

            for (field, bad) in [
                ("cross", serde_json::json!([1.0])),
                ("staged", serde_json::json!([1.0])),
                ("staged_inputs", serde_json::json!(vec![0.5; 20 * 256])),
                ("hessian", serde_json::json!(null)),
            ] {
                let mut tree = tree.clone();
                tree[field] = bad;
                assert!(
                    serde_json::from_value::<InputDeviation>(tree).is_err(),
                    "{field}"
                );
            }
        }
    }

    #[test]
    fn a_hessian_that_no_inputs_can_have_is_not_read() {
        let good = r#"{"columns":2,"tokens":300,"upper":[4.0,-1.0,1.0],"staged":[1.0,0.5]}"#;
        let hessian: Hessian = serde_json::from_str(good).unwrap();
        assert_eq!(hessian.matrix().unwrap(), array![[5.0, -0.5], [-0.5, 1.25]]);
        for (from, to) in [
            ("\"columns\":2", "\"columns\":0"),
            ("\"columns\":2", "\"columns\":3"),
            ("\"columns\":2", "\"columns\":9223372036854775807"),
            ("\"columns\":2", "\"columns\":4000000"),
            ("\"tokens\":300", "\"tokens\":0"),
            ("\"tokens\":300", "\"tokens\":-1"),
            ("[4.0,-1.0,1.0]", "[]"),
            ("[4.0,-1.0,1.0]", "[4.0,-1.0]"),
            ("[4.0,-1.0,1.0]", "[4.0,-2.1,1.0]"),
            ("[4.0,-1.0,1.0]", "[4.0,0.0,-1.0]"),
            ("[4.0,-1.0,1.0]", "[1e999,0.0,1.0]"),
            ("[1.0,0.5]", "[1.0]"),
            ("[1.0,0.5]", "[1e39,0.5]"),
        ] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good);
            assert!(serde_json::from_str::<Hessian>(&bad).is_err(), "{bad}");
        }
    }
}
