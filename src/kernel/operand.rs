//! Activations as a kernel takes them: 8-bit codes in blocks along the depth, and the sums that zero
//! points need.

use ndarray::ArrayView2;

use super::{
    arch::ActivationCode,
    layout::{BLOCK, Layout, to_i32},
};
use crate::{
    element::Code,
    parallel::{PIECE, over_pieces},
};

/// Quantized activations `[rows, depth]`, groups filled up with 0 as the weights' are.
#[derive(Debug)]
pub(super) struct Operand<C> {
    pub(super) blocks: Vec<[C; BLOCK]>,
    /// Blocks from one row to the next.
    pub(super) stride: usize,
    pub(super) rows: usize,
    /// `Σ (x − zero)` for each row and group.
    pub(super) sums: Vec<i32>,
    /// The zero point of each row, on the same footing as the codes.
    pub(super) zero: Vec<i32>,
    /// Real units per step, of each row.
    pub(super) scale: Vec<f32>,
}

impl<C: ActivationCode> Operand<C> {
    /// From codes of at most 8 bits, with a scale and a zero point for each row, or one for all.
    ///
    /// `offset` is taken from codes and zero points alike, so that unsigned codes fit `i8`.
    pub(super) fn new<T: Code>(
        codes: ArrayView2<'_, T>,
        offset: i32,
        zero: &[i32],
        scale: &[f32],
        layout: &Layout,
    ) -> Self {
        let rows = codes.nrows();
        let each = |index: usize, len: usize| if len == 1 { 0 } else { index };
        let zero: Vec<i32> = (0..rows)
            .map(|row| zero[each(row, zero.len())] - offset)
            .collect();
        let scale = (0..rows).map(|row| scale[each(row, scale.len())]).collect();
        let (blocks_of_row, groups) = (layout.blocks(), layout.groups());
        // Rows a multiple of a page apart would share a few lines of the nearest cache.
        let stride = if (blocks_of_row * BLOCK).is_multiple_of(1024) {
            blocks_of_row + 2
        } else {
            blocks_of_row
        };
        let mut blocks = vec![[C::default(); BLOCK]; rows * stride];
        let piece = stride.max(1) * PIECE.div_ceil(layout.depth.max(1));
        over_pieces(&mut blocks, piece, |start, blocks| {
            let first = start / stride;
            for (index, blocks) in blocks.chunks_exact_mut(stride).enumerate() {
                let row = codes.row(first + index);
                for group in layout.all_groups() {
                    let blocks = blocks[group.block..group.block + group.blocks].as_flattened_mut();
                    let from = row.slice(ndarray::s![group.start..group.start + group.len]);
                    for (to, &code) in blocks.iter_mut().zip(from) {
                        *to = C::from(<i8 as Code>::truncate(code.into() - offset));
                    }
                }
            }
        });
        let mut sums = vec![0; rows * groups];
        let piece = groups.max(1) * PIECE.div_ceil(layout.depth.max(1));
        over_pieces(&mut sums, piece, |start, sums| {
            let first = start / groups;
            for (index, sums) in sums.chunks_exact_mut(groups).enumerate() {
                let row = codes.row(first + index);
                let shift = zero[first + index] + offset;
                for (group, sum) in layout.all_groups().zip(sums) {
                    let from = row.slice(ndarray::s![group.start..group.start + group.len]);
                    let total: i32 = from.iter().map(|&code| code.into()).sum();
                    *sum = total - shift * to_i32(group.len);
                }
            }
        });
        Self {
            blocks,
            stride,
            rows,
            sums,
            zero,
            scale,
        }
    }
}
