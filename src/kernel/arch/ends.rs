//! The ends of groups: sums of codes made exact by zero points, then scaled.
//!
//! With `d` the packed codes of the weights, `w = d − z`, and `x` the codes of the activations,
//!
//! ```text
//! Σ (x − zx) (d − z) = Σ x·d − zx · Σ d − z · Σ (x − zx)
//! ```
//!
//! over each group along the depth: the first sum is the kernel's, the second is known when the
//! weights are packed, the third when activations are quantized. All are computed modulo 2³², and the
//! result is within it, so that it is exact. Float sums take the exact sum of each group times its
//! scale, in the order of the groups; with real zero points
//! `(Σ (x − zx)·q − z · Σ (x − zx)) · scale`.

use std::ops::Range;

use super::{ask_ahead, lanes::Lanes};
use crate::kernel::{layout::Segment, weights::GroupZeros};

/// What ends the groups of a panel, for the rows of a tile.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Parameters<'a> {
    /// Of the panel, `[group][column]`, as all that follow.
    pub(in crate::kernel) zero: GroupZeros<'a>,
    /// The scales of the weights; none where sums are not scaled.
    pub(in crate::kernel) scale: &'a [f32],
    /// `Σ d` of each column; needed where activations have zero points.
    pub(in crate::kernel) code_sums: &'a [i32],
    /// What was taken from codes when they were packed.
    pub(in crate::kernel) offset: i32,
    /// `Σ (x − zx)`, times what the weights want (`Weights::x_factor`), `[group][row]` from the
    /// first row of the tile on.
    pub(in crate::kernel) x_sums: &'a [i32],
    /// From one group to the next.
    pub(in crate::kernel) x_stride: usize,
    /// `zx` of each row of the tile.
    pub(in crate::kernel) x_zero: &'a [i32],
}

impl Parameters<'_> {
    /// Whether the zero points of the weights are the same, and those of the activations 0.
    pub(in crate::kernel) fn are_plain(&self) -> bool {
        matches!(self.zero, GroupZeros::Same(_)) && self.code_sums.is_empty()
    }
}

/// Where a tile puts its sums, `[row][column]`.
#[derive(Debug)]
pub(in crate::kernel) struct Ends<'a> {
    pub(in crate::kernel) segments: &'a [Segment],
    pub(in crate::kernel) parameters: Parameters<'a>,
    /// [`Parameters::are_plain`], and sums are scaled.
    pub(in crate::kernel) are_plain: bool,
    /// Raw sums of a group that goes on in another stretch; exact ones where none are scaled.
    pub(in crate::kernel) raw: &'a mut [i32],
    /// Float sums over the groups; none where exact ones are wanted.
    pub(in crate::kernel) scaled: &'a mut [f32],
}

