//! Rows cut out of a tensor are the tensor of those rows.

use lowbit::{Error, Granularity, QTensor, Scheme};
use ndarray::{Axis, Slice};
use proptest::prelude::*;

use super::support::{affine, codes, schemes, tensor};

proptest! {
    #[test]
    fn rows_dequantize_to_the_rows_of_the_whole(
        scheme in schemes(), height in 0..6_usize, start in 0..7_usize, end in 0..7_usize,
    ) {
        let shape = [height, 3, 5];
        let whole = tensor(scheme, &shape);
        let size = match scheme.granularity() {
            Granularity::PerGroupAlong { axis: 0, size } => size,
            _ => 1,
        };
        let aligned = |row: usize| row.is_multiple_of(size) || row == height;
        let there = start <= end && end <= height;
        let fits = there && (start == end || aligned(start) && aligned(end));
        match whole.rows(start..end) {
            Ok(part) => {
                prop_assert!(fits);
                let bits = |x: ndarray::ArrayD<f32>| x.mapv(f32::to_bits);
                let floats = bits(whole.dequantize());
                let expected = floats.slice_axis(Axis(0), Slice::from(start..end));
                prop_assert_eq!(bits(part.dequantize()), expected);
                // As good as one made of those codes and parameters from the start.
                let again = QTensor::from_codes(&part.codes::<i32>().unwrap(), &part.affine());
                prop_assert_eq!(again.unwrap(), part);
            }
            Err(Error::InvalidOption { what: "rows", .. }) => prop_assert!(!fits),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}

#[test]
fn rows_of_vectors_and_blocks_are_cut_at_groups() {
    let of =
        |builder: lowbit::SchemeBuilder, shape: &[usize]| tensor(builder.build().unwrap(), shape);
    // A vector's rows are its elements.
    let vector = of(Scheme::int(3).per_group(4), &[10]);
    assert_eq!(vector.rows(4..10).unwrap().affine().scale().len(), 2);
    assert!(vector.rows(3..8).is_err());
    let vector = of(Scheme::int(3).per_row(), &[10]);
    assert_eq!(vector.rows(3..8).unwrap().len(), 5);
    let matrix = of(Scheme::int(3).per_block(2, 2), &[5, 4]);
    assert_eq!(matrix.rows(2..5).unwrap().affine().shape(), [2, 2]);
    assert!(matrix.rows(1..5).is_err());
    let stack = of(Scheme::int(3).per_block(2, 2), &[5, 3, 4]);
    assert_eq!(stack.rows(1..5).unwrap().affine().shape(), [4, 2, 2]);
}

#[test]
fn a_number_has_no_rows_and_hostile_rows_are_refused() {
    let number = tensor(Scheme::int(4).build().unwrap(), &[]);
    assert!(matches!(number.rows(0..0), Err(Error::NoSuchAxis { .. })));
    let matrix = tensor(Scheme::int(4).per_axis(0).build().unwrap(), &[4, 3]);
    for bad in [0..5, 5..5, usize::MAX..usize::MAX, 0..usize::MAX] {
        assert!(matrix.rows(bad).is_err());
    }
    assert_eq!(matrix.rows(4..4).unwrap().len(), 0);
}

#[test]
fn rows_take_no_more_memory_than_their_share() {
    let shape = [64, 1, 128];
    let scheme = Scheme::int(3).asymmetric().per_group(32).build().unwrap();
    let whole = QTensor::from_codes(&codes(&scheme, &shape), &affine(scheme, &shape)).unwrap();
    assert_eq!(
        whole.rows(16..32).unwrap().memory_bytes(),
        whole.memory_bytes() / 4
    );
}
