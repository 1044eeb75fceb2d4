//! Batches of matrices as numpy's `matmul` takes them.

use ndarray::{Array2, ArrayD, Axis, IxDyn};

/// An operand of a product: a batch of matrices, and whether it was a vector.
#[derive(Clone, Copy)]
pub enum Side {
    /// A vector is one row.
    Left,
    /// A vector is one column.
    Right,
}

/// At least two axes: a vector is a matrix of one row or one column.
pub fn matrix<T: Clone>(x: &ArrayD<T>, side: Side) -> Result<ArrayD<T>, String> {
    match (x.ndim(), side) {
        (0, _) => Err("a matrix without axes".into()),
        (1, Side::Left) => Ok(x.clone().insert_axis(Axis(0))),
        (1, Side::Right) => Ok(x.clone().insert_axis(Axis(1))),
        _ => Ok(x.clone()),
    }
}

/// The axes before the last two, of two operands together.
pub fn batch(a: &[usize], b: &[usize]) -> Result<Vec<usize>, String> {
    let of = |shape: &[usize]| shape[..shape.len() - 2].to_vec();
    let (a, b) = (of(a), of(b));
    let axes = a.len().max(b.len());
    let at = |batch: &[usize], axis: usize| {
        (axis + batch.len())
            .checked_sub(axes)
            .map_or(1, |axis| batch[axis])
    };
    (0..axes)
        .map(|axis| match (at(&a, axis), at(&b, axis)) {
            (a, b) if a == b || b == 1 => Ok(a),
            (1, b) => Ok(b),
            (a, b) => Err(format!("batches of {a} and {b} matrices")),
        })
        .collect()
}

/// The matrices of an operand, one for each of the whole batch.
pub fn matrices<T: Clone>(x: &ArrayD<T>, batch: &[usize]) -> Result<Vec<Array2<T>>, String> {
    let [rows, columns] = [x.ndim() - 2, x.ndim() - 1].map(|axis| x.shape()[axis]);
    let shape: Vec<usize> = batch.iter().copied().chain([rows, columns]).collect();
    let all = x
        .broadcast(IxDyn(&shape))
        .ok_or_else(|| format!("{:?} does not broadcast to {shape:?}", x.shape()))?;
    let all = all.as_standard_layout().into_owned();
    let count = batch.iter().product::<usize>();
    let all = all
        .into_shape_with_order((count, rows, columns))
        .map_err(|error| error.to_string())?;
    Ok(all.outer_iter().map(|matrix| matrix.to_owned()).collect())
}

/// The zero points of each matrix of the batch: one for all, a vector for the rows or columns of
/// every matrix, or an array with the axes of the operand, 1 where they are shared.
pub fn zero_points<T: Clone>(zero: &ArrayD<T>, batch: &[usize]) -> Result<Vec<Vec<T>>, String> {
    let count = batch.iter().product();
    if zero.ndim() < 2 {
        return Ok(vec![zero.iter().cloned().collect(); count]);
    }
    let matrices = matrices(zero, batch)?;
    Ok(matrices
        .into_iter()
        .map(|matrix| matrix.into_iter().collect())
        .collect())
}

/// The products of a batch in one array, without the axes that vectors got.
pub fn stacked<T: Clone>(
    products: &[Array2<T>],
    batch: &[usize],
    [a, b]: [&[usize]; 2],
) -> Result<ArrayD<T>, String> {
    let rows = (a.len() > 1).then(|| a[a.len() - 2]);
    let columns = (b.len() > 1).then(|| b[b.len() - 1]);
    let shape: Vec<usize> = batch.iter().copied().chain(rows).chain(columns).collect();
    let flat: Vec<T> = products.iter().flatten().cloned().collect();
    ArrayD::from_shape_vec(IxDyn(&shape), flat).map_err(|error| error.to_string())
}
