//! Calibrators choose the range that codes are laid over, from statistics alone.

mod entropy;
mod full_range;
mod histogram_search;
mod least_squares;
mod mean_squared_error;
mod octav;
mod percentile;
mod points;
mod standard_deviations;
mod tensor;

pub use entropy::Entropy;
pub use full_range::FullRange;
pub use histogram_search::HistogramSearch;
pub use least_squares::LeastSquares;
pub use mean_squared_error::MeanSquaredError;
pub use octav::Octav;
pub use percentile::Percentile;
pub use standard_deviations::StandardDeviations;
pub(crate) use tensor::map_groups;
pub use tensor::ranges_of;

use std::fmt::Debug;

use crate::{
    affine::{Range, Ranges},
    error::{Error, Result},
    observe::{Observer, Statistics},
    parallel::map_pieces,
    scheme::Scheme,
};

/// Chooses the clipping range of one group of elements for a scheme: a pure function of statistics.
///
/// ```
/// use lowbit::{Calibrator, Range, Result, Scheme, calibrate::FullRange, observe::Statistics};
///
/// /// A tenth less than another calibrator chooses.
/// #[derive(Debug)]
/// struct Tighter<C>(C);
///
/// impl<C: Calibrator> Calibrator for Tighter<C> {
///     fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
///         let range = self.0.range(statistics, scheme)?;
///         Range::new(0.9 * range.min(), 0.9 * range.max())
///     }
/// }
///
/// let scheme = Scheme::int(8).build()?;
/// let range = Tighter(FullRange).range(&Statistics::of_values(&[-1.0, 10.0])?, &scheme)?;
/// assert_eq!(range.max(), 9.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub trait Calibrator: Debug + Send + Sync {
    /// The range that the codes of the scheme shall cover.
    ///
    /// # Errors
    /// [`Error::MissingStatistic`] if the statistics lack what this calibrator reads.
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range>;
}

/// The range of each parameter that an observer has statistics of.
///
/// # Errors
/// [`Error::Mismatch`] if the observer's granularity is not the scheme's; [`Error::Empty`] if it
/// has seen nothing; those of the calibrator.
///
/// ```
/// use lowbit::{Granularity, ObserverExt, Scheme};
/// use lowbit::{calibrate::{FullRange, ranges}, observe::MinMax};
/// use ndarray::array;
///
/// let mut observer = MinMax::new(Granularity::PerTensor);
/// observer.observe(&array![[1.0_f32, -2.0], [3.0, 0.5]])?;
/// let ranges = ranges(&FullRange, &observer, &Scheme::int(8).build()?)?;
/// assert_eq!(ranges.as_slice()[0].max(), 3.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn ranges(
    calibrator: &dyn Calibrator,
    observer: &dyn Observer,
    scheme: &Scheme,
) -> Result<Ranges> {
    if observer.granularity() != scheme.granularity() {
        return Err(Error::Mismatch {
            what: "granularity",
            expected: scheme.granularity().to_string(),
            got: format!("an observer {}", observer.granularity()),
        });
    }
    let shape = observer.parameter_shape().ok_or_else(|| Error::Empty {
        what: "observer".into(),
    })?;
    // A few parameters a task: calibrators that search take a millisecond for each.
    let pieces = map_pieces(shape.iter().product(), 4, |parameters| {
        parameters
            .map(|parameter| calibrator.range(&observer.statistics(parameter)?, scheme))
            .collect::<Result<Vec<_>>>()
    });
    let ranges: Vec<Vec<Range>> = pieces.into_iter().collect::<Result<_>>()?;
    Ranges::new(shape, ranges.into_iter().flatten().collect())
}
