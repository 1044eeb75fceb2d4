//! The factor of a symmetric positive definite matrix.

use ndarray::{Array2, ArrayRef2, ArrayViewMut2, Axis, linalg::general_mat_mul, s};

use super::{TILE, Upper};
use crate::{
    parallel::for_each,
    simd::{Loops, wide},
};

/// A pivot at most this part of the element it comes from is rounding noise.
const NOISE: f64 = 1e-12;

/// Replaces the upper triangle of `H` by the upper triangular `R` with `H = R Rᵀ`; `false` if `H`
/// is not positive definite, to rounding: its values are then lost.
///
/// That is Cholesky's factor from the last column to the first. `U = R⁻¹` is the upper factor of
/// the inverse, `H⁻¹ = Uᵀ U`, which papers compute by two factorizations and an inverse; who uses
/// `R` itself does a quarter of that work and rounds less. The cost is `n³ / 3` operations.
pub(crate) fn factor(h: &mut Upper) -> bool {
    let strips = h.strips_mut();
    for last in (0..strips.len()).rev() {
        let (above, strip) = strips.split_at_mut(last);
        let Some(strip) = strip.first_mut() else {
            return false;
        };
        let rows = strip.nrows();
        let (mut diagonal, right) = strip.view_mut().split_at(Axis(1), rows);
        let right = right.view();
        let own: Vec<f64> = diagonal.diag().to_vec();
        general_mat_mul(-1.0, &right, &right.t(), 1.0, &mut diagonal);
        if !wide(FactorTile(&mut diagonal, &own)) {
            return false;
        }
        let inverse = wide(InverseOfTile(&diagonal));
        let above = above.iter_mut().enumerate().collect();
        for_each(above, |(index, strip): (usize, &mut Array2<f64>)| {
            let left = (last - index) * TILE;
            let (_, rest) = strip.view_mut().split_at(Axis(1), left);
            let (mut tile, beyond) = rest.split_at(Axis(1), rows);
            general_mat_mul(-1.0, &beyond, &right.t(), 1.0, &mut tile);
            let solved = tile.dot(&inverse.t());
            tile.assign(&solved);
        });
    }
    true
}

/// Replaces the upper triangle of `C` by that of `X` with `X Rᵀ = C`, for the `R` of [`factor`]; what
/// is below the diagonal tiles stays. The cost is `n³ / 3` operations.
pub(crate) fn solve(r: &Upper, c: &mut Array2<f64>) {
    let tiles = r.strips().iter().map(|strip| {
        let rows = strip.nrows();
        wide(InverseOfTile(&strip.slice(s![.., ..rows])))
    });
    let inverses: Vec<Array2<f64>> = tiles.collect();
    let strips = c.axis_chunks_iter_mut(Axis(0), TILE).enumerate().collect();
    for_each(strips, |(index, mut strip)| {
        for last in (index..inverses.len()).rev() {
            let (start, rows) = (last * TILE, inverses[last].nrows());
            let (left, beyond) = strip.view_mut().split_at(Axis(1), start + rows);
            let (_, mut tile) = left.split_at(Axis(1), start);
            let right = r.strips()[last].slice(s![.., rows..]);
            general_mat_mul(-1.0, &beyond, &right.t(), 1.0, &mut tile);
            let solved = tile.dot(&inverses[last].t());
            tile.assign(&solved);
        }
    });
}

/// As [`factor`], of one tile; the elements below the diagonal become 0. With it come the elements
/// of the diagonal before other columns were taken off.
struct FactorTile<'a, 'v>(&'a mut ArrayViewMut2<'v, f64>, &'a [f64]);

impl Loops for FactorTile<'_, '_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let Self(tile, own) = self;
        let mut column = vec![0.0; tile.nrows()];
        for last in (0..tile.nrows()).rev() {
            let square = tile[[last, last]];
            if !(square > NOISE * own[last] && square.is_finite()) {
                return false;
            }
            let pivot = square.sqrt();
            tile[[last, last]] = pivot;
            for (row, value) in column[..last].iter_mut().enumerate() {
                *value = tile[[row, last]] / pivot;
                tile[[row, last]] = *value;
                tile[[last, row]] = 0.0;
            }
            for (row, &factor) in column[..last].iter().enumerate() {
                let mut values = tile.row_mut(row);
                let values = values.as_slice_mut().unwrap_or_default();
                for (value, other) in values[row..last].iter_mut().zip(&column[row..last]) {
                    *value -= factor * other;
                }
            }
        }
        true
    }
}

/// The inverse of an upper triangular tile.
struct InverseOfTile<'a>(&'a ArrayRef2<f64>);

