//! What an observer knows of one group of elements: the input of every calibrator.

use super::Histogram;
use crate::{
    affine::{Range, extent},
    error::{Error, Result},
};

/// The mean of the elements and their variance.
///
/// ```
/// use lowbit::observe::Moments;
/// assert_eq!(Moments { mean: 1.0, variance: 4.0 }.deviation(), 2.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Moments {
    /// Mean of the elements.
    pub mean: f64,
    /// Mean of the squares of the distances from the mean.
    pub variance: f64,
}

impl Moments {
    /// The standard deviation of the population.
    #[must_use]
    pub fn deviation(self) -> f64 {
        self.variance.sqrt()
    }
}

/// What is known of one group of elements: count and range always, and what else the observer
/// gathers.
///
/// ```
/// use lowbit::observe::Statistics;
/// let statistics = Statistics::of_values(&[-1.0, 0.5, 2.0])?;
/// assert_eq!(statistics.count(), 3);
/// assert_eq!(statistics.range().max(), 2.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Statistics<'a> {
    observer: &'static str,
    count: u64,
    range: Range,
    moments: Option<Moments>,
    histogram: Option<&'a Histogram>,
    values: Option<&'a [f32]>,
    importance: Option<&'a [f32]>,
}

impl<'a> Statistics<'a> {
    /// The statistics that every observer has; `observer` names it in error messages.
    #[must_use]
    pub fn new(observer: &'static str, count: u64, range: Range) -> Self {
        Self {
            observer,
            count,
            range,
            moments: None,
            histogram: None,
            values: None,
            importance: None,
        }
    }

    /// The statistics of values at hand, as for weights: calibrators then read the values
    /// themselves.
    ///
    /// # Errors
    /// [`Error::Empty`] for no values; [`Error::NonFinite`] for a NaN or an infinity among them.
    pub fn of_values(values: &'a [f32]) -> Result<Self> {
        let (min, max, finite) = extent(values);
        if let (false, Some(index)) = (finite, values.iter().position(|x| !x.is_finite())) {
            return Err(Error::NonFinite {
                what: "values",
                expected: "finite numbers",
                position: vec![index],
                value: values[index].into(),
            });
        }
        if values.is_empty() {
            return Err(Error::Empty {
                what: "values".into(),
            });
        }
        let mut statistics = Self::new("values", values.len() as u64, Range::new(min, max)?);
        statistics.values = Some(values);
        Ok(statistics)
    }

    /// Adds the moments.
    #[must_use]
    pub fn with_moments(mut self, moments: Moments) -> Self {
        self.moments = Some(moments);
        self
    }

    /// Adds a histogram.
    #[must_use]
    pub fn with_histogram(mut self, histogram: &'a Histogram) -> Self {
        self.histogram = Some(histogram);
        self
    }

    /// Adds an importance for each of the [`values`](Self::values): how much an error there counts.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if there are not as many as values; [`Error::NonFinite`] for one
    /// that is negative or not finite.
    pub fn with_importance(mut self, importance: &'a [f32]) -> Result<Self> {
        let values = self.values.map_or(0, <[f32]>::len);
        if importance.len() != values {
            return Err(Error::ShapeMismatch {
                what: "importance",
                expected: vec![values],
                got: vec![importance.len()],
            });
        }
        if let Some(index) = importance
            .iter()
            .position(|&w| !(w.is_finite() && w >= 0.0))
        {
            return Err(Error::NonFinite {
                what: "importance",
                expected: "finite numbers of at least 0",
                position: vec![index],
                value: importance[index].into(),
            });
        }
        self.importance = Some(importance);
        Ok(self)
    }

    /// How many elements were seen.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The least and the greatest element (for a moving average, the averages of them).
    #[must_use]
    pub fn range(&self) -> Range {
        self.range
    }

    /// The moments.
    ///
    /// # Errors
    /// [`Error::MissingStatistic`] if they were not gathered.
    pub fn moments(&self) -> Result<Moments> {
        self.moments
            .ok_or_else(|| self.missing("mean and deviation"))
    }

    /// The histogram.
    ///
    /// # Errors
    /// [`Error::MissingStatistic`] if there is none.
    pub fn histogram(&self) -> Result<&'a Histogram> {
        self.histogram.ok_or_else(|| self.missing("a histogram"))
    }

    /// The elements themselves, where they are at hand.
    #[must_use]
    pub fn values(&self) -> Option<&'a [f32]> {
        self.values
    }

    /// The importance of each of the [`values`](Self::values), where there is one.
    #[must_use]
    pub fn importance(&self) -> Option<&'a [f32]> {
        self.importance
    }

    fn missing(&self, expected: &'static str) -> Error {
        Error::MissingStatistic {
            expected,
            observer: self.observer,
        }
    }
}
