//! Sums of products of input rows: what the second moments of a layer's inputs are made of.

use ndarray::{
    Array2, ArrayRef, ArrayView2, ArrayViewMut2, Axis, CowArray, Dimension, IntoDimension, Ix2,
    linalg::general_mat_mul, s,
};

use crate::{
    affine::extent,
    error::{Error, Result},
};

/// Rows of a product in f32: few enough for the error of their sum, enough that adding it in f64
/// takes little beside it.
pub(super) const ROWS: usize = 256;

/// A batch `[…, in]` as rows of inputs, all finite.
pub(super) fn rows_of<'a, D: Dimension>(
    batch: &'a ArrayRef<f32, D>,
    columns: usize,
) -> Result<CowArray<'a, f32, Ix2>> {
    if batch.shape().last() != Some(&columns) {
        let mut expected = batch.shape().to_vec();
        expected.pop();
        expected.push(columns);
        return Err(Error::ShapeMismatch {
            what: "batch",
            expected,
            got: batch.shape().to_vec(),
        });
    }
    check_finite("batch", batch)?;
    let rows = batch.len() / columns;
    batch.to_shape((rows, columns)).map_err(Error::other)
}

pub(super) fn check_finite<D: Dimension>(what: &'static str, x: &ArrayRef<f32, D>) -> Result<()> {
    let finite = match x.as_slice_memory_order() {
        Some(values) => extent(values).2,
        None => x.iter().all(|x| x.is_finite()),
    };
    if finite {
        return Ok(());
    }
    let bad = x.indexed_iter().find(|(_, x)| !x.is_finite());
    bad.map_or(Ok(()), |(position, &value)| {
        Err(Error::NonFinite {
            what,
            expected: "finite numbers",
            position: position.into_dimension().slice().to_vec(),
            value: value.into(),
        })
    })
}

/// Appends rows to those that wait, as long as there is room; what is left of them.
pub(super) fn stage<'a>(
    waiting: &mut Array2<f32>,
    rows: ArrayView2<'a, f32>,
) -> Result<ArrayView2<'a, f32>> {
    let room = ROWS - waiting.nrows();
    let (now, later) = rows.split_at(Axis(0), room.min(rows.nrows()));
    waiting.append(Axis(0), now).map_err(Error::other)?;
    Ok(later)
}

/// Divides rows by a power of two, which it returns, so that their products neither overflow nor
/// vanish.
pub(super) fn normalize(rows: &mut Array2<f32>) -> f64 {
    let largest = rows.fold(0.0_f32, |largest, x| largest.max(x.abs()));
    if largest == 0.0 || (1e-9..1e9).contains(&largest) {
        return 1.0;
    }
    // Of f64, whose exponents have room for the reciprocal of every f32.
    let unit = f64::from(largest).log2().floor().exp2();
    rows.mapv_inplace(|x| narrow(f64::from(x) / unit));
    unit
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest f32")]
fn narrow(x: f64) -> f32 {
    x as f32
}

/// Adds to a tile at a row and a column of `leftᵀ · right`, in `unit`s.
pub(super) fn add_product(
    mut tile: ArrayViewMut2<'_, f64>,
    (row, left): (usize, &Array2<f32>),
    (column, right): (usize, &Array2<f32>),
    unit: f64,
) {
    let mut product = Array2::<f32>::zeros(tile.raw_dim());
    let left = left.slice(s![.., row..row + tile.nrows()]);
    let right = right.slice(s![.., column..column + tile.ncols()]);
    general_mat_mul(1.0, &left.t(), &right, 0.0, &mut product);
    tile.zip_mut_with(&product, |sum, &x| *sum += f64::from(x) * unit);
}
