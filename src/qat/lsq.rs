//! Learned step size quantization.

use ndarray::{ArrayRef, Dimension};

use super::{
    Partials, Point, StraightThroughEstimator, backward::positive_levels, sums::GroupSums,
};
use crate::{
    affine::{Affine, store},
    element::BLOCK,
    error::{Error, Result},
    groups::Groups,
    parallel::map_pieces,
    scheme::{Mapping, Scheme},
};

/// Learned step size quantization: Esser et al. 2020, arXiv:1902.08153.
///
/// With `v = x / scale`, `Qn = zero_point − qmin` and `Qp = qmax − zero_point`:
/// - the input gets the gradient where `−Qn < v < Qp` (eq. 5);
/// - the scale gets `−Qn` where `v <= −Qn`, `Qp` where `v >= Qp`, else `round(v) − v` (eq. 3);
/// - the gradient of the scale is multiplied by `1 / √(N · Qp)` (section 2.2), `N` the elements that
///   share that scale: those of a channel where scales are per channel, fewer in a shorter last
///   group.
///
/// The interval ends half a step before that of [`Clipped`](super::Clipped), which looks at the
/// rounded code. Zero points, which the paper does not have, get `−scale` outside and 0 inside, with
/// the factor of their scale (as LSQ+, Bhalgat et al. 2020, arXiv:2004.09576).
///
/// ```
/// use lowbit::{FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, Lsq};
/// use ndarray::array;
///
/// let weights = array![[1.0_f32, -3.0, 2.0], [0.1, 0.1, -0.4]];
/// let scheme = Scheme::int(4).per_axis(0).build()?;
/// let mut fake = AffineFakeQuant::new(Lsq::initial(&weights, &scheme)?, Lsq);
/// let gradients = fake.backward(&weights, &array![[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])?;
///
/// // a step of gradient descent
/// let scale: Vec<f32> = fake.scale().iter().zip(&gradients.scale).map(|(s, g)| s - 0.1 * g).collect();
/// fake.set_scale(&scale)?;
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lsq;

impl Lsq {
    /// The parameters to start from: `2 · mean|x| / √Qp` for each group of elements (section 2.1),
    /// with `Qp` the greatest code, less the middle code in symmetric schemes (small floats: the
    /// greatest value; 1-bit codes: at least 1).
    ///
    /// Zero points start at the middle code in symmetric schemes, else at the code nearest to 0. A
    /// group of zeros, or of no elements, gets scale 1; scales are rounded as the scheme stores
    /// them.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a NaN or an infinity; those of [`Groups::new`];
    /// [`Error::InvalidScale`] if a scale is too large for its storage type.
    ///
    /// ```
    /// use lowbit::{Scheme, qat::Lsq};
    /// use ndarray::array;
    ///
    /// let scheme = Scheme::int(3).unsigned().asymmetric().per_group(2).build()?;
    /// let affine = Lsq::initial(&array![1.0_f32, -2.0, 0.5], &scheme)?; // Qp = 7
    /// assert!((affine.scale()[0] - 3.0 / 7_f32.sqrt()).abs() < 1e-6);
    /// assert!((affine.scale()[1] - 1.0 / 7_f32.sqrt()).abs() < 1e-6);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a mean is rounded anyway, and codes have at most 16 bits"
    )]
    pub fn initial<D: Dimension>(x: &ArrayRef<f32, D>, scheme: &Scheme) -> Result<Affine> {
        let groups = Groups::new(x.shape(), scheme.granularity())?;
        let standard = x.as_standard_layout();
        let x = standard.as_slice().unwrap_or_default();
        if let Some(index) = x.iter().position(|x| !x.is_finite()) {
            return Err(Error::NonFinite {
                what: "tensor to find the first scales of",
                expected: "finite numbers",
                position: groups.position(index),
                value: x[index].into(),
            });
        }
        let pieces = map_pieces(x.len(), groups.piece(), |elements| {
            let mut sums = GroupSums::zeros(&groups.parameters_of(elements.clone()));
            let mut magnitudes = [0.0_f32; BLOCK];
            let mut spans = groups.spans(elements);
            while let Some(span) = spans.next_within(BLOCK) {
                let values = &x[span.start..span.start + span.len];
                for (magnitude, value) in magnitudes.iter_mut().zip(values) {
                    *magnitude = value.abs();
                }
                sums.add(&span, &magnitudes[..span.len]);
            }
            sums
        });
        let root = f64::from(positive_levels(scheme)).sqrt();
        let total = GroupSums::total(groups.parameters(), pieces.iter());
        let scale = total.iter().enumerate().map(|(parameter, total)| {
            let mean = total / groups.elements_of(parameter).max(1) as f64;
            store(scheme.scale_kind(), (2.0 * mean / root) as f32)
        });
        let scale: Vec<f32> = scale.collect();
        let zero_point = match scheme.mapping() {
            Mapping::Symmetric | Mapping::SymmetricHalfRange => scheme.middle(),
            Mapping::Asymmetric => 0.clamp(scheme.quant_min(), scheme.quant_max()),
            Mapping::AsymmetricFloat => 0,
        };
        let zero_point = vec![zero_point as f32; scale.len()];
        Affine::new(*scheme, &groups.parameter_shape(), scale, zero_point)
    }
}

impl StraightThroughEstimator for Lsq {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        // One `&`, not `&&`: no branch in the loop.
        let inside = (at.least < at.position) & (at.position < at.greatest);
        at.clamped_partials(inside, gradient)
    }

    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a factor for gradients"
    )]
    fn scale_factor(&self, elements: usize, positive_levels: f32) -> f32 {
        (1.0 / (elements as f64 * f64::from(positive_levels)).sqrt()) as f32
    }
}
