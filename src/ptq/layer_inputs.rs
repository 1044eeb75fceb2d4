//! What is known of the inputs of a layer, and so what an error in its weights costs.

use std::sync::Arc;

use ndarray::{Array1, Array2, ArrayRef, ArrayRef1, ArrayView1, ArrayView2, Axis, Dimension, s};

use super::check_finite;
use crate::{
    affine::same_shape,
    error::{Error, Result},
    observe::Hessian,
    parallel::map_pieces,
};

/// What is known of the inputs of a layer: some of them, their second moments, or how large each
/// channel is.
///
/// It says what a change of the weights costs, `‖X (Ŵ − W)ᵀ‖²`: exactly over the samples; exactly
/// over all that a Hessian has seen; or, from an importance for each channel, as if channels were
/// not correlated. Searches over scales and clipping ranges take any of the three.
///
/// ```
/// use lowbit::{observe::Hessian, ptq::LayerInputs};
/// use ndarray::array;
///
/// let x = array![[1.0_f32, 2.0], [3.0, 0.0]];
/// let mut hessian = Hessian::new(2)?;
/// hessian.observe(&x)?;
/// let change = array![[1.0_f32, -1.0]];
/// assert_eq!(LayerInputs::samples(&x)?.error(&change)?, 10.0); // (1 − 2)² + 3²
/// assert_eq!(LayerInputs::hessian(hessian).error(&change)?, 10.0);
/// assert_eq!(LayerInputs::importance(&array![10.0, 4.0])?.error(&change)?, 14.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct LayerInputs {
    known: Known,
}

#[derive(Debug, Clone)]
enum Known {
    /// `[tokens, in]`, row-major.
    Samples(Arc<Array2<f32>>),
    Hessian(Arc<Hessian>),
    /// `[in]`.
    Importance(Arc<Array1<f32>>),
}

/// What changes of a few consecutive weights of a row cost.
pub(super) enum Costs<'a> {
    Samples(ArrayView2<'a, f32>),
    Moments(Array2<f64>),
    Importance(ArrayView1<'a, f32>),
}

impl Costs<'_> {
    /// `‖X δᵀ‖²` where `δ` is 0 but for `change`, whose first column is `start`.
    pub(super) fn of(&self, start: usize, change: &[f32]) -> f64 {
        let square = |x: f32| f64::from(x) * f64::from(x);
        let columns = start..start + change.len();
        match self {
            Self::Samples(x) => {
                let outputs = x.slice(s![.., columns]).dot(&ArrayView1::from(change));
                outputs.iter().map(|&y| square(y)).sum()
            }
            Self::Moments(matrix) => {
                let matrix = matrix.slice(s![columns.clone(), columns]);
                let change: Array1<f64> = change.iter().map(|&x| x.into()).collect();
                matrix.dot(&change).dot(&change).max(0.0)
            }
            Self::Importance(importance) => {
                let pairs = importance.slice(s![columns]).into_iter().zip(change);
                pairs.map(|(&w, &x)| f64::from(w) * square(x)).sum()
            }
        }
    }
}

impl LayerInputs {
    /// Some inputs `[…, in]`; a few hundred rows do. They are copied.
    ///
    /// # Errors
    /// [`Error::Empty`] for no input; [`Error::NoSuchAxis`] for a scalar; [`Error::NonFinite`] with
    /// the position of a NaN or an infinity.
    pub fn samples<D: Dimension>(x: &ArrayRef<f32, D>) -> Result<Self> {
        let Some(&channels) = x.shape().last() else {
            return Err(Error::NoSuchAxis {
                axis: 0,
                dimensions: 0,
            });
        };
        not_empty(x.len())?;
        check_finite("inputs", x)?;
        let rows = x.as_standard_layout().into_owned();
        let rows = rows.into_shape_with_order((x.len() / channels, channels));
        Ok(Self {
            known: Known::Samples(Arc::new(rows.map_err(Error::other)?)),
        })
    }

    /// The second moments of the inputs.
    #[must_use]
    pub fn hessian(hessian: impl Into<Arc<Hessian>>) -> Self {
        Self {
            known: Known::Hessian(hessian.into()),
        }
    }

