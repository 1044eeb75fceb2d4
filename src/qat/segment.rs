//! The loop of the backward pass over a slice of elements.

use super::{
    Partials, Point, point,
    sums::{GroupSums, sum},
};
use crate::{
    affine::{Affine, scalar::Rule},
    groups::Groups,
};

/// Elements whose parameter gradients are kept on the stack until they are summed.
const BLOCK: usize = 256;

/// Consecutive elements of a backward pass: what
/// [`StraightThroughEstimator::backward`](super::StraightThroughEstimator::backward) works on.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme, StraightThroughEstimator};
/// use lowbit::qat::{AffineFakeQuant, Partials, Point, Segment};
/// use ndarray::array;
///
/// /// Gradients that shrink over training.
/// #[derive(Debug)]
/// struct Annealed { step: i32 }
///
/// impl Annealed {
///     fn with(at: &Point, gradient: f32, weight: f32) -> Partials {
///         at.clamped_partials(at.inside, weight * gradient)
///     }
/// }
///
/// impl StraightThroughEstimator for Annealed {
///     fn partials(&self, at: &Point, gradient: f32) -> Partials {
///         Self::with(at, gradient, 0.5_f32.powi(self.step))
///     }
///
///     // the same, with the power computed once a slice
///     fn backward(&self, segment: Segment<'_>) {
///         let weight = 0.5_f32.powi(self.step);
///         segment.apply(|at, gradient| Self::with(at, gradient, weight));
///     }
/// }
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
/// let fake = AffineFakeQuant::new(affine, Annealed { step: 2 });
/// assert_eq!(fake.backward(&array![1.2_f32], &array![1.0])?.input, array![0.25]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct Segment<'a> {
    /// The first element.
    pub(super) start: usize,
    pub(super) x: &'a [f32],
    pub(super) gradient: &'a [f32],
    /// The gradients of the input, to be written.
    pub(super) input: &'a mut [f32],
    /// The gradients of scales and zero points, to be added to; `None` where they are not learned.
    pub(super) sums: Option<&'a mut [GroupSums; 2]>,
    pub(super) groups: &'a Groups,
    pub(super) affine: &'a Affine,
}

impl Segment<'_> {
    pub(super) fn len(&self) -> usize {
        self.x.len()
    }

    /// Takes the derivatives that `partials(point, gradient)` gives at each element: writes those of
    /// the input, adds up those of scales and zero points in f64.
    ///
    /// Generic, so that a loop is compiled for each `partials`; vectorized if it has no branches
    /// that are more than a selection.
    #[inline]
    pub fn apply(self, partials: impl Fn(&Point, f32) -> Partials) {
        let (mut to_scale, mut to_zero) = ([0.0; BLOCK], [0.0; BLOCK]);
        self.apply_with([&mut to_scale, &mut to_zero], sum, partials);
    }

    /// [`apply`](Self::apply) with a sum of the caller's, which it calls for each block of elements
    /// that share a parameter: a whole run, or as much of it as the two buffers hold.
    #[inline(always)]
    pub(super) fn apply_with(
        self,
        buffers: [&mut [f32]; 2],
        sum: impl Fn(&[f32]) -> f64,
        partials: impl Fn(&Point, f32) -> Partials,
    ) {
        match Rule::<f32>::of(self.affine.scheme()) {
            Rule::Integer {
                quant_min,
                quant_max,
            } => {
                let point = |x, scale, zero| point::integer(x, scale, zero, quant_min, quant_max);
                self.blocks(buffers, sum, point, partials);
            }
            Rule::FloatZero {
                quant_min,
                quant_max,
            } => {
                let point =
                    |x, scale, zero| point::float_zero(x, scale, zero, quant_min, quant_max);
                self.blocks(buffers, sum, point, partials);
            }
            Rule::Float(format) => {
                let point = |x, scale, zero| point::float(x, scale, zero, format);
                // Small floats have no zero point that their output could depend on.
                let partials = |at: &Point, gradient| Partials {
                    zero_point: 0.0,
                    ..partials(at, gradient)
                };
                self.blocks(buffers, sum, point, partials);
            }
        }
    }

    #[inline(always)]
    fn blocks(
        mut self,
        [to_scale, to_zero]: [&mut [f32]; 2],
        sum: impl Fn(&[f32]) -> f64,
        point: impl Fn(f32, f32, f32) -> Point,
        partials: impl Fn(&Point, f32) -> Partials,
    ) {
        // Two passes over a block, the second for the sums: each is a plain loop.
        let elements = self.start..self.start + self.x.len();
        for run in self.groups.runs(elements) {
            let (scales, zeros) = (self.affine.scale(), self.affine.zero_point());
            let mut at = 0;
            while at < run.len {
                let size = to_scale.len().min(run.len - at);
                let from = run.start - self.start + at;
                let x = &self.x[from..from + size];
                let gradient = &self.gradient[from..from + size];
                let input = &mut self.input[from..from + size];
                let outputs = input.iter_mut().zip(&mut *to_scale).zip(&mut *to_zero);
                let elements = x.iter().zip(gradient).zip(outputs);
                let body =
                    |x, gradient, scale, zero, input: &mut f32, ds: &mut f32, dz: &mut f32| {
                        let partials = partials(&point(x, scale, zero), gradient);
                        *input = partials.input;
                        *ds = partials.scale;
                        *dz = partials.zero_point;
                    };
                if run.each {
                    let first = run.parameter + at;
                    let elements = elements.zip(scales[first..].iter().zip(&zeros[first..]));
                    for (((&x, &gradient), ((input, ds), dz)), (&scale, &zero)) in elements {
                        body(x, gradient, scale, zero, input, ds, dz);
                    }
                } else {
                    let (scale, zero) = (scales[run.parameter], zeros[run.parameter]);
                    for ((&x, &gradient), ((input, ds), dz)) in elements {
                        body(x, gradient, scale, zero, input, ds, dz);
                    }
                }
                if let Some([to_scales, to_zeros]) = &mut self.sums {
                    to_scales.add(&run, at, &to_scale[..size], &sum);
                    to_zeros.add(&run, at, &to_zero[..size], &sum);
                }
                at += size;
            }
        }
    }
}
