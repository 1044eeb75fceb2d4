//! How far a layer's inputs have strayed, because the layers before it are quantized already.

#[cfg(feature = "serde")]
mod stored;

use ndarray::{Array2, ArrayRef, ArrayRef2, ArrayView2, Axis, Dimension};

use super::{
    Hessian,
    products::{ROWS, add_product, normalize, rows_of, stage},
};
use crate::{
    affine::same_shape,
    error::{Error, Result},
    linalg::{TILE, tiles_of, zeros},
    parallel::for_each,
};

/// The Hessian of a layer's inputs `X̂`, which come from quantized layers, together with
/// `(X − X̂)ᵀ X̂`, `[in, in]`, where `X` are the inputs of the float model: what asymmetric
/// calibration needs ([`Gptq::asymmetric`](crate::ptq::Gptq::asymmetric)).
///
/// Exact as [`Hessian`] is, and merged as it is. It takes `8 in²` bytes beside the Hessian's, and
/// 256 rows of both.
///
/// ```
/// use lowbit::observe::InputDeviation;
/// use ndarray::array;
///
/// let mut deviation = InputDeviation::new(2)?;
/// deviation.observe(&array![[1.0_f32, 2.0]], &array![[1.5_f32, 2.0]])?; // float, quantized
/// assert_eq!(deviation.hessian().matrix()?, array![[2.25, 3.0], [3.0, 4.0]]);
/// assert_eq!(deviation.cross()?, array![[-0.75, -1.0], [0.0, 0.0]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct InputDeviation {
    hessian: Hessian,
    /// Without the rows that are still staged; `None` before the first product.
    sum: Option<Array2<f64>>,
    /// `X − X̂`.
    staged: Array2<f32>,
    /// `X̂`.
    staged_inputs: Array2<f32>,
}

impl InputDeviation {
    /// Nothing seen yet, for a layer of so many inputs.
    ///
    /// # Errors
    /// Those of [`Hessian::new`].
    pub fn new(columns: usize) -> Result<Self> {
        Ok(Self {
            hessian: Hessian::new(columns)?,
            sum: None,
            staged: Array2::zeros((0, columns)),
            staged_inputs: Array2::zeros((0, columns)),
        })
    }

