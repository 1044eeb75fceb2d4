//! The gradients of torch's learnable fake quantization.

use std::ops::Range;

use super::{Partials, Point, Segment, StraightThroughEstimator, segment::Terms};
use crate::{
    affine::scalar::limit,
    element::Real,
    error::{Error, Result},
    groups::Span,
};

/// The gradients of `torch._fake_quantize_learnable_per_tensor_affine` and
/// `torch._fake_quantize_learnable_per_channel_affine`: those of [`Clipped`](super::Clipped), the
/// ones of scales and zero points times a factor that the caller chooses.
///
/// This is for figures that agree with torch's, so it has what torch has:
/// - The backward pass per tensor rounds the zero point in another way than the forward pass: by
///   `trunc(zero_point + 0.5)`, which is one more for every negative integer. Per channel, both are
///   the same. Halves apart, where torch rounds the latent zero point up.
/// - The backward pass multiplies by the reciprocal of the scale and rounds after adding the zero
///   point, where the forward pass rounds before: an input halfway between two codes may count as
///   the other one.
/// - Scale and zero-point gradients are sums in f32, in the order of torch's AVX2 kernels where the
///   elements that share a parameter lie side by side. Where large terms cancel, that order shows in
///   the fifth digit.
///
/// torch's modules choose `1 / √(numel · qmax)` as the factor, with all elements of the tensor also
/// where scales are per channel; [`Lsq`](super::Lsq) has the factor of the paper, one zero point for
/// both passes, and sums in f64.
///
/// One difference stays: torch multiplies by the reciprocal of the scale in the forward pass too, so
/// that a few inputs beside the middle between two codes get the other one.
///
/// ```
/// use lowbit::{Affine, FakeQuantExt, Scheme};
/// use lowbit::qat::{AffineFakeQuant, TorchLearnable};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(8).asymmetric().build()?, 0.5, 3.0)?;
/// let fake = AffineFakeQuant::new(affine, TorchLearnable::per_tensor(0.25)?);
/// let gradients = fake.backward(&array![0.75_f32, 100.0], &array![1.0, 1.0])?;
/// assert_eq!(gradients.input, array![1.0, 0.0]);
/// // 0.75 is 4.5 steps from code 0, and torch's backward pass takes the even code, half a step below
/// assert_eq!(gradients.scale, [(-0.5 + 124.0) * 0.25]);
/// assert_eq!(gradients.zero_point, [-0.5 * 0.25]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TorchLearnable {
    grad_factor: f32,
    /// What the backward pass adds to a negative zero point.
    shift: f32,
}

impl TorchLearnable {
    /// As `torch._fake_quantize_learnable_per_tensor_affine`, with its `grad_factor`; for schemes
    /// with integer zero points.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a factor that is not finite.
    pub fn per_tensor(grad_factor: f32) -> Result<Self> {
        Self::new(grad_factor, 1.0)
    }

    /// As `torch._fake_quantize_learnable_per_channel_affine`, with its `grad_factor`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a factor that is not finite.
    ///
    /// ```
    /// use lowbit::{Affine, FakeQuantExt, Scheme};
    /// use lowbit::qat::{AffineFakeQuant, TorchLearnable};
    /// use ndarray::array;
    ///
    /// let scheme = Scheme::int(2).asymmetric().per_axis(0).build()?;
    /// let affine = Affine::new(scheme, &[2], vec![1.0, 2.0], vec![-2.0, 1.0])?;
    /// let (x, gradient) = (array![[-0.25_f32], [9.0]], array![[1.0], [1.0]]);
    /// let fake = AffineFakeQuant::new(affine, TorchLearnable::per_channel(0.5)?);
    /// assert_eq!(fake.backward(&x, &gradient)?.scale, [0.125, 0.0]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn per_channel(grad_factor: f32) -> Result<Self> {
        Self::new(grad_factor, 0.0)
    }

    fn new(grad_factor: f32, shift: f32) -> Result<Self> {
        if grad_factor.is_finite() {
            Ok(Self { grad_factor, shift })
        } else {
            Err(Error::option("grad_factor", "a finite number", grad_factor))
        }
    }

    /// The output in steps as torch's backward pass has it, and whether nothing was clamped: the
    /// position by the reciprocal, rounded together with the zero point, so that halves go to an even
    /// code and not to an even distance from the zero point.
    #[inline(always)]
    fn level(&self, at: &Point, inverse: f32) -> (f32, bool) {
        let zero = at.zero_point + if at.zero_point < 0.0 { self.shift } else { 0.0 };
        let (least, greatest) = (at.least + at.zero_point, at.greatest + at.zero_point);
        let (code, _) = limit(at.x * inverse + zero, least - 1.0, greatest + 1.0).round_small();
        let clamped = limit(code, least, greatest);
        // NaN, whose code is outside, stays NaN.
        let level = if at.level.is_nan() {
            at.level
        } else {
            clamped - zero
        };
        (level, code == clamped)
    }
}