impl Loops for InverseOfTile<'_> {
    type Output = Array2<f64>;

    #[inline(always)]
    fn run(self) -> Array2<f64> {
        let Self(tile) = self;
        let n = tile.nrows();
        let mut inverse = Array2::zeros((n, n));
        for row in (0..n).rev() {
            let pivot = tile[[row, row]];
            let (mut upper, lower) = inverse.view_mut().split_at(Axis(0), row + 1);
            let mut values = upper.row_mut(row);
            let values = values.as_slice_mut().unwrap_or_default();
            for (below, other) in lower.rows().into_iter().enumerate() {
                let column = row + 1 + below;
                let factor = tile[[row, column]] / pivot;
                let other = other.to_slice().unwrap_or_default();
                for (value, other) in values[column..].iter_mut().zip(&other[column..]) {
                    *value -= factor * other;
                }
            }
            values[row] = pivot.recip();
        }
        inverse
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `A Aᵀ` with what `A` has left of the diagonal too, so that it is far from triangular.
    fn positive(n: usize) -> (Upper, Array2<f64>) {
        let a = Array2::from_shape_fn((n, n + 3), |(i, j)| {
            ((i * 31 + j * 17 + i * j * 7) % 101) as f64 / 50.0 - 1.0
        });
        let h = a.dot(&a.t()) + Array2::<f64>::eye(n) * 0.1;
        let mut upper = Upper::zeros(n).unwrap();
        for i in 0..n {
            for j in i..n {
                *upper.at_mut(i, j) = h[[i, j]];
            }
        }
        (upper, h)
    }

    fn triangle(upper: &Upper) -> Array2<f64> {
        let n = upper.columns();
        Array2::from_shape_fn(
            (n, n),
            |(i, j)| {
                if i <= j { upper.symmetric(i, j) } else { 0.0 }
            },
        )
    }

    #[test]
    fn the_factor_times_its_transpose_is_the_matrix_on_both_sides_of_every_tile_edge() {
        for n in [1, 2, 3, 17, TILE - 1, TILE, TILE + 1, 2 * TILE + 5] {
            let (mut upper, h) = positive(n);
            assert!(factor(&mut upper));
            let r = triangle(&upper);
            assert!(r.diag().iter().all(|&pivot| pivot > 0.0));
            let scale = h.diag().iter().fold(0.0_f64, |a, &b| a.max(b));
            for (a, b) in r.dot(&r.t()).iter().zip(&h) {
                assert!((a - b).abs() < 1e-12 * scale, "{n}: {a} {b}");
            }
        }
    }

    #[test]
    fn its_inverse_is_the_upper_factor_of_the_inverse() {
        let (mut upper, h) = positive(40);
        assert!(factor(&mut upper));
        let u = wide(InverseOfTile(&triangle(&upper)));
        let identity = u.t().dot(&u).dot(&h);
        for ((i, j), &value) in identity.indexed_iter() {
            assert!((value - f64::from(u8::from(i == j))).abs() < 1e-8);
            assert!(i <= j || u[[i, j]] == 0.0);
        }
    }

    #[test]
    fn a_system_is_solved_above_the_diagonal() {
        for n in [1, 30, TILE, 2 * TILE + 9] {
            let (mut upper, h) = positive(n);
            assert!(factor(&mut upper));
            let c = h.slice(s![.., ..;-1]).to_owned();
            let mut x = c.clone();
            solve(&upper, &mut x);
            // Each row by back substitution from the last column on.
            let r = triangle(&upper);
            for i in [0, n / 2, n - 1] {
                let mut expected = vec![0.0; n];
                for j in (i..n).rev() {
                    let sum: f64 = (j + 1..n).map(|k| expected[k] * r[[j, k]]).sum();
                    expected[j] = (c[[i, j]] - sum) / r[[j, j]];
                    approx::assert_relative_eq!(
                        x[[i, j]],
                        expected[j],
                        max_relative = 1e-6,
                        epsilon = 1e-8
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_is_found_out() {
        for n in [3, TILE + 40] {
            for bad in [0, n / 2, n - 1] {
                for value in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
                    let (mut upper, _) = positive(n);
                    *upper.at_mut(bad, bad) = value;
                    assert!(!factor(&mut upper), "{n} {bad} {value}");
                }
            }
        }
        // Rank 1.
        let mut upper = Upper::zeros(300).unwrap();
        for i in 0..300 {
            for j in i..300 {
                *upper.at_mut(i, j) = (1.0 + i as f64) * (1.0 + j as f64);
            }
        }
        assert!(!factor(&mut upper));
    }
}
