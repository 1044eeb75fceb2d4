//! Trust masks, and the Gaussian grid they come with.

use super::{DynamicFakeQuant, Partials, Point, StraightThroughEstimator};
use crate::{
    affine::Range,
    calibrate::Calibrator,
    error::{Error, Result},
    observe::Statistics,
    scheme::{Granularity, Scheme},
};

/// Half the width, in root mean squares, of the grid of 1 to 8 bits that has the least squared error
/// on normally distributed values: the numbers of the authors' program, which a test finds again.
const WIDTHS: [f64; 8] = [
    0.7979, 1.4935, 2.0511, 2.5139, 2.9161, 3.2766, 3.6011, 3.8849,
];

/// The trust estimator of QuEST: Panferov et al. 2025, arXiv:2502.05003.
///
/// A gradient passes where quantization moved the value by no more than the trust limit, `T = ½`
/// step unless chosen otherwise: inside the grid and half a step beyond its ends always, further out
/// never. Smaller limits trust fewer values. The scale gets the derivatives of
/// [`Point::clamped_partials`] with the same mask; in the paper it is not learned.
///
/// [`fake_quant`](Self::fake_quant) is the paper's quantizer of rows that a Hadamard transform has
/// made normal; the transform is [`ptq::Rotation`](crate::ptq::Rotation), and its transpose takes
/// the gradient back.
///
/// ```
/// use lowbit::{FakeQuantExt, Granularity};
/// use lowbit::qat::TrustMask;
/// use ndarray::array;
///
/// // 2 bits: −1.5, −0.5, 0.5 and 1.5 steps, a step being 2 · 1.4935 / 3 of the root mean square
/// let fake = TrustMask::fake_quant(2, Granularity::PerRow)?;
/// let x = array![[1.0_f32, -1.0, 1.0, -1.0], [0.1, 0.1, 0.1, 4.0]];
/// let y = fake.forward(&x)?;
/// assert!((y[[0, 0]] - 1.5 * 2.0 * 1.4935 / 3.0).abs() < 1e-6);
/// let gradients = fake.backward(&x, &array![[1.0; 4], [1.0; 4]])?;
/// assert_eq!(gradients.input[[1, 3]], 0.0); // an outlier
/// assert_eq!(gradients.input[[0, 3]], 1.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrustMask {
    limit: f32,
}

impl Default for TrustMask {
    /// Half a step.
    fn default() -> Self {
        Self { limit: 0.5 }
    }
}

impl TrustMask {
    /// With another limit, in steps.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is finite and positive.
    pub fn new(limit: f32) -> Result<Self> {
        if limit.is_finite() && limit > 0.0 {
            Ok(Self { limit })
        } else {
            let expected = "a finite number above 0";
            Err(Error::option("trust limit", expected, limit))
        }
    }

    /// The quantizer of the paper, of 1 to 8 bits: levels half a step off zero, over as many root
    /// mean squares of each group as are best for normal values, found anew in each pass.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other bits, or a granularity that no scheme has.
    pub fn fake_quant(bits: u32, granularity: Granularity) -> Result<DynamicFakeQuant<Self>> {
        let scheme = Scheme::int(bits)
            .asymmetric_float()
            .granularity(granularity)
            .build()?;
        let range = GaussianRange::new(bits)?;
        Ok(DynamicFakeQuant::new(scheme, Self::default()).with_calibrator(range))
    }
}

impl StraightThroughEstimator for TrustMask {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        let trusted = (at.position - at.level).abs() <= self.limit;
        at.clamped_partials(trusted, gradient)
    }
}

/// The range that has the least squared error on normally distributed values about 0, from the root
/// mean square of the values at hand alone: it may reach beyond them.
///
/// Source: as [`TrustMask`]; 1e-8 is added to the range, so that zeros have one.
///
/// ```
/// use lowbit::{Calibrator, Scheme, observe::Statistics, qat::GaussianRange};
/// let scheme = Scheme::int(4).asymmetric_float().build()?;
/// let statistics = Statistics::of_values(&[3.0, -3.0])?;
/// let range = GaussianRange::new(4)?.range(&statistics, &scheme)?;
/// assert!((range.max() - 3.0 * 2.5139).abs() < 1e-5);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GaussianRange {
    width: f64,
}

impl GaussianRange {
    /// For codes of 1 to 8 bits.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other bits.
    pub fn new(bits: u32) -> Result<Self> {
        let width = (bits as usize)
            .checked_sub(1)
            .and_then(|index| WIDTHS.get(index));
        match width {
            Some(&width) => Ok(Self { width }),
            None => Err(Error::option("bits", "1 to 8", bits)),
        }
    }
}

impl Calibrator for GaussianRange {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "the nearest f32 is the end of a range"
    )]
    fn range(&self, statistics: &Statistics<'_>, _scheme: &Scheme) -> Result<Range> {
        let square = match statistics.values() {
            Some(values) => {
                let squares = values.iter().map(|&x| f64::from(x).powi(2));
                squares.sum::<f64>() / values.len().max(1) as f64
            }
            None => {
                let moments = statistics.moments()?;
                moments.mean.powi(2) + moments.variance
            }
        };
        let reach = (self.width * square.sqrt() + 1e-8) as f32;
        Range::new(-reach, reach)
    }
}
