//! The ends of the range are learned.

use super::Parametrization;
use crate::{
    affine::Parameter,
    error::{Error, Result},
    scheme::{Format, Mapping, Scheme},
};

/// The narrowest range that is learned, in real units.
const LEAST_WIDTH: f32 = 1e-5;

/// The least and the greatest value of the range are learned, as in AIMET's range learning (Siddegowda
/// et al. 2022, arXiv:2201.08442; the gradients are those of its program).
///
/// With `N = qmax − qmin` steps, `δ = (max − min) / N` is the scale and `o = round(min / δ)` the
/// offset of the codes, `zero_point = qmin − o`, whose rounding counts as the identity:
///
/// - `∂L/∂max = ∂L/∂δ / N − ∂L/∂o · N · min / (max − min)²`,
/// - `∂L/∂min = −∂L/∂δ / N + ∂L/∂o · N · max / (max − min)²`.
///
/// After each step `min <= 0 <= max` and `max − min >= 10⁻⁵`. Symmetric schemes learn `max` alone,
/// `δ = max / Qp`.
///
/// ```
/// use lowbit::{Affine, FakeQuant, Scheme};
/// use lowbit::qat::{Clipped, Ends, LearnedFakeQuant};
///
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let affine = Affine::per_tensor(scheme, 0.01, 100.0)?;
/// let mut fake = LearnedFakeQuant::new(affine, Ends, Clipped)?;
/// assert!((fake.parameters()[0] + 1.0).abs() < 1e-6 && (fake.parameters()[1] - 1.55).abs() < 1e-6);
/// fake.set_parameters(&[0.7, 2.55])?; // a range contains 0
/// assert_eq!(fake.parameters(), [0.0, 2.55]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Ends;

/// Whether both ends are learned.
fn two_ends(scheme: &Scheme) -> bool {
    scheme.mapping() == Mapping::Asymmetric
}

/// Steps of the whole range, or of its positive side in symmetric schemes.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
fn steps(scheme: &Scheme) -> f32 {
    let (least, greatest) = (scheme.quant_min() as f32, scheme.quant_max() as f32);
    match scheme.mapping() {
        Mapping::Symmetric => greatest - scheme.middle() as f32,
        Mapping::SymmetricHalfRange => (greatest - least) / 2.0,
        Mapping::Asymmetric | Mapping::AsymmetricFloat => greatest - least,
    }
}

impl Parametrization for Ends {
    fn count(&self, scheme: &Scheme) -> usize {
        if two_ends(scheme) { 2 } else { 1 }
    }

    fn check(&self, scheme: &Scheme) -> Result<()> {
        let integer = matches!(scheme.format(), Format::Int(_));
        if integer && scheme.mapping() != Mapping::AsymmetricFloat {
            return Ok(());
        }
        Err(Error::Unsupported {
            operation: "learning the ends of a range",
            expected: "integers with integer zero points",
            got: scheme.to_string(),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    fn latents(&self, scheme: &Scheme, from: Parameter) -> [f32; 2] {
        let Parameter { scale, zero_point } = from;
        if two_ends(scheme) {
            let end = |code: i32| (code as f32 - zero_point) * scale;
            [end(scheme.quant_min()), end(scheme.quant_max())]
        } else {
            [scale * steps(scheme), 0.0]
        }
    }

    fn is_size(&self, _latent: usize) -> bool {
        false
    }

    fn nearest_valid(&self, scheme: &Scheme, latents: [f32; 2]) -> [f32; 2] {
        // Half of all floats, so that the difference of the two is finite.
        let bound = f32::MAX / 4.0;
        if two_ends(scheme) {
            let (min, max) = (latents[0].clamp(-bound, 0.0), latents[1].clamp(0.0, bound));
            let max = if max - min < LEAST_WIDTH {
                min + LEAST_WIDTH
            } else {
                max
            };
            [min, max]
        } else {
            [latents[0].clamp(LEAST_WIDTH, bound), 0.0]
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    fn parameter(&self, scheme: &Scheme, latents: [f32; 2], start: Parameter) -> Parameter {
        if two_ends(scheme) {
            let [min, max] = latents;
            let scale = (max - min) / steps(scheme);
            Parameter {
                scale,
                zero_point: scheme.quant_min() as f32 - min / scale,
            }
        } else {
            Parameter {
                scale: latents[0] / steps(scheme),
                zero_point: start.zero_point,
            }
        }
    }

    fn gradients(&self, scheme: &Scheme, latents: [f32; 2], parameter: [f32; 2]) -> [f32; 2] {
        let ([min, max], [to_scale, to_zero]) = (latents, parameter);
        let steps = steps(scheme);
        if !two_ends(scheme) {
            return [to_scale / steps, 0.0];
        }
        // The offset is qmin − zero_point. One division after the other: no square that overflows.
        let per_width = -to_zero * steps / (max - min);
        [
            -to_scale / steps + per_width * (max / (max - min)),
            to_scale / steps - per_width * (min / (max - min)),
        ]
    }
}
