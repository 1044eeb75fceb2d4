//! The one driver of loops over elements and their parameters: in steps that are known when compiled,
//! whatever share of the elements a parameter belongs to.

use std::ops::Range;

use super::{Affine, Parameter};
use crate::{element::Real, groups::Span, simd::Ahead};

/// The parameters of the elements of a span.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpanParameters<'a> {
    span: Span,
    scale: &'a [f32],
    zero: &'a [f32],
}

impl<'a> SpanParameters<'a> {
    /// Those of a tensor with parameters `affine`.
    #[inline(always)]
    pub(crate) fn of(affine: &'a Affine, span: &Span) -> Self {
        let parameters = span.parameter..span.parameter + span.parameters();
        Self {
            span: *span,
            scale: &affine.scale()[parameters.clone()],
            zero: &affine.zero_point()[parameters],
        }
    }

    /// A parameter for each element.
    #[inline(always)]
    pub(crate) fn of_each(scale: &'a [f32], zero: &'a [f32]) -> Self {
        Self {
            span: Span {
                start: 0,
                len: scale.len(),
                parameter: 0,
                share: 1,
                skip: 0,
            },
            scale,
            zero,
        }
    }

    /// One parameter, for `len` elements.
    pub(crate) fn shared(parameter: &'a Parameter, len: usize) -> Self {
        Self {
            span: Span {
                start: 0,
                len,
                parameter: 0,
                share: len.max(2),
                skip: 0,
            },
            scale: std::slice::from_ref(&parameter.scale),
            zero: std::slice::from_ref(&parameter.zero_point),
        }
    }

    /// Scales and zero points where each element has its own.
    #[inline(always)]
    pub(crate) fn each(&self) -> Option<(&'a [f32], &'a [f32])> {
        (self.span.share == 1).then_some((self.scale, self.zero))
    }

    /// Scales and zero points where half a [`STEP`] has one, from the first element on: the smallest
    /// groups that are common.
    #[inline(always)]
    pub(crate) fn halves_of_steps(&self) -> Option<(&'a [f32], &'a [f32])> {
        let are_halves = self.span.share == STEP / 2 && self.span.skip == 0;
        are_halves.then_some((self.scale, self.zero))
    }

    /// What lies ahead in an array with an element for each of these: where each element has a
    /// parameter, less of each row, as rows are taken some at a time.
    #[inline(always)]
    pub(crate) fn ahead<A: Copy>(&self, array: &'a [A]) -> Ahead<'a, A> {
        Ahead::of(array, if self.span.share == 1 { 4 } else { 1 })
    }

    /// The elements that share a scale and a zero point, counted from the start of the span.
    #[inline(always)]
    pub(crate) fn groups(
        &self,
    ) -> impl Iterator<Item = (Range<usize>, (&'a f32, &'a f32))> + use<'a> {
        self.span.groups().zip(self.scale.iter().zip(self.zero))
    }
}

/// Elements of a step: a cache line of codes, and enough for the loop over them to be unrolled into
/// vectors with nothing to ask before and after it.
pub(crate) const STEP: usize = 64;

/// Calls `body(element, scale, zero)` for each element with what it writes to; asks ahead for what
/// the input is from, in step.
#[inline(always)]
pub(super) fn zip<T: Real, I: Copy, O, A: Copy>(
    input: &[I],
    output: &mut [O],
    parameters: SpanParameters<'_>,
    ahead: Ahead<'_, A>,
    body: impl Fn(I, &mut O, T, T) + Copy,
) {
    if let Some((scales, zeros)) = parameters.each() {
        let (steps, rest) = input.as_chunks::<STEP>();
        let (out_steps, out_rest) = output.as_chunks_mut::<STEP>();
        let (scale_steps, scale_rest) = scales.as_chunks::<STEP>();
        let (zero_steps, zero_rest) = zeros.as_chunks::<STEP>();
        let mut at = 0;
        let each = scale_steps.iter().zip(zero_steps);
        for ((step, out), (scales, zeros)) in steps.iter().zip(out_steps).zip(each) {
            ahead.ask::<STEP>(at);
            at += STEP;
            with_each(step, out, pairs(scales, zeros), body);
        }
        with_each(rest, out_rest, pairs(scale_rest, zero_rest), body);
    } else if let Some((scales, zeros)) = parameters.halves_of_steps() {
        let (steps, rest) = input.as_chunks::<STEP>();
        let (out_steps, out_rest) = output.as_chunks_mut::<STEP>();
        let (scale_pairs, _) = scales.as_chunks::<2>();
        let (zero_pairs, _) = zeros.as_chunks::<2>();
        let mut at = 0;
        let pairs = scale_pairs.iter().zip(zero_pairs);
        for ((step, out), (scales, zeros)) in steps.iter().zip(out_steps).zip(pairs) {
            ahead.ask::<STEP>(at);
            at += STEP;
            let each = (0..STEP).map(|at| of_half(at, scales, zeros));
            with_each(step, out, each, body);
        }
        // Less than a step is left, so that its last group may be shorter.
        let last = steps.len() * 2;
        let rests = rest.chunks(STEP / 2).zip(out_rest.chunks_mut(STEP / 2));
        for ((rest, out), (&scale, &zero)) in rests.zip(scales[last..].iter().zip(&zeros[last..])) {
            with_one(rest, out, T::of_f32(scale), T::of_f32(zero), body);
        }
    } else {
        for (group, (&scale, &zero)) in parameters.groups() {
            let (scale, zero) = (T::of_f32(scale), T::of_f32(zero));
            let (input, output) = (&input[group.clone()], &mut output[group.clone()]);
            if group.len() % STEP > 0 {
                for at in group.step_by(STEP) {
                    ahead.ask::<STEP>(at);
                }
                with_one(input, output, scale, zero, body);
                continue;
            }
            let mut at = group.start;
            let (steps, _) = input.as_chunks::<STEP>();
            let (out_steps, _) = output.as_chunks_mut::<STEP>();
            for (step, out) in steps.iter().zip(out_steps) {
                ahead.ask::<STEP>(at);
                at += STEP;
                with_one(step, out, scale, zero, body);
            }
        }
    }
}

/// Elements with one parameter. A function, whose arguments are known not to overlap.
#[inline(always)]
fn with_one<T: Real, I: Copy, O>(
    input: &[I],
    output: &mut [O],
    scale: T,
    zero: T,
    body: impl Fn(I, &mut O, T, T),
) {
    for (&x, out) in input.iter().zip(output) {
        body(x, out, scale, zero);
    }
}

/// Elements with a parameter each.
#[inline(always)]
fn with_each<T: Real, I: Copy, O>(
    input: &[I],
    output: &mut [O],
    parameters: impl Iterator<Item = (f32, f32)>,
    body: impl Fn(I, &mut O, T, T),
) {
    for ((&x, out), (scale, zero)) in input.iter().zip(output).zip(parameters) {
        body(x, out, T::of_f32(scale), T::of_f32(zero));
    }
}

/// The scale and the zero point of each element.
#[inline(always)]
pub(crate) fn pairs(scales: &[f32], zeros: &[f32]) -> impl Iterator<Item = (f32, f32)> {
    scales.iter().copied().zip(zeros.iter().copied())
}

/// The scale and the zero point of an element of a step whose halves have one each: known for each
/// vector, once the loop over the step is unrolled.
#[inline(always)]
pub(crate) fn of_half(at: usize, scales: &[f32; 2], zeros: &[f32; 2]) -> (f32, f32) {
    if at < STEP / 2 {
        (scales[0], zeros[0])
    } else {
        (scales[1], zeros[1])
    }
}
