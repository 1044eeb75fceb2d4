//! Stretched elastic quantization to 1, 1.58 and 2 bits.

use ndarray::{ArrayRef, Dimension};

use super::{LearnedFakeQuant, Partials, Point, StraightThroughEstimator, Threshold};
use crate::{
    affine::Affine,
    calibrate::map_groups,
    error::Result,
    groups::Groups,
    scheme::{Granularity, Scheme},
};

/// The part of the clipping value beyond which weights count as clipped.
const CLIP: f32 = 0.99;

/// Bits of a [`StretchedElastic`] quantizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ElasticBits {
    /// 1 bit: `−α` and `α`.
    Binary,
    /// 1.58 bits: `−⅔α`, 0 and `⅔α`.
    Ternary,
    /// 2 bits: `−¾α`, `−¼α`, `¼α` and `¾α`.
    Two,
}

impl ElasticBits {
    /// The scheme: real zero points half a code off, or 0 for ternary codes.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a granularity that no scheme has.
    pub fn scheme(self, granularity: Granularity) -> Result<Scheme> {
        let builder = match self {
            Self::Binary => Scheme::int(1).asymmetric_float(),
            Self::Ternary => Scheme::int(2).narrow_range().symmetric(),
            Self::Two => Scheme::int(2).asymmetric_float(),
        };
        builder.granularity(granularity).build()
    }

    /// Steps to the clipping value `α`, and the zero point.
    fn grid(self) -> (f32, f32) {
        match self {
            Self::Binary => (0.5, -0.5),
            Self::Ternary => (1.5, 0.0),
            Self::Two => (2.0, -0.5),
        }
    }
}

/// Stretched elastic quantization of ParetoQ: Liu et al. 2025, arXiv:2502.02631.
///
/// A clipping value `α` is learned for each group. With `v = w / α` the output is
/// `α · (round(clip(v, ±0.99) · n − h) + h) / n`, `n = 1.5` and `h = 0` at 1.58 bits, `n = 2` and
/// `h = ½` at 2 bits: levels that part the range evenly, none of them at its end. At 1 bit it is
/// `α · sign(w)`, where a weight of 0 counts as positive: there is no third level.
///
/// - the weight gets the gradient where `|v| < 0.99` (1 bit: `|v| <= 1`);
/// - `α` gets `q(v) − v` there and `q(v)` beyond (1 bit: `sign(w)` everywhere), `q(v)` the output in
///   parts of `α`, times `1 / √N` with the `N` elements that share that `α`.
///
/// ```
/// use lowbit::{FakeQuantExt, Granularity};
/// use lowbit::qat::{ElasticBits, StretchedElastic};
/// use ndarray::array;
///
/// let weights = array![[1.0_f32, -0.3, 0.0, 0.6]];
/// let fake = StretchedElastic::fake_quant(ElasticBits::Two, &weights, Granularity::PerAxis(0))?;
/// let grid = fake.forward(&weights)?; // α starts at the greatest magnitude, 1
/// assert!((&grid - &array![[0.75, -0.25, 0.25, 0.75]]).iter().all(|e| e.abs() < 1e-6));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct StretchedElastic;

impl StretchedElastic {
    /// The quantizer, started as in the paper's program: `α = max|w|` of each group, `mean|w|` at
    /// 1 bit.
    ///
    /// # Errors
    /// [`Error::NonFinite`](crate::Error::NonFinite) for weights that are not finite; those of
    /// [`Groups::new`] and [`ElasticBits::scheme`].
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a mean of f32 is rounded anyway"
    )]
    pub fn fake_quant<D: Dimension>(
        bits: ElasticBits,
        weights: &ArrayRef<f32, D>,
        granularity: Granularity,
    ) -> Result<LearnedFakeQuant<Self>> {
        let scheme = bits.scheme(granularity)?;
        let groups = Groups::new(weights.shape(), granularity)?;
        let (steps, zero_point) = bits.grid();
        let scale = map_groups(weights, &groups, None, |values, _| {
            let magnitudes = values.iter().map(|w| w.abs());
            let alpha = match bits {
                ElasticBits::Binary => {
                    let sum: f64 = magnitudes.map(f64::from).sum();
                    (sum / values.len().max(1) as f64) as f32
                }
                _ => magnitudes.fold(0.0, f32::max),
            };
            let scale = alpha / steps;
            Ok(if scale.is_normal() { scale } else { 1.0 })
        })?;
        let zero_point = vec![zero_point; scale.len()];
        let affine = Affine::new(scheme, &groups.parameter_shape(), scale, zero_point)?;
        LearnedFakeQuant::new(affine, Threshold::new(steps)?, Self)
    }
}

impl StraightThroughEstimator for StretchedElastic {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        // 1 bit has its two levels at the ends, ±α; otherwise α is half a step beyond the last one.
        let binary = at.greatest - at.least < 1.5;
        let reach = if binary {
            at.greatest
        } else {
            CLIP * (at.greatest + 0.5)
        };
        let inside = at.position.abs() <= reach;
        let position = if inside & !binary { at.position } else { 0.0 };
        Partials {
            input: if inside { gradient } else { 0.0 },
            scale: (at.level - position) * gradient,
            zero_point: 0.0,
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a factor for gradients"
    )]
    fn scale_factor(&self, elements: usize, _positive_levels: f32) -> f32 {
        (1.0 / (elements as f64).sqrt()) as f32
    }
}
