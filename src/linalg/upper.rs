//! The upper triangle of a square matrix.

use ndarray::{Array1, Array2, ArrayViewMut2, Axis};

use crate::error::{Error, Result};

/// Rows of a strip, and columns of a tile of one: products of tiles of this size run at full speed.
pub(crate) const TILE: usize = 256;

/// The upper triangle of a square matrix, in strips of [`TILE`] rows from the diagonal tile to the
/// last column: half the memory of the matrix, but for the diagonal tiles, which are whole.
///
/// `4 n² + 4 n · TILE` bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Upper {
    strips: Vec<Array2<f64>>,
}

impl Upper {
    /// Zeros.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if there is not so much memory.
    pub(crate) fn zeros(columns: usize) -> Result<Self> {
        let strip = |start: usize| {
            let (rows, width) = (TILE.min(columns - start), columns - start);
            zeros(rows, width)
        };
        let strips = (0..columns).step_by(TILE).map(strip);
        Ok(Self {
            strips: strips.collect::<Result<_>>()?,
        })
    }

    /// The strips, from the first row on; strip `i` holds columns `i · TILE..`.
    pub(crate) fn strips(&self) -> &[Array2<f64>] {
        &self.strips
    }

    pub(crate) fn strips_mut(&mut self) -> &mut [Array2<f64>] {
        &mut self.strips
    }

    pub(crate) fn columns(&self) -> usize {
        self.strips.first().map_or(0, Array2::ncols)
    }

    /// The element of a symmetric matrix at a row and a column.
    pub(crate) fn symmetric(&self, row: usize, column: usize) -> f64 {
        let (row, column) = (row.min(column), row.max(column));
        let strip = row / TILE;
        self.strips[strip][[row - strip * TILE, column - strip * TILE]]
    }

    /// The element at a row and a column that is not left of it.
    pub(crate) fn at_mut(&mut self, row: usize, column: usize) -> &mut f64 {
        let strip = row / TILE;
        &mut self.strips[strip][[row - strip * TILE, column - strip * TILE]]
    }

    /// The element across the diagonal, within a tile on it.
    #[cfg(feature = "serde")]
    pub(crate) fn mirror_mut(&mut self, row: usize, column: usize) -> &mut f64 {
        let (strip, start) = (row / TILE, row / TILE * TILE);
        &mut self.strips[strip][[column - start, row - start]]
    }

    pub(crate) fn diagonal(&self) -> Array1<f64> {
        self.strips
            .iter()
            .flat_map(|strip| strip.diag().into_iter().copied())
            .collect()
    }
}

/// The tiles of a matrix, each with the row and the column it starts at.
///
/// Those of the first rows come first; for an [`Upper`], call it with each strip.
pub(crate) fn tiles_of<T>(
    strip: ArrayViewMut2<'_, T>,
    row: usize,
    column: usize,
) -> impl Iterator<Item = (usize, usize, ArrayViewMut2<'_, T>)> {
    let mut rest = Some(strip);
    let mut at = column;
    std::iter::from_fn(move || {
        let strip = rest.take().filter(|strip| strip.ncols() > 0)?;
        let width = TILE.min(strip.ncols());
        let (tile, others) = strip.split_at(Axis(1), width);
        let start = at;
        at += width;
        rest = Some(others);
        Some((row, start, tile))
    })
}

/// A matrix of zeros.
///
/// # Errors
/// [`Error::TooLarge`] if there is not so much memory.
pub(crate) fn zeros<T: Clone + Default>(rows: usize, columns: usize) -> Result<Array2<T>> {
    let mut values = Vec::new();
    let len = rows.checked_mul(columns);
    let len = len.filter(|&len| values.try_reserve_exact(len).is_ok());
    let len = len.ok_or_else(|| Error::TooLarge {
        what: "matrix",
        got: format!("{rows} × {columns}"),
    })?;
    values.resize(len, T::default());
    Array2::from_shape_vec((rows, columns), values).map_err(Error::other)
}
