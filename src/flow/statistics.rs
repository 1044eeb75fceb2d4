//! What calibration gathers of inputs that layers share.

use ndarray::{Array1, Array2, ArrayRef1, ArrayRef2, ArrayView1, ArrayView2, Axis, CowArray};

use super::blocks::Taps;
use crate::{
    affine::{Affine, same_shape},
    calibrate::{MeanSquaredError, ranges},
    error::{Error, Result},
    observe::{Hessian, HistogramObserver, InputDeviation, ObserverExt},
    scheme::{Granularity, Scheme},
};

/// How much each token counts in what calibration gathers of the inputs of a layer whose outputs are
/// added to a stream ([`Taps::residual`]); elsewhere all count alike.
///
/// On a small language model neither is better everywhere: shares help plain GPTQ at 2 bits and
/// GPTAQ at 3, and hurt GPTQ with one scale a row by half a percent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TokenWeights {
    /// All alike, as published programs have it.
    #[default]
    Even,
    /// By one over the mean square of the stream after the layer, since the norm that reads the
    /// stream divides by its root: an error counts as the share of the stream that it is.
    StreamShare,
}

/// What calibration has seen of the inputs of a layer.
#[derive(Debug)]
pub struct InputStatistics {
    token_weights: TokenWeights,
    moments: Moments,
    /// `[in]`, of inputs as they are.
    largest: Array1<f32>,
    /// `(R − R̂)ᵀ X̂`, `[hidden, in]`.
    residual: Option<Array2<f64>>,
    /// Of inputs as they are, where training is to start from it.
    histogram: Option<HistogramObserver>,
}

#[derive(Debug)]
enum Moments {
    Inputs(Hessian),
    Both(InputDeviation),
}

impl InputStatistics {
    /// Nothing seen yet; `both` if the float model's inputs will come too.
    pub(super) fn new(columns: usize, both: bool, token_weights: TokenWeights) -> Result<Self> {
        let moments = if both {
            Moments::Both(InputDeviation::new(columns)?)
        } else {
            Moments::Inputs(Hessian::new(columns)?)
        };
        Ok(Self {
            token_weights,
            moments,
            largest: Array1::zeros(columns),
            residual: None,
            histogram: None,
        })
    }

