//! The loop of the backward pass over a slice of elements.

use std::{iter::repeat, ops::Range};

use super::{Partials, Point, point, sums::GroupSums};
use crate::{
    affine::{
        Affine,
        scalar::Rule,
        steps::{STEP, SpanParameters, of_half, pairs},
    },
    element::BLOCK,
    groups::{Groups, Span},
    simd::{Ahead, Loops, OnLine, Streaming, wide},
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
        let mut outputs = OnLine([[0.0; BLOCK]; 3]);
        let mut spans = groups.tiles(start..start + x.len());
        while let Some(span) = spans.next_by_turns(BLOCK) {
            let elements = span.start - start..span.start - start + span.len;
            let inputs = [&x[elements.clone()], &gradient[elements.clone()]];
            let parameters = SpanParameters::of(affine, &span);
            Derivatives {
                inputs,
                ahead: inputs.map(|input| parameters.ahead(input)),
                outputs: &mut outputs.0,
                partials,
            }
            .write(parameters);
            let OnLine([to_input, to_scale, to_zero]) = &outputs;
            match streaming {
                Some(streaming) => streaming.copy(&to_input[..span.len], &mut input[elements]),
                None => input[elements].copy_from_slice(&to_input[..span.len]),
            }
            let (to_scale, to_zero) = (&to_scale[..span.len], &to_zero[..span.len]);
            self.terms.add(&span, to_scale, to_zero);
        }
        if let Some(streaming) = streaming {
            streaming.fence();
        }
    }
}

/// The derivatives at the elements of a span, with what comes later asked for.
struct Derivatives<'a, F> {
    inputs: [&'a [f32]; 2],
    ahead: [Ahead<'a, f32>; 2],
    /// With respect to input, scale and zero point.
    outputs: &'a mut [[f32; BLOCK]; 3],
    partials: F,
}

impl<F: Fn(f32, f32, f32, f32) -> Partials + Copy> Derivatives<'_, F> {
    #[inline(always)]
    fn write(&mut self, parameters: SpanParameters<'_>) {
        let len = self.inputs[0].len();
        let whole = len / STEP * STEP;
        if let Some((scales, zeros)) = parameters.each() {
            for start in (0..whole).step_by(STEP) {
                let step = start..start + STEP;
                self.ask(&step);
                self.part(step.clone(), pairs(&scales[step.clone()], &zeros[step]));
            }
            self.part(whole..len, pairs(&scales[whole..], &zeros[whole..]));
        } else if let Some((scales, zeros)) = parameters.halves_of_steps() {
            let (scale_pairs, zero_pairs) = (scales.as_chunks::<2>().0, zeros.as_chunks::<2>().0);
            let steps = scale_pairs.iter().zip(zero_pairs);
            for (start, (scales, zeros)) in (0..whole).step_by(STEP).zip(steps) {
                let step = start..start + STEP;
                self.ask(&step);
                self.part(step, (0..STEP).map(|at| of_half(at, scales, zeros)));
            }
            let last = 2 * (whole / STEP);
            let parameters = pairs(&scales[last..], &zeros[last..]);
            for (start, parameter) in (whole..len).step_by(STEP / 2).zip(parameters) {
                self.part(start..len.min(start + STEP / 2), repeat(parameter));
            }
        } else {
            for (group, (&scale, &zero)) in parameters.groups() {
                let parameter = (scale, zero);
                if group.len() % STEP > 0 {
                    self.ask(&group);
                    self.part(group, repeat(parameter));
                    continue;
                }
                for start in group.step_by(STEP) {
                    let step = start..start + STEP;
                    self.ask(&step);
                    self.part(step, repeat(parameter));
                }
            }
        }
    }

    /// Asks for what lies ahead of some elements.
    #[inline(always)]
    fn ask(&self, elements: &Range<usize>) {
        for start in elements.clone().step_by(STEP) {
            self.ahead[0].ask::<STEP>(start);
            self.ahead[1].ask::<STEP>(start);
        }
    }

    /// Writes those at some elements.
    #[inline(always)]
    fn part(&mut self, elements: Range<usize>, parameters: impl Iterator<Item = (f32, f32)>) {
        let [to_input, to_scale, to_zero] = &mut *self.outputs;
        derive(
            self.inputs.map(|values| &values[elements.clone()]),
            parameters,
            &mut to_input[elements.clone()],
            &mut to_scale[elements.clone()],
            &mut to_zero[elements],
            self.partials,
        );
    }
}

/// Writes the derivatives at some elements. A function, whose arguments are known not to overlap.
#[inline(always)]
fn derive(
    [x, gradient]: [&[f32]; 2],
    parameters: impl Iterator<Item = (f32, f32)>,
    to_input: &mut [f32],
    to_scale: &mut [f32],
    to_zero: &mut [f32],
    partials: impl Fn(f32, f32, f32, f32) -> Partials,
) {
    let outputs = to_input.iter_mut().zip(to_scale).zip(to_zero);
    let inputs = x.iter().zip(gradient).zip(parameters);
    for (((&x, &gradient), (scale, zero)), ((input, to_scale), to_zero)) in inputs.zip(outputs) {
        let partials = partials(x, scale, zero, gradient);
        *input = partials.input;
        *to_scale = partials.scale;
        *to_zero = partials.zero_point;
    }
}