impl Ends<'_> {
    /// The same of some rows of the tile.
    #[inline(always)]
    pub(super) fn of_rows(&mut self, columns: usize, rows: Range<usize>) -> Ends<'_> {
        let sums = rows.start * columns..rows.end * columns;
        Ends {
            segments: self.segments,
            parameters: Parameters {
                x_sums: &self.parameters.x_sums[rows.start..],
                x_zero: &self.parameters.x_zero[rows],
                ..self.parameters
            },
            are_plain: self.are_plain,
            raw: &mut self.raw[sums.clone()],
            scaled: self.scaled.get_mut(sums).unwrap_or_default(),
        }
    }

    /// Whether a segment is a group of which there is nothing to say but one number for each row.
    #[inline(always)]
    pub(super) fn is_plain(&self, segment: &Segment) -> bool {
        self.are_plain && segment.begins && segment.ends
    }

    /// What the sums over a segment begin with, for each row.
    #[inline(always)]
    pub(super) fn start<V: Lanes, const ROWS: usize>(
        &self,
        v: V,
        segment: &Segment,
    ) -> [V::Lanes; ROWS] {
        let mut start = [v.splat(0); ROWS];
        if self.is_plain(segment) {
            let parameters = &self.parameters;
            let x_sums = &parameters.x_sums[segment.group * parameters.x_stride..][..ROWS];
            for (start, &x_sum) in start.iter_mut().zip(x_sums) {
                *start = v.splat(x_sum);
            }
        }
        start
    }

    /// Takes the sums over a segment, those that it [started](Self::start) with included, of one
    /// vector of columns and each row.
    #[inline(always)]
    pub(super) fn take<V: Lanes, const ROWS: usize>(
        &mut self,
        v: V,
        columns: usize,
        segment: &Segment,
        vector: usize,
        sums: &[V::Lanes; ROWS],
    ) {
        if !self.is_plain(segment) {
            return self.take_any(v, columns, segment, vector, *sums);
        }
        self.scale(v, segment.group, columns, vector * V::LANES, sums);
    }

    /// Takes the raw sums over a group that are in their place, at its end.
    #[inline(always)]
    pub(super) fn take_raw<V: Lanes, const ROWS: usize>(
        &mut self,
        v: V,
        columns: usize,
        segment: &Segment,
        vector: usize,
    ) {
        let lane = vector * V::LANES;
        let mut sums = [v.splat(0); ROWS];
        for (row, sums) in sums.iter_mut().enumerate() {
            *sums = v.load_lanes(&self.raw[row * columns + lane..]);
        }
        self.make_exact(v, segment.group, columns, lane, &mut sums);
        if self.scaled.is_empty() {
            for (row, sums) in sums.into_iter().enumerate() {
                v.store_lanes(&mut self.raw[row * columns + lane..], sums);
            }
        } else {
            self.scale(v, segment.group, columns, lane, &sums);
        }
    }

    /// The same in all cases.
    #[inline(always)]
    fn take_any<V: Lanes, const ROWS: usize>(
        &mut self,
        v: V,
        columns: usize,
        segment: &Segment,
        vector: usize,
        mut sums: [V::Lanes; ROWS],
    ) {
        let lane = vector * V::LANES;
        let raw = &mut self.raw[..ROWS * columns];
        if !segment.begins {
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = v.add_lanes(*sums, v.load_lanes(&raw[row * columns + lane..]));
            }
        }
        if segment.ends {
            self.make_exact(v, segment.group, columns, lane, &mut sums);
            if !self.scaled.is_empty() {
                return self.scale(v, segment.group, columns, lane, &sums);
            }
        }
        let raw = &mut self.raw[..ROWS * columns];
        for (row, sums) in sums.into_iter().enumerate() {
            v.store_lanes(&mut raw[row * columns + lane..], sums);
        }
    }

    #[inline(always)]
    fn make_exact<V: Lanes, const ROWS: usize>(
        &self,
        v: V,
        group: usize,
        columns: usize,
        lane: usize,
        sums: &mut [V::Lanes; ROWS],
    ) {
        let parameters = &self.parameters;
        let at = group * columns + lane;
        let x_sums = &parameters.x_sums[group * parameters.x_stride..][..ROWS];
        match parameters.zero {
            GroupZeros::Same(_) => {
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = v.add_lanes(*sums, v.splat(x_sums[row]));
                }
            }
            GroupZeros::Integer(zeros) => {
                let zeros = v.widen_to_lanes(&zeros[at..]);
                let zeros = v.add_lanes(zeros, v.splat(-parameters.offset));
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = v.subtract_products(*sums, zeros, x_sums[row]);
                }
            }
            GroupZeros::Real(_, least) => {
                let zero = v.splat(-least - parameters.offset);
                for (row, sums) in sums.iter_mut().enumerate() {
                    *sums = v.subtract_products(*sums, zero, x_sums[row]);
                }
            }
        }
        if !parameters.code_sums.is_empty() {
            let x_zero = &parameters.x_zero[..ROWS];
            let code_sums = v.load_lanes(&parameters.code_sums[at..]);
            for (row, sums) in sums.iter_mut().enumerate() {
                *sums = v.subtract_products(*sums, code_sums, x_zero[row]);
            }
        }
    }

    #[inline(always)]
    #[expect(
        clippy::cast_precision_loss,
        reason = "rounded once, as a float sum of the same products would be"
    )]
    fn scale<V: Lanes, const ROWS: usize>(
        &mut self,
        v: V,
        group: usize,
        columns: usize,
        lane: usize,
        sums: &[V::Lanes; ROWS],
    ) {
        let parameters = &self.parameters;
        let at = group * columns + lane;
        let scale = &parameters.scale[at..at + V::LANES];
        ask_ahead::<_, ROWS>(scale);
        let scale = v.load_floats(scale);
        let scaled = &mut self.scaled[..ROWS * columns];
        if let GroupZeros::Real(zeros, _) = parameters.zero {
            let zeros = v.load_floats(&zeros[at..]);
            let x_sums = &parameters.x_sums[group * parameters.x_stride..][..ROWS];
            for (row, &sums) in sums.iter().enumerate() {
                let x_sum = x_sums[row] as f32;
                let scaled = &mut scaled[row * columns + lane..];
                v.add_scaled_from(scaled, sums, (zeros, x_sum), scale);
            }
        } else {
            for (row, &sums) in sums.iter().enumerate() {
                v.add_scaled(&mut scaled[row * columns + lane..], sums, scale);
            }
        }
    }
}