    /// The sum, or the mean, of the squares of each channel, `[in]`.
    ///
    /// # Errors
    /// [`Error::Empty`] for no channel; [`Error::NonFinite`] for one that is negative or not
    /// finite.
    pub fn importance(importance: &ArrayRef1<f32>) -> Result<Self> {
        not_empty(importance.len())?;
        let bad = |value: &f32| !(value.is_finite() && *value >= 0.0);
        if let Some(index) = importance.iter().position(bad) {
            return Err(Error::NonFinite {
                what: "importance",
                expected: "finite numbers of at least 0",
                position: vec![index],
                value: importance[index].into(),
            });
        }
        Ok(Self {
            known: Known::Importance(Arc::new(importance.to_owned())),
        })
    }

    /// Inputs of the layer.
    #[must_use]
    pub fn channels(&self) -> usize {
        match &self.known {
            Known::Samples(x) => x.ncols(),
            Known::Hessian(hessian) => hessian.columns(),
            Known::Importance(importance) => importance.len(),
        }
    }

    /// How large each channel is: the mean of `|x|` over samples, else the root of the mean square
    /// (of an importance: the root).
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the nearest f32 is asked for; counts below 2^53"
    )]
    pub fn magnitudes(&self) -> Array1<f32> {
        match &self.known {
            Known::Samples(x) => {
                let mean = |column: ArrayView1<'_, f32>| {
                    let sum: f64 = column.iter().map(|&x| f64::from(x.abs())).sum();
                    (sum / column.len() as f64) as f32
                };
                x.axis_iter(Axis(1)).map(mean).collect()
            }
            Known::Hessian(hessian) => {
                let tokens = hessian.tokens().max(1) as f64;
                hessian
                    .diagonal()
                    .mapv(|squares| (squares / tokens).sqrt() as f32)
            }
            Known::Importance(importance) => importance.mapv(f32::sqrt),
        }
    }

    /// What a change of the weights `[…, in]` costs: the sum of the squares of the changes of the
    /// outputs; real units squared.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless there is a column for each input; [`Error::NonFinite`] for a
    /// NaN or an infinity.
    pub fn error<D: Dimension>(&self, change: &ArrayRef<f32, D>) -> Result<f64> {
        check_finite("change of the weights", change)?;
        let rows = change.len() / self.channels();
        let mut expected = change.shape().to_vec();
        expected.pop();
        expected.push(self.channels());
        same_shape("change of the weights", &expected, change.shape())?;
        let change = change.as_standard_layout();
        let change = change.to_shape((rows, self.channels()));
        let change = &change.map_err(Error::other)?;
        let square = |x: f32| f64::from(x) * f64::from(x);
        let pieces = match &self.known {
            Known::Hessian(hessian) => return hessian.error(change),
            Known::Samples(x) => map_pieces(change.nrows(), 64, |rows| {
                let outputs = x.dot(&change.slice(s![rows, ..]).t());
                outputs.iter().map(|&y| square(y)).sum::<f64>()
            }),
            Known::Importance(importance) => map_pieces(change.nrows(), 64, |rows| {
                let rows = change.slice(s![rows, ..]);
                let of_row = |row: ArrayView1<'_, f32>| {
                    let pairs = row.into_iter().zip(&**importance);
                    pairs.map(|(&x, &w)| f64::from(w) * square(x)).sum::<f64>()
                };
                rows.axis_iter(Axis(0)).map(of_row).sum::<f64>()
            }),
        };
        Ok(pieces.into_iter().sum())
    }

    /// The samples, where these are what is known.
    pub(super) fn as_samples(&self) -> Option<ArrayView2<'_, f32>> {
        match &self.known {
            Known::Samples(x) => Some(x.view()),
            _ => None,
        }
    }

    /// What changes of a few weights cost.
    pub(super) fn costs(&self) -> Result<Costs<'_>> {
        Ok(match &self.known {
            Known::Samples(x) => Costs::Samples(x.view()),
            Known::Hessian(hessian) => Costs::Moments(hessian.matrix()?),
            Known::Importance(importance) => Costs::Importance(importance.view()),
        })
    }
}

fn not_empty(len: usize) -> Result<()> {
    if len == 0 {
        return Err(Error::Empty {
            what: "inputs of the layer".into(),
        });
    }
    Ok(())
}
