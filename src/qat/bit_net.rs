//! Ternary weights by 8-bit activations, as BitNet b1.58 has them.

use super::{DynamicFakeQuant, Plain};
use crate::{
    affine::Range,
    calibrate::Calibrator,
    error::{Error, Result},
    observe::Statistics,
    scheme::{Granularity, Scheme},
};

/// The quantizers of BitNet b1.58: Ma et al. 2024, arXiv:2402.17764, eq. 1 to 3.
///
/// Weights are −1, 0 and 1 times the mean of their magnitudes, found anew in each pass; activations
/// are 8-bit integers over the greatest magnitude of each token. Gradients pass everywhere
/// ([`Plain`]). The norm that the paper puts before each layer is the model's.
///
/// ```
/// use lowbit::{FakeQuantExt, Granularity, qat::BitNet};
/// use ndarray::array;
///
/// let weights = array![[0.9_f32, -0.2], [-1.0, 0.1]]; // mean magnitude 0.55
/// let ternary = BitNet::weights(Granularity::PerTensor)?.forward(&weights)?;
/// assert_eq!(ternary, array![[0.55, 0.0], [-0.55, 0.0]]);
/// let tokens = BitNet::activations()?.forward(&array![[1.27_f32, 0.006], [127.0, 0.4]])?;
/// assert!((tokens[[0, 1]] - 0.01).abs() < 1e-6 && tokens[[1, 1]] == 0.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BitNet;

impl BitNet {
    /// Ternary weights; the paper has one scale for a matrix.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a granularity that no scheme has.
    pub fn weights(granularity: Granularity) -> Result<DynamicFakeQuant<Plain>> {
        let ternary = Scheme::int(2).narrow_range().granularity(granularity);
        let fake = DynamicFakeQuant::new(ternary.build()?, Plain);
        Ok(fake.with_calibrator(MeanMagnitude::default()))
    }

    /// 8-bit activations with a scale for each token, a row along the last axis.
    ///
    /// # Errors
    /// None: the scheme is a valid one.
    pub fn activations() -> Result<DynamicFakeQuant<Plain>> {
        let per_token = Scheme::int(8).per_row().build()?;
        Ok(DynamicFakeQuant::new(per_token, Plain))
    }
}

/// As far as the mean magnitude of the values at hand, times a factor, on each side of 0; at least
/// 10⁻⁵.
///
/// With a factor of 1 and ternary codes the step is the mean magnitude, as BitNet b1.58 has it.
///
/// ```
/// use lowbit::{Calibrator, Scheme, observe::Statistics, qat::MeanMagnitude};
/// let statistics = Statistics::of_values(&[1.0, -3.0])?;
/// let range = MeanMagnitude::new(2.0)?.range(&statistics, &Scheme::int(2).build()?)?;
/// assert_eq!((range.min(), range.max()), (-4.0, 4.0));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanMagnitude {
    factor: f64,
}

impl Default for MeanMagnitude {
    /// The mean magnitude itself.
    fn default() -> Self {
        Self { factor: 1.0 }
    }
}

impl MeanMagnitude {
    /// So many mean magnitudes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the factor is finite and positive.
    pub fn new(factor: f64) -> Result<Self> {
        if factor.is_finite() && factor > 0.0 {
            Ok(Self { factor })
        } else {
            let expected = "a finite number above 0";
            Err(Error::option("mean magnitudes", expected, factor))
        }
    }
}

impl Calibrator for MeanMagnitude {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the nearest f32 is the end of a range"
    )]
    fn range(&self, statistics: &Statistics<'_>, _scheme: &Scheme) -> Result<Range> {
        let values = statistics.values().ok_or(Error::MissingStatistic {
            expected: "the values themselves",
            observer: "an observer that has let go of them",
        })?;
        let sum: f64 = values.iter().map(|&x| f64::from(x.abs())).sum();
        let mean = sum / values.len().max(1) as f64;
        let reach = ((mean * self.factor) as f32).clamp(1e-5, f32::MAX);
        Range::new(-reach, reach)
    }
}