    /// What has been seen when the Hessian of `X̂` and `(X − X̂)ᵀ X̂`, `[in, in]`, are these: of
    /// transformed inputs, for instance. More may be observed.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) unless there is a row and a column for
    /// each input; [`Error::NonFinite`](crate::Error::NonFinite) for a NaN or an infinity.
    ///
    /// ```
    /// use lowbit::observe::{Hessian, InputDeviation};
    /// use ndarray::array;
    /// let hessian = Hessian::from_matrix(&array![[2.0, 1.0], [1.0, 2.0]], 5)?;
    /// let cross = array![[0.5, 0.0], [-0.25, 1.0]];
    /// assert_eq!(InputDeviation::from_parts(hessian, &cross)?.cross()?, cross);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn from_parts(hessian: Hessian, cross: &ArrayRef2<f64>) -> Result<Self> {
        let columns = hessian.columns();
        same_shape(
            "products of deviations and inputs",
            &[columns; 2],
            cross.shape(),
        )?;
        if let Some(((row, column), &value)) = cross.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::NonFinite {
                what: "products of deviations and inputs",
                expected: "finite numbers",
                position: vec![row, column],
                value,
            });
        }
        let mut deviation = Self::new(columns)?;
        deviation.hessian = hessian;
        deviation.sum = Some(cross.to_owned());
        Ok(deviation)
    }

    /// Takes a batch `[…, in]` into account, as the float model has it and as the partly quantized
    /// one has it. A pair that is refused changes nothing.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the two differ in shape; those of
    /// [`Hessian::observe`].
    pub fn observe<D: Dimension>(
        &mut self,
        float: &ArrayRef<f32, D>,
        quantized: &ArrayRef<f32, D>,
    ) -> Result<()> {
        same_shape(
            "batch of the quantized model",
            float.shape(),
            quantized.shape(),
        )?;
        let columns = self.hessian.columns();
        let float = rows_of(float, columns)?;
        let inputs = rows_of(quantized, columns)?;
        let difference = &float - &inputs;
        let difference = rows_of(&difference, columns)?;
        if self.sum.is_none() && !inputs.is_empty() {
            self.sum = Some(zeros(columns, columns)?);
        }
        self.hessian.observe(quantized)?;
        self.add(difference.view(), inputs.view())
    }

    fn add(
        &mut self,
        mut rest: ArrayView2<'_, f32>,
        mut inputs: ArrayView2<'_, f32>,
    ) -> Result<()> {
        let columns = self.hessian.columns();
        while rest.nrows() > 0 {
            rest = stage(&mut self.staged, rest)?;
            inputs = stage(&mut self.staged_inputs, inputs)?;
            if let (ROWS, Some(sum)) = (self.staged.nrows(), &mut self.sum) {
                add_cross(sum, &mut self.staged, &mut self.staged_inputs);
                self.staged = Array2::zeros((0, columns));
                self.staged_inputs = Array2::zeros((0, columns));
            }
        }
        Ok(())
    }

    /// Adds what another one has seen, as if this one had seen it too.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the other layer has another number
    /// of inputs.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.hessian.merge(&other.hessian)?;
        match (&mut self.sum, &other.sum) {
            (_, None) => return Ok(()),
            (None, Some(theirs)) => self.sum = Some(theirs.clone()),
            (Some(ours), Some(theirs)) => *ours += theirs,
        }
        self.add(other.staged.view(), other.staged_inputs.view())
    }

    /// Forgets all that was seen.
    pub fn reset(&mut self) {
        let columns = self.hessian.columns();
        self.hessian.reset();
        self.sum = None;
        self.staged = Array2::zeros((0, columns));
        self.staged_inputs = Array2::zeros((0, columns));
    }

    /// `X̂ᵀ X̂`.
    #[must_use]
    pub fn hessian(&self) -> &Hessian {
        &self.hessian
    }

    /// `(X − X̂)ᵀ X̂`, `[in, in]`, summed over all rows seen.
    ///
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) if there is no memory for it.
    pub fn cross(&self) -> Result<Array2<f64>> {
        let order: Vec<usize> = (0..self.hessian.columns()).collect();
        self.cross_in_order(&order)
    }

    /// [`cross`](Self::cross) with its rows and columns in another order.
    pub(crate) fn cross_in_order(&self, order: &[usize]) -> Result<Array2<f64>> {
        let mut cross = zeros(order.len(), order.len())?;
        if let Some(sum) = &self.sum {
            for (mut values, &row) in cross.rows_mut().into_iter().zip(order) {
                for (value, &column) in values.iter_mut().zip(order) {
                    *value = sum[[row, column]];
                }
            }
        }
        if self.staged.nrows() > 0 {
            let in_order = |rows: &Array2<f32>| rows.select(Axis(1), order);
            let (mut staged, mut inputs) = (in_order(&self.staged), in_order(&self.staged_inputs));
            add_cross(&mut cross, &mut staged, &mut inputs);
        }
        Ok(cross)
    }
}

/// Adds `leftᵀ · right`; leaves both scaled.
fn add_cross(sum: &mut Array2<f64>, left: &mut Array2<f32>, right: &mut Array2<f32>) {
    let unit = normalize(left) * normalize(right);
    let (left, right) = (&*left, &*right);
    let strips = sum.axis_chunks_iter_mut(Axis(0), TILE).enumerate();
    let tiles = strips.flat_map(|(index, strip)| tiles_of(strip, index * TILE, 0));
    for_each(tiles.collect(), |(row, column, tile)| {
        add_product(tile, (row, left), (column, right), unit);
    });
}
