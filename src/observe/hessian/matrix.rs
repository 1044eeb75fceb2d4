//! A Hessian from a matrix that was computed elsewhere: transformed, or read from a file.

use ndarray::{ArrayRef2, s};

use super::Hessian;
use crate::{
    affine::same_shape,
    error::{Error, Result},
    linalg::{TILE, Upper},
};

impl Hessian {
    /// A Hessian whose [`matrix`](Self::matrix) is this one, `[in, in]`, the sum over so many rows
    /// of inputs; more rows may be observed.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless it is square; [`Error::NonFinite`] for a NaN or an infinity;
    /// [`Error::Mismatch`] unless it is symmetric and no element is greater in magnitude than
    /// `√(Hᵢᵢ Hⱼⱼ)`, both to one part in a thousand, which holds for every sum of products of
    /// inputs; [`Error::InvalidOption`] for no rows; those of [`Hessian::new`].
    ///
    /// What rounding leaves of an input that is 0, up to `1e-5 max Hᵢᵢ`, passes; where it makes a
    /// square negative, that input counts as one that nothing reached.
    ///
    /// ```
    /// use lowbit::observe::Hessian;
    /// use ndarray::array;
    /// let matrix = array![[4.0, -1.0], [-1.0, 2.0]];
    /// assert_eq!(Hessian::from_matrix(&matrix, 10)?.matrix()?, matrix);
    /// assert!(Hessian::from_matrix(&array![[1.0, 5.0], [5.0, 1.0]], 10).is_err());
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn from_matrix(matrix: &ArrayRef2<f64>, tokens: u64) -> Result<Self> {
        let columns = matrix.ncols();
        let mut hessian = Self::new(columns)?;
        same_shape("Hessian", &[columns; 2], matrix.shape())?;
        if tokens == 0 {
            return Err(Error::option("rows of inputs", "at least 1", 0));
        }
        check_moments(matrix)?;
        let dead: Vec<bool> = matrix.diag().iter().map(|&square| square <= 0.0).collect();
        let mut upper = Upper::zeros(columns)?;
        for (index, strip) in upper.strips_mut().iter_mut().enumerate() {
            let start = index * TILE;
            let rows = start..start + strip.nrows();
            strip.assign(&matrix.slice(s![rows, start..]));
            for (row, mut values) in strip.rows_mut().into_iter().enumerate() {
                if dead[start + row] {
                    values.fill(0.0);
                }
            }
            for (mut values, dead) in strip.columns_mut().into_iter().zip(&dead[start..]) {
                if *dead {
                    values.fill(0.0);
                }
            }
            // Exactly symmetric, as the sums are.
            for row in 0..strip.nrows() {
                for column in 0..row {
                    strip[[row, column]] = strip[[column, row]];
                }
            }
        }
        (hessian.tokens, hessian.sum) = (tokens, Some(upper));
        Ok(hessian)
    }
}

/// Squares are not negative, no product is greater than those of the two columns' own, and the
/// order of the factors does not matter.
fn check_moments(matrix: &ArrayRef2<f64>) -> Result<()> {
    const BOUND: f64 = 1e-3;
    let slack = 1e-5
        * matrix
            .diag()
            .fold(0.0_f64, |most, &square| most.max(square));
    for ((row, column), &value) in matrix.indexed_iter() {
        if !value.is_finite() {
            return Err(Error::NonFinite {
                what: "Hessian",
                expected: "finite numbers",
                position: vec![row, column],
                value,
            });
        }
        let (a, b) = (matrix[[row, row]], matrix[[column, column]]);
        let limit = a.max(0.0).sqrt() * b.max(0.0).sqrt();
        let mirrored = matrix[[column, row]];
        let possible = value.abs() <= (1.0 + BOUND) * limit + slack && a.min(b) >= -slack;
        if !possible || (value - mirrored).abs() > BOUND * limit + slack {
            return Err(Error::Mismatch {
                what: "Hessian",
                expected: "a symmetric matrix of sums of products of inputs".into(),
                got: format!(
                    "{value} at [{row}, {column}] and {mirrored} across, beside {a} and {b}"
                ),
            });
        }
    }
    Ok(())
}