impl StraightThroughEstimator for TorchLearnable {
    #[inline(always)]
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        let inverse = 1.0 / at.scale;
        let (level, inside) = if at.integers {
            self.level(at, inverse)
        } else {
            (at.level, at.inside)
        };
        // torch's arithmetic: the difference in real units, then times the reciprocal.
        let to_scale = if inside {
            gradient * (level * at.scale - at.x) * inverse
        } else {
            gradient * level
        };
        Partials {
            input: if inside { gradient } else { 0.0 },
            scale: to_scale * self.grad_factor,
            zero_point: if inside { 0.0 } else { -gradient } * at.scale * self.grad_factor,
        }
    }

    fn backward(&self, mut segment: Segment<'_>) {
        // The order of torch's sum depends on how many terms there are: all are kept first.
        let sums = segment.sums.take();
        let (groups, elements) = (segment.groups, segment.elements());
        let mut kept = Kept::of(&elements);
        segment.apply_to(&mut kept, |at, gradient| self.partials(at, gradient));
        let Some([to_scales, to_zeros]) = sums else {
            return;
        };
        let start = elements.start;
        let mut spans = groups.spans(elements);
        while let Some(span) = spans.next_within(usize::MAX) {
            for (sums, terms) in [
                (&mut *to_scales, &kept.to_scale),
                (&mut *to_zeros, &kept.to_zero),
            ] {
                let terms = &terms[span.start - start..];
                for (total, group) in sums.of_span(&span).iter_mut().zip(span.groups()) {
                    *total += f64::from(cascade_sum(&terms[group]));
                }
            }
        }
    }
}

/// The gradients of scales and zero points, element by element.
struct Kept {
    /// The first element.
    start: usize,
    to_scale: Vec<f32>,
    to_zero: Vec<f32>,
}

impl Kept {
    fn of(elements: &Range<usize>) -> Self {
        Self {
            start: elements.start,
            to_scale: vec![0.0; elements.len()],
            to_zero: vec![0.0; elements.len()],
        }
    }
}

impl Terms for Kept {
    #[inline(always)]
    fn add(&mut self, span: &Span, to_scale: &[f32], to_zero: &[f32]) {
        let at = span.start - self.start;
        self.to_scale[at..][..span.len].copy_from_slice(to_scale);
        self.to_zero[at..][..span.len].copy_from_slice(to_zero);
    }
}

/// The sum of torch's `cascade_sum` over contiguous f32, as AVX2 does it: vectors of 8 lanes, four
/// of them at a time, each with four levels of accumulators; elements that fill no vector first.
fn cascade_sum(terms: &[f32]) -> f32 {
    const LANES: usize = 8;
    const LEVELS: usize = 4;
    let (vectors, rest) = terms.as_chunks::<LANES>();
    let (rows, last) = vectors.as_chunks::<4>();
    // Each level takes over the sum of the one below after so many rows.
    let power = (rows.len().next_power_of_two().ilog2() / 4).max(4);
    let mut levels = [[[0.0_f32; LANES]; 4]; LEVELS];
    let add = |to: &mut [f32; LANES], from: &[f32; LANES]| {
        for (to, from) in to.iter_mut().zip(from) {
            *to += from;
        }
    };
    let step = 1_usize << power;
    for (index, row) in rows.iter().enumerate() {
        for (to, from) in levels[0].iter_mut().zip(row) {
            add(to, from);
        }
        let mut done = index + 1;
        for level in 1..LEVELS {
            if !done.is_multiple_of(step) {
                break;
            }
            let below = std::mem::take(&mut levels[level - 1]);
            for (to, from) in levels[level].iter_mut().zip(&below) {
                add(to, from);
            }
            done /= step;
        }
    }
    let [mut sums, upper @ ..] = levels;
    for level in &upper {
        for (to, from) in sums.iter_mut().zip(level) {
            add(to, from);
        }
    }
    let [mut sum, others @ ..] = sums;
    for vector in last {
        add(&mut sum, vector);
    }
    for other in &others {
        add(&mut sum, other);
    }
    let rest = rest.iter().fold(0.0, |total, term| total + term);
    sum.iter().fold(rest, |total, lane| total + lane)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_of_torch_leaves_nothing_out() {
        for len in (0..200).chain([511, 512, 2_047, 2_048, 2_049, 65_536, 70_001]) {
            // Integers, whose sums are exact in any order.
            let terms: Vec<f32> = (0..len).map(|term| (term % 17) as f32).collect();
            let exact: i32 = (0..len).map(|term| term % 17).sum();
            assert_eq!(cascade_sum(&terms), exact as f32);
        }
    }

    #[test]
    fn the_sum_of_torch_has_its_order() {
        // 8 lanes: the large terms meet in lane 0 before the small one comes, which stays.
        let mut terms = vec![0.0_f32; 32];
        (terms[0], terms[1], terms[8]) = (1e8, 1.0, -1e8);
        assert_eq!(cascade_sum(&terms), 1.0);
        // Elements that fill no vector come first, so that a small one is lost beside lane 0.
        let mut terms = vec![0.0_f32; 17];
        (terms[0], terms[1], terms[16]) = (1e8, -1e8, 1.0);
        assert_eq!(cascade_sum(&terms), 0.0);
    }
}
