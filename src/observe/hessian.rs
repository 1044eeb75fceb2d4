//! The second moments of a layer's inputs, which say what an error in its weights costs.

mod matrix;
#[cfg(feature = "serde")]
mod stored;

use ndarray::{Array1, Array2, ArrayRef, ArrayRef2, ArrayView2, Axis, Dimension, s};

use super::products::{ROWS, add_product, check_finite, normalize, rows_of, stage};
use crate::{
    affine::same_shape,
    error::{Error, Result},
    groups::element_count,
    linalg::{TILE, Upper, tiles_of, zeros},
    parallel::{for_each, map_pieces},
};

/// The sum of `xᵀ x` over the input rows `x` of a linear layer: `H = Xᵀ X`, `[in, in]`.
///
/// The squared error of the layer's outputs that a change `δ` of a row of its weights causes is
/// `δ H δᵀ`; [`Gptq`](crate::ptq::Gptq) and other methods work on it. (The Hessian of that error is
/// `2 H`; the factor changes nothing that they do.)
///
/// **Exactness.** Rows are gathered until there are 256, multiplied in f32 after scaling by a power
/// of two, so that no magnitude overflows, and added in f64: the relative error of an element is
/// that of a sum of 256 floats, about 1e-6 of `√(Hᵢᵢ Hⱼⱼ)`, however many rows come. (All in f64
/// takes twice as long and gives codes that do not differ.) How rows are cut into batches changes no
/// bit; nor does the number of threads.
///
/// **Memory.** The upper triangle in f64, `4 in²` bytes, as much as the whole in f32; and 256 rows
/// of inputs, `1024 in` bytes. Nothing is allocated before the first batch.
///
/// ```
/// use lowbit::observe::Hessian;
/// use ndarray::array;
///
/// let mut hessian = Hessian::new(2)?;
/// hessian.observe(&array![[1.0_f32, 2.0], [3.0, 0.0]])?; // [tokens, in]
/// hessian.observe(&array![[[0.0_f32, 1.0]]])?; // [batch, tokens, in]
/// assert_eq!(hessian.matrix()?, array![[10.0, 2.0], [2.0, 5.0]]);
/// assert_eq!(hessian.tokens(), 3);
///
/// // what it costs to change weights [out, in] by this much
/// assert_eq!(hessian.error(&array![[1.0_f32, -1.0]])?, 11.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Hessian {
    columns: usize,
    tokens: u64,
    /// Without the rows that are still staged; `None` before the first product.
    sum: Option<Upper>,
    staged: Array2<f32>,
}

impl Hessian {
    /// Nothing seen yet, for a layer of so many inputs.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no input; [`Error::TooLarge`] if no memory can hold the matrix.
    pub fn new(columns: usize) -> Result<Self> {
        if columns == 0 {
            return Err(Error::option("columns of the Hessian", "at least 1", 0));
        }
        element_count("matrix", &[columns, columns, size_of::<f64>()])?;
        Ok(Self {
            columns,
            tokens: 0,
            sum: None,
            staged: Array2::zeros((0, columns)),
        })
    }

    /// Takes a batch of inputs `[…, in]` of any layout into account. One that is refused changes
    /// nothing.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the last axis is as long as the layer has inputs;
    /// [`Error::NonFinite`] with the position of the first NaN or infinity; [`Error::TooLarge`] if
    /// there is no memory for the matrix.
    pub fn observe<D: Dimension>(&mut self, batch: &ArrayRef<f32, D>) -> Result<()> {
        let batch = rows_of(batch, self.columns)?;
        if batch.is_empty() {
            return Ok(());
        }
        let sum = match &mut self.sum {
            Some(sum) => sum,
            empty => empty.insert(Upper::zeros(self.columns)?),
        };
        let mut rest = batch.view();
        while rest.nrows() > 0 {
            rest = stage(&mut self.staged, rest)?;
            if self.staged.nrows() == ROWS {
                add_square(sum, &mut self.staged);
                self.staged = Array2::zeros((0, self.columns));
            }
        }
        self.tokens += batch.nrows() as u64;
        Ok(())
    }

