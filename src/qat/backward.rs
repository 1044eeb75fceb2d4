//! The backward pass over a whole tensor.

use ndarray::{Array, ArrayRef, Dimension};

use super::{Gradients, Segment, StraightThroughEstimator, sums::GroupSums};
use crate::{
    affine::{Affine, same_shape},
    error::Result,
    groups::Groups,
    parallel::map_over_pieces,
    scheme::{Format, Scheme},
    simd::Streaming,
};

/// Which gradients a backward pass computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Those of the input, and of every scale and zero point.
    All,
    /// Those of the input; there are no learned parameters.
    Input,
}

/// The gradients of a fake quantization with the given parameters.
pub(super) fn backward<D: Dimension>(
    x: &ArrayRef<f32, D>,
    gradient: &ArrayRef<f32, D>,
    affine: &Affine,
    estimator: &dyn StraightThroughEstimator,
    wanted: Wanted,
) -> Result<Gradients<D>> {
    let mut gradients = Gradients {
        input: Array::zeros(x.raw_dim()),
        scale: vec![],
        zero_point: vec![],
    };
    backward_into(x, gradient, affine, estimator, wanted, &mut gradients)?;
    Ok(gradients)
}

/// [`backward`] into gradients that are there already; allocates the sums of the pieces alone where
/// the arrays lie in row-major order.
pub(super) fn backward_into<D: Dimension>(
    x: &ArrayRef<f32, D>,
    gradient: &ArrayRef<f32, D>,
    affine: &Affine,
    estimator: &dyn StraightThroughEstimator,
    wanted: Wanted,
    into: &mut Gradients<D>,
) -> Result<()> {
    let groups = affine.groups(x.shape())?;
    same_shape("gradient", x.shape(), gradient.shape())?;
    same_shape("gradient of the input", x.shape(), into.input.shape())?;
    let (x, gradient) = (x.as_standard_layout(), gradient.as_standard_layout());
    let x = x.as_slice().unwrap_or_default();
    let gradient = gradient.as_slice().unwrap_or_default();
    let streaming = Streaming::of(3 * size_of_val(x));
    let work = |start: usize, input: &mut [f32]| {
        let elements = start..start + input.len();
        let parameters = match wanted {
            Wanted::All => groups.parameters_of(elements.clone()),
            Wanted::Input => 0..0,
        };
        let mut sums = [GroupSums::zeros(&parameters), GroupSums::zeros(&parameters)];
        estimator.backward(Segment {
            start,
            x: &x[elements.clone()],
            gradient: &gradient[elements],
            input,
            sums: (wanted == Wanted::All).then_some(&mut sums),
            groups: &groups,
            affine,
            streaming,
        });
        sums
    };
    let size = groups.piece();
    let sums = if let Some(input) = into.input.as_slice_mut() {
        map_over_pieces(input, size, work)
    } else {
        let mut input = vec![0.0; x.len()];
        let sums = map_over_pieces(&mut input, size, work);
        for (to, from) in into.input.iter_mut().zip(input) {
            *to = from;
        }
        sums
    };
    into.scale.clear();
    into.zero_point.clear();
    if wanted == Wanted::All {
        scaled(
            &mut into.scale,
            &groups,
            sums.iter().map(|s| &s[0]),
            affine,
            |n, levels| estimator.scale_factor(n, levels),
        );
        scaled(
            &mut into.zero_point,
            &groups,
            sums.iter().map(|s| &s[1]),
            affine,
            |n, levels| estimator.zero_point_factor(n, levels),
        );
    }
    Ok(())
}

/// The sums of all pieces, each times the factor of its parameter, rounded once.
#[expect(
    clippy::cast_possible_truncation,
    reason = "the nearest f32 is what a gradient is"
)]
fn scaled<'a>(
    into: &mut Vec<f32>,
    groups: &Groups,
    pieces: impl Iterator<Item = &'a GroupSums>,
    affine: &Affine,
    factor: impl Fn(usize, f32) -> f32,
) {
    let levels = positive_levels(affine.scheme());
    let total = GroupSums::total(groups.parameters(), pieces);
    // Most groups have the size of the one before.
    let (mut size, mut times) = (usize::MAX, 1.0);
    let mut total = total.iter();
    groups.sizes().for_each(|elements| {
        if elements != size {
            size = elements;
            times = f64::from(factor(elements.max(1), levels));
        }
        into.extend(total.next().map(|sum| (sum * times) as f32));
    });
}

/// Levels above zero, `Qp` in the papers: the greatest code, less the middle code in symmetric
/// schemes; the greatest value of small floats; at least 1.
#[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
pub(super) fn positive_levels(scheme: &Scheme) -> f32 {
    let levels = match scheme.format() {
        Format::Float(float) => float.max_value(),
        Format::Int(int) if scheme.mapping().is_symmetric() => {
            (int.quant_max() - scheme.middle()) as f32
        }
        Format::Int(int) => int.quant_max() as f32,
    };
    levels.max(1.0)
}
