//! Calibrators choose the range that codes are laid over, from statistics alone.

use std::fmt::Debug;

use crate::{
    affine::{Range, Ranges},
    error::{Error, Result},
    observe::{Observer, Statistics},
    scheme::Scheme,
};

/// Chooses the clipping range of one group of elements for a scheme: a pure function of statistics.
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
    let parameters = shape.iter().product();
    let ranges = (0..parameters)
        .map(|parameter| calibrator.range(&observer.statistics(parameter)?, scheme))
        .collect::<Result<_>>()?;
    Ranges::new(shape, ranges)
}
