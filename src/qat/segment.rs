//! The loop of the backward pass over a slice of elements.

use std::ops::Range;

use super::{Partials, Point, point, sums::GroupSums};
use crate::{
    affine::{Affine, loops::SpanParameters, scalar::Rule},
    element::BLOCK,
    groups::{Groups, Span},
    simd::{Loops, Streaming, prefetch, wide},
};

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
    pub(super) streaming: Option<Streaming>,
}

impl Segment<'_> {
    pub(super) fn elements(&self) -> Range<usize> {
        self.start..self.start + self.x.len()
    }

    /// Takes the derivatives that `partials(point, gradient)` gives at each element: writes those of
    /// the input, adds up those of scales and zero points in f64.
    ///
    /// Generic, so that a loop is compiled for each `partials`; vectorized if it has no branches
    /// that are more than a selection.
    #[inline]
    pub fn apply(mut self, partials: impl Fn(&Point, f32) -> Partials) {
        match self.sums.take() {
            Some(sums) => self.apply_to(sums, partials),
            None => self.apply_to(&mut Ignored, partials),
        }
    }

    /// [`apply`](Self::apply) with something of the caller's that takes the gradients of scales and
    /// zero points.
    #[inline(always)]
    pub(super) fn apply_to(
        self,
        terms: &mut impl Terms,
        partials: impl Fn(&Point, f32) -> Partials,
    ) {
        let segment = self;
        match Rule::<f32>::of(segment.affine.scheme()) {
            Rule::Integer {
                quant_min,
                quant_max,
            } => wide(Pass {
                segment,
                terms,
                point: |x, scale, zero| point::integer(x, scale, zero, quant_min, quant_max),
                partials,
            }),
            Rule::FloatZero {
                quant_min,
                quant_max,
            } => wide(Pass {
                segment,
                terms,
                point: |x, scale, zero| point::float_zero(x, scale, zero, quant_min, quant_max),
                partials,
            }),
            Rule::Float(format) => wide(Pass {
                segment,
                terms,
                point: |x, scale, zero| point::float(x, scale, zero, format),
                // Small floats have no zero point that their output could depend on.
                partials: |at: &Point, gradient| Partials {
                    zero_point: 0.0,
                    ..partials(at, gradient)
                },
            }),
        }
    }
}

/// What takes the gradients of scales and zero points, one for each element.
pub(super) trait Terms {
    /// Those of the elements of a span, at most [`BLOCK`]; to be marked `#[inline(always)]`.
    fn add(&mut self, span: &Span, to_scale: &[f32], to_zero: &[f32]);
}

impl Terms for [GroupSums; 2] {
    #[inline(always)]
    fn add(&mut self, span: &Span, to_scale: &[f32], to_zero: &[f32]) {
        self[0].add(span, to_scale);
        self[1].add(span, to_zero);
    }
}

/// Parameters that are not learned.
struct Ignored;

impl Terms for Ignored {
    #[inline(always)]
    fn add(&mut self, _: &Span, _: &[f32], _: &[f32]) {}
}

/// The backward pass over a segment.
struct Pass<'a, 'b, T, Q, P> {
    segment: Segment<'a>,
    terms: &'b mut T,
    point: Q,
    partials: P,
}

impl<T, Q, P> Loops for Pass<'_, '_, T, Q, P>
where
    T: Terms,
    Q: Fn(f32, f32, f32) -> Point,
    P: Fn(&Point, f32) -> Partials,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Segment {
            start,
            x,
            gradient,
            input,
            groups,
            affine,
            streaming,
            ..
        } = self.segment;
        let (point, partials) = (self.point, self.partials);
        let partials = |x, scale, zero, gradient| partials(&point(x, scale, zero), gradient);
        // Arrays of its own, so that the compiler knows that none is another.
        let mut outputs = [[0.0; BLOCK]; 3];
        let mut spans = groups.spans(start..start + x.len());
        while let Some(span) = spans.next_within(BLOCK) {
            let elements = span.start - start..span.start - start + span.len;
            let (x, gradient) = (&x[elements.clone()], &gradient[elements.clone()]);
            prefetch(x);
            prefetch(gradient);
            let parameters = SpanParameters::of(affine, &span);
            if let Some(each) = parameters.each() {
                let each = each.map(|(&scale, &zero)| (scale, zero));
                derive([x, gradient], each, &mut outputs, 0, partials);
            } else {
                for (group, (&scale, &zero)) in parameters.groups() {
                    let (x, gradient) = (&x[group.clone()], &gradient[group.clone()]);
                    let shared = std::iter::repeat((scale, zero));
                    derive([x, gradient], shared, &mut outputs, group.start, partials);
                }
            }
            let [to_input, to_scale, to_zero] = &outputs;
            match streaming {
                Some(streaming) => streaming.copy(&to_input[..span.len], &mut input[elements]),
                None => input[elements].copy_from_slice(&to_input[..span.len]),
            }
            self.terms
                .add(&span, &to_scale[..span.len], &to_zero[..span.len]);
        }
        if let Some(streaming) = streaming {
            streaming.fence();
        }
    }
}

/// Writes the derivatives at some elements to the three outputs, from element `at` of them on.
#[inline(always)]
fn derive(
    [x, gradient]: [&[f32]; 2],
    parameters: impl Iterator<Item = (f32, f32)>,
    [to_input, to_scale, to_zero]: &mut [[f32; BLOCK]; 3],
    at: usize,
    partials: impl Fn(f32, f32, f32, f32) -> Partials,
) {
    let elements = at..at + x.len();
    let to_input = &mut to_input[elements.clone()];
    let to_scale = &mut to_scale[elements.clone()];
    let outputs = to_input
        .iter_mut()
        .zip(to_scale)
        .zip(&mut to_zero[elements]);
    let inputs = x.iter().zip(gradient).zip(parameters);
    for (((&x, &gradient), (scale, zero)), ((input, to_scale), to_zero)) in inputs.zip(outputs) {
        let partials = partials(x, scale, zero, gradient);
        *input = partials.input;
        *to_scale = partials.scale;
        *to_zero = partials.zero_point;
    }
}