    /// Nothing seen yet of inputs `[tokens, in]` of a layer in one's own hands, to be shown to
    /// [`take`](Self::take).
    ///
    /// # Errors
    /// Those of [`Hessian::new`].
    ///
    /// ```
    /// use lowbit::flow::InputStatistics;
    /// let mut inputs = InputStatistics::of_columns(3)?;
    /// inputs.take(&ndarray::array![[1.0_f32, 0.0, 2.0]])?;
    /// assert_eq!(inputs.hessian().columns(), 3);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn of_columns(columns: usize) -> Result<Self> {
        let mut statistics = Self::new(columns, false, TokenWeights::Even)?;
        statistics.histogram = Some(HistogramObserver::new(Granularity::PerTensor));
        Ok(statistics)
    }

    /// Takes inputs `[tokens, in]` into account.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for other columns; [`Error::NonFinite`] for inputs that are not
    /// finite.
    pub fn take(&mut self, inputs: &ArrayRef2<f32>) -> Result<()> {
        match &mut self.moments {
            Moments::Inputs(hessian) => hessian.observe(inputs)?,
            Moments::Both(deviation) => deviation.observe(inputs, inputs)?,
        }
        if let Some(histogram) = &mut self.histogram {
            histogram.observe(inputs)?;
        }
        include_largest(&mut self.largest, inputs);
        Ok(())
    }

    /// Takes a sample into account: what the quantized model shows and, if it runs, the float one.
    /// `weights` are those of the layer, if it reads these inputs alone.
    pub(super) fn observe(
        &mut self,
        name: &str,
        (quantized, float): (&Taps, &Taps),
        weights: Option<ArrayView2<'_, f32>>,
    ) -> Result<()> {
        let Some(inputs) = quantized.inputs(name) else {
            return Ok(()); // an expert that no token of this sample went to
        };
        same_shape(
            "inputs",
            &[inputs.nrows(), self.largest.len()],
            inputs.shape(),
        )?;
        let stream = quantized.residuals(name).zip(weights);
        let shares = match stream {
            Some((stream, weights)) => {
                let expected = [inputs.nrows(), weights.nrows()];
                same_shape("residual stream", &expected, stream.shape())?;
                match self.token_weights {
                    TokenWeights::Even => None,
                    TokenWeights::StreamShare => Some(shares(&(inputs.dot(&weights.t()) + stream))),
                }
            }
            None => None,
        };
        let weighted = |x: &Array2<f32>| match &shares {
            None => CowArray::from(x.view()).into_owned(),
            Some(shares) => x * shares,
        };
        let own = weighted(inputs);
        let deviation = match &mut self.moments {
            Moments::Inputs(hessian) => {
                hessian.observe(&own)?;
                include_largest(&mut self.largest, inputs);
                return Ok(());
            }
            Moments::Both(deviation) => deviation,
        };
        include_largest(&mut self.largest, inputs);
        let Some(theirs) = float.inputs(name).filter(|x| x.dim() == inputs.dim()) else {
            // Other tokens went here: nothing can be compared.
            return deviation.observe(&own, &own);
        };
        deviation.observe(&weighted(theirs), &own)?;
        if let (Some((ours, _)), Some(theirs)) = (stream, float.residuals(name)) {
            same_shape("residual stream", theirs.shape(), ours.shape())?;
            let difference = weighted(&(theirs - ours)).mapv(f64::from);
            let product = difference.t().dot(&own.mapv(f64::from));
            match &mut self.residual {
                Some(sum) if sum.dim() == product.dim() => *sum += &product,
                sum => *sum = Some(product),
            }
        }
        Ok(())
    }

    /// The second moments of the inputs, as the partly quantized model has them; tokens count by
    /// their [`TokenWeights`].
    #[must_use]
    pub fn hessian(&self) -> &Hessian {
        match &self.moments {
            Moments::Inputs(hessian) => hessian,
            Moments::Both(deviation) => deviation.hessian(),
        }
    }

    /// How they differ from the float model's, if a method of the recipe asked for it.
    #[must_use]
    pub fn deviation(&self) -> Option<&InputDeviation> {
        match &self.moments {
            Moments::Inputs(_) => None,
            Moments::Both(deviation) => Some(deviation),
        }
    }

    /// `(R − R̂)ᵀ X̂`, `[hidden, in]`, where `R − R̂` is what the stream that the layer adds its outputs
    /// to has lost.
    #[must_use]
    pub fn residual(&self) -> Option<ArrayView2<'_, f64>> {
        self.residual.as_ref().map(|sum| sum.view())
    }

    /// What training of static activations starts from: the range of least squared error.
    pub(super) fn start(&self, scheme: &Scheme) -> Result<Affine> {
        let Some(histogram) = &self.histogram else {
            return Err(Error::MissingStatistic {
                expected: "a histogram of the inputs",
                observer: "the Hessian alone",
            });
        };
        let ranges = ranges(&MeanSquaredError::default(), histogram, scheme)?;
        Affine::from_ranges(scheme, &ranges)
    }

    /// The largest magnitude of each input, `[in]`; tokens count alike here.
    #[must_use]
    pub fn largest(&self) -> &ArrayRef1<f32> {
        &self.largest
    }
}

/// Raises the largest magnitudes to those of more rows.
fn include_largest(largest: &mut Array1<f32>, rows: &ArrayRef2<f32>) {
    for row in rows.rows() {
        largest.zip_mut_with(&row, |largest, x| *largest = largest.max(x.abs()));
    }
}

/// One over the root mean square of each row, `[tokens, 1]`; 1 for a row of zeros.
#[expect(clippy::cast_possible_truncation, reason = "the nearest f32")]
fn shares(stream: &Array2<f32>) -> Array2<f32> {
    let share = |row: ArrayView1<'_, f32>| {
        let square = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
        let share = (row.len() as f64 / square).sqrt() as f32;
        if share.is_normal() { share } else { 1.0 }
    };
    let rows = stream.rows().into_iter().map(share);
    Array1::from_iter(rows).insert_axis(Axis(1))
}
