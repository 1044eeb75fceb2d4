//! The fast Walsh–Hadamard transform, for `2^k` and for `m · 2^k` where a matrix of order `m` is
//! known.

use std::sync::Arc;

use ndarray::{Array1, ArrayView2, ArrayViewMut2, linalg::general_mat_mul};

use super::orders;
use crate::{
    element::Real,
    error::{Error, Result},
    simd::{Loops, wide},
};

/// An orthonormal Hadamard transform of one size: `x ← x · H / √n`, with `H` of ±1.
///
/// For `n = m · 2^k`, `H` is the Kronecker product of a matrix of order `m` and Sylvester's of
/// order `2^k`: the transform takes `n (m + k)` additions. Orders `m` are those of Paley (`q + 1`
/// and `2 (q + 1)` for primes `q`), Williamson and Cooper and Wallis, up to 1024, with 12, 20, 28,
/// 36, 40, 44, 52, 60, 108, 140, 156 and 172 among them.
///
/// ```
/// use lowbit::ptq::Hadamard;
///
/// let hadamard = Hadamard::new(4)?;
/// let mut row = [1.0_f32, 0.0, 0.0, 1.0];
/// hadamard.apply(&mut row);
/// assert_eq!(row, [1.0, 0.0, 0.0, 1.0]); // (1, 1, 1, 1) / 2 + (1, −1, −1, 1) / 2
///
/// assert!(Hadamard::new(11_008).is_ok()); // 172 · 64
/// assert!(Hadamard::new(33).is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Hadamard {
    size: usize,
    order: usize,
    /// The matrix of order `m`, and its transpose; empty for powers of two.
    matrix: Arc<[f32]>,
    transpose: Arc<[f32]>,
}

impl Hadamard {
    /// The transform of rows of `size` elements.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] if no matrix of that order is known here: odd sizes, twice odd
    /// ones, and some multiples of 4.
    pub fn new(size: usize) -> Result<Self> {
        let Some(orders::Signs { order, entries }) = orders::for_size(size) else {
            let block = 1_usize << size.trailing_zeros().min(usize::BITS - 1);
            return Err(Error::option(
                "size of a Hadamard transform",
                "2^k, or m · 2^k for a known order m such as 12, 20, 28, 36, 44, 52, 60, 108, 140, \
                 156 or 172",
                if size == 0 {
                    "0".into()
                } else {
                    format!("{size} (blocks of {block} would divide it)")
                },
            ));
        };
        let of = |at: &dyn Fn(usize, usize) -> usize| -> Arc<[f32]> {
            let indices = (0..order).flat_map(|i| (0..order).map(move |j| (i, j)));
            indices.map(|(i, j)| f32::from(entries[at(i, j)])).collect()
        };
        Ok(Self {
            size,
            order,
            matrix: of(&|i, j| i * order + j),
            transpose: of(&|i, j| j * order + i),
        })
    }

    /// Elements of a row.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Replaces each row of `size` elements by `row · H / √n`. A remainder shorter than a row is
    /// left as it is.
    pub fn apply<T: Real>(&self, rows: &mut [T]) {
        self.multiply(rows, &self.matrix);
    }

    /// The inverse of [`apply`](Self::apply): `row · Hᵀ / √n`.
    pub fn undo<T: Real>(&self, rows: &mut [T]) {
        self.multiply(rows, &self.transpose);
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "sizes of rows are far below 2^53"
    )]
    fn multiply<T: Real>(&self, rows: &mut [T], matrix: &[f32]) {
        let inner = self.size / self.order;
        let norm = 1.0 / (self.size as f64).sqrt();
        let norm = T::from_f64(norm).unwrap_or_else(T::one);
        let whole = rows.len() / self.size * self.size;
        let rows = &mut rows[..whole];
        wide(Blocks {
            rows,
            size: inner,
            norm,
        });
        if self.order > 1 {
            mix(rows, matrix, self.order, inner);
        }
    }
}

/// Blocks of a power of two of elements, transformed and multiplied by a norm.
struct Blocks<'a, T> {
    rows: &'a mut [T],
    size: usize,
    norm: T,
}

impl<T: Real> Loops for Blocks<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for block in self.rows.chunks_exact_mut(self.size) {
            sylvester(block);
            for value in block {
                *value = *value * self.norm;
            }
        }
    }
}