    /// Adds what another one has seen, as if this one had seen it too.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the other layer has another number of inputs.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        same_shape("Hessian", &[self.columns; 2], &[other.columns; 2])?;
        let Some(theirs) = &other.sum else {
            return Ok(());
        };
        match &mut self.sum {
            None => self.sum = Some(theirs.clone()),
            Some(ours) => {
                for (ours, theirs) in ours.strips_mut().iter_mut().zip(theirs.strips()) {
                    *ours += theirs;
                }
            }
        }
        self.tokens += other.tokens - other.staged.nrows() as u64;
        self.observe(&other.staged)
    }

    /// Forgets all that was seen.
    pub fn reset(&mut self) {
        self.tokens = 0;
        self.sum = None;
        self.staged = Array2::zeros((0, self.columns));
    }

    /// Inputs of the layer.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Rows seen.
    #[must_use]
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// The matrix, `[in, in]`, symmetric.
    ///
    /// # Errors
    /// [`Error::TooLarge`] if there is no memory for it.
    pub fn matrix(&self) -> Result<Array2<f64>> {
        let order: Vec<usize> = (0..self.columns).collect();
        let upper = self.upper(&order)?;
        let mut matrix = zeros(self.columns, self.columns)?;
        for (index, strip) in upper.strips().iter().enumerate() {
            let start = index * TILE;
            let rows = start..start + strip.nrows();
            matrix.slice_mut(s![rows, start..]).assign(strip);
        }
        for row in 0..self.columns {
            for column in 0..row {
                matrix[[row, column]] = matrix[[column, row]];
            }
        }
        Ok(matrix)
    }

    /// The sum of the squares of each input: how much it counts, to first order.
    #[must_use]
    pub fn diagonal(&self) -> Array1<f64> {
        let mut diagonal = match &self.sum {
            None => Array1::zeros(self.columns),
            Some(sum) => sum.diagonal(),
        };
        for row in self.staged.rows() {
            diagonal.zip_mut_with(&row, |sum, &x| *sum += f64::from(x) * f64::from(x));
        }
        diagonal
    }

    /// The squared error of the layer's outputs, summed over all outputs and all rows seen, that a
    /// change `δ` of its weights `[out, in]` causes: `Σ δ H δᵀ`. In real units, squared; divide by
    /// `tokens · out` for the mean.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the change has as many columns as the layer inputs;
    /// [`Error::NonFinite`] for a NaN or an infinity in it.
    pub fn error(&self, delta: &ArrayRef2<f32>) -> Result<f64> {
        Ok(self.row_errors(delta)?.iter().sum())
    }

    /// As [`error`](Self::error), for each output: `[out]`.
    ///
    /// # Errors
    /// Those of [`error`](Self::error).
    pub fn row_errors(&self, delta: &ArrayRef2<f32>) -> Result<Array1<f64>> {
        same_shape("change", &[delta.nrows(), self.columns], delta.shape())?;
        check_finite("change", delta)?;
        let pieces = map_pieces(delta.nrows(), 64, |rows| {
            let delta = delta.slice(s![rows, ..]).mapv(f64::from);
            self.errors_of(delta.view())
        });
        Ok(pieces.into_iter().flatten().collect())
    }

    fn errors_of(&self, delta: ArrayView2<'_, f64>) -> Vec<f64> {
        let mut errors = vec![0.0; delta.nrows()];
        let strips = self.sum.as_ref().map_or(&[][..], Upper::strips);
        for (index, strip) in strips.iter().enumerate() {
            let start = index * TILE;
            let end = start + strip.nrows();
            // The tile on the diagonal counts once, those right of it twice.
            let products = delta.slice(s![.., start..end]).dot(strip);
            for ((error, product), delta) in
                errors.iter_mut().zip(products.rows()).zip(delta.rows())
            {
                let sum = |from: usize, to: usize| {
                    let product = product.slice(s![from - start..to - start]);
                    product.dot(&delta.slice(s![from..to]))
                };
                *error += sum(start, end) + 2.0 * sum(end, self.columns);
            }
        }
        let staged = self.staged.mapv(f64::from);
        let outputs = delta.dot(&staged.t());
        for (error, outputs) in errors.iter_mut().zip(outputs.rows()) {
            // Rounding can leave a sum of squares below 0.
            *error = (*error + outputs.dot(&outputs)).max(0.0);
        }
        errors
    }

    /// The upper triangle of the matrix with its rows and columns in another order.
    pub(crate) fn upper(&self, order: &[usize]) -> Result<Upper> {
        let mut upper = Upper::zeros(self.columns)?;
        if let Some(sum) = &self.sum {
            let strips = upper.strips_mut().iter_mut().enumerate().collect();
            for_each(strips, |(index, strip): (usize, &mut Array2<f64>)| {
                let start = index * TILE;
                for (mut values, &row) in strip.rows_mut().into_iter().zip(&order[start..]) {
                    for (value, &column) in values.iter_mut().zip(&order[start..]) {
                        *value = sum.symmetric(row, column);
                    }
                }
            });
        }
        if self.staged.nrows() > 0 {
            add_square(&mut upper, &mut self.staged.select(Axis(1), order));
        }
        Ok(upper)
    }
}

/// Adds `Xᵀ X`; leaves the rows scaled.
fn add_square(sum: &mut Upper, rows: &mut Array2<f32>) {
    let unit = normalize(rows);
    let rows = &*rows;
    let tiles = sum.strips_mut().iter_mut().enumerate();
    let tiles = tiles.flat_map(|(index, strip)| {
        let start = index * TILE;
        tiles_of(strip.view_mut(), start, start)
    });
    for_each(tiles.collect(), |(row, column, tile)| {
        add_product(tile, (row, rows), (column, rows), unit * unit);
    });
}