/// Multiplies each row, as `order` entries of `inner` consecutive elements, by the matrix: entry
/// `i` becomes `Σ_j entry[j] · matrix[j][i]`.
fn mix<T: Real>(rows: &mut [T], matrix: &[f32], order: usize, inner: usize) {
    /// Rows of single elements that are multiplied together.
    const ROWS: usize = 64;
    let matrix: Array1<T> = matrix.iter().map(|&sign| T::of_f32(sign)).collect();
    let Ok(matrix) = matrix.into_shape_with_order((order, order)) else {
        return;
    };
    let (one, zero) = (T::one(), T::zero());
    let together = if inner == 1 { ROWS } else { 1 };
    let mut mixed = vec![zero; together.min(rows.len() / order) * order * inner];
    for rows in rows.chunks_mut(order * inner * together) {
        let mixed = &mut mixed[..rows.len()];
        let count = rows.len() / order;
        if inner == 1 {
            let shape = (count, order);
            if let (Ok(rows), Ok(mut out)) = (
                ArrayView2::from_shape(shape, &*rows),
                ArrayViewMut2::from_shape(shape, &mut *mixed),
            ) {
                general_mat_mul(one, &rows, &matrix, zero, &mut out);
            }
        } else {
            let shape = (order, inner);
            if let (Ok(row), Ok(mut out)) = (
                ArrayView2::from_shape(shape, &*rows),
                ArrayViewMut2::from_shape(shape, &mut *mixed),
            ) {
                general_mat_mul(one, &matrix.t(), &row, zero, &mut out);
            }
        }
        rows.copy_from_slice(mixed);
    }
}

/// The transform by Sylvester's matrix, of a power of two of elements, without a norm.
///
/// Two stages at a time, so that each element is read and written half as often.
#[inline(always)]
fn sylvester<T: Real>(x: &mut [T]) {
    let mut half = 1;
    if x.len() >= 8 {
        for eight in x.chunks_exact_mut(8) {
            butterflies_of_eight(eight);
        }
        half = 8;
    }
    while 4 * half <= x.len() {
        for whole in x.chunks_exact_mut(4 * half) {
            let (low, high) = whole.split_at_mut(2 * half);
            let (a, b) = low.split_at_mut(half);
            let (c, d) = high.split_at_mut(half);
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (ab, cd) = ((*a + *b, *a - *b), (*c + *d, *c - *d));
                (*a, *b) = (ab.0 + cd.0, ab.1 + cd.1);
                (*c, *d) = (ab.0 - cd.0, ab.1 - cd.1);
            }
        }
        half *= 4;
    }
    if 2 * half <= x.len() {
        for whole in x.chunks_exact_mut(2 * half) {
            let (a, b) = whole.split_at_mut(half);
            for (a, b) in a.iter_mut().zip(b) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
    }
}

/// The first three stages, in registers.
#[inline(always)]
fn butterflies_of_eight<T: Real>(x: &mut [T]) {
    let &mut [a, b, c, d, e, f, g, h] = x else {
        return;
    };
    let (a, b, c, d) = (a + b, a - b, c + d, c - d);
    let (e, f, g, h) = (e + f, e - f, g + h, g - h);
    let (a, c, b, d) = (a + c, a - c, b + d, b - d);
    let (e, g, f, h) = (e + g, e - g, f + h, f - h);
    let all = [a + e, b + f, c + g, d + h, a - e, b - f, c - g, d - h];
    x.copy_from_slice(&all);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The matrix, entry by entry.
    fn sign(hadamard: &Hadamard, i: usize, j: usize) -> f64 {
        let inner = hadamard.size / hadamard.order;
        let outer = hadamard.matrix[i / inner * hadamard.order + j / inner];
        let same = ((i % inner) & (j % inner)).count_ones().is_multiple_of(2);
        f64::from(if same { outer } else { -outer })
    }

    #[test]
    fn the_fast_transform_is_the_product_with_the_matrix_and_undo_its_inverse() {
        for size in [
            1, 2, 4, 8, 16, 32, 64, 128, 512, 12, 24, 40, 144, 172, 576, 344, 688, 2048,
        ] {
            let hadamard = Hadamard::new(size).unwrap();
            let row: Vec<f64> = (0..size).map(|i| ((i * i) as f64 * 0.37).sin()).collect();
            let mut fast = row.clone();
            hadamard.apply(&mut fast);
            for (j, &fast) in fast.iter().enumerate() {
                let dense: f64 = (0..size).map(|i| row[i] * sign(&hadamard, i, j)).sum();
                approx::assert_abs_diff_eq!(fast, dense / (size as f64).sqrt(), epsilon = 1e-12);
            }
            hadamard.undo(&mut fast);
            for (back, &x) in fast.iter().zip(&row) {
                approx::assert_abs_diff_eq!(*back, x, epsilon = 1e-13);
            }
            // Several rows at once, in f32, are each row on its own.
            let narrow: Vec<f32> = (0..2 * size).map(|i| (i as f32).cos()).collect();
            let (mut both, mut apart) = (narrow.clone(), narrow);
            hadamard.apply(&mut both);
            apart.chunks_mut(size).for_each(|row| hadamard.apply(row));
            assert_eq!(both, apart);
        }
    }
}
