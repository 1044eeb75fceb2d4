//! One row of floats by the weights of two panels: codes become floats in registers, where they are
//! multiplied.
//!
//! Two panels are as many sums side by side as it takes for none to wait for itself.

use super::{
    ask_ahead,
    decode::Decode,
    vector::{Vector, for_quads, quad},
};
use crate::{
    kernel::{layout::BLOCK, weights::GroupZeros},
    simd::Loops,
};

/// Panels that are multiplied at a time.
pub(in crate::kernel) const PANELS: usize = 2;

/// A row, and what it is multiplied by.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct RowOf<'a> {
    pub(in crate::kernel) bits: u32,
    /// What was taken from codes when they were packed.
    pub(in crate::kernel) offset: u8,
    /// The row in blocks, groups filled up with 0 as the weights' are.
    pub(in crate::kernel) x: &'a [[f32; BLOCK]],
    /// Blocks of each group but for the last one, which may have fewer; at least 1.
    pub(in crate::kernel) blocks_of_group: usize,
    pub(in crate::kernel) panels: [Panel<'a>; PANELS],
}

/// The weights of a panel.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Panel<'a> {
    pub(in crate::kernel) blocks: &'a [u8],
    /// `[group][column]`, as the next.
    pub(in crate::kernel) scale: &'a [f32],
    pub(in crate::kernel) zero: GroupZeros<'a>,
}

impl<'a> Panel<'a> {
    /// A block of the group whose parameters begin at `at`.
    pub(super) fn decode(&self, row: &RowOf<'_>, block: &'a [u8], at: usize) -> Decode<'a> {
        Decode {
            bits: row.bits,
            block,
            scale: &self.scale[at..],
            zero: match self.zero {
                GroupZeros::Integer(zeros) => GroupZeros::Integer(&zeros[at..]),
                GroupZeros::Real(zeros, least) => GroupZeros::Real(&zeros[at..], least),
                same @ GroupZeros::Same(_) => same,
            },
            offset: row.offset,
        }
    }
}

/// Adds the products of a row to its sums, those of one panel after those of the other.
pub(super) fn multiply_row<V: Vector, const VECTORS: usize>(
    v: V,
    row: RowOf<'_>,
    sums: &mut [f32],
) {
    match row.bits {
        1 => run::<V, VECTORS, 1>(v, row, sums),
        2 => run::<V, VECTORS, 2>(v, row, sums),
        3 => run::<V, VECTORS, 3>(v, row, sums),
        4 => run::<V, VECTORS, 4>(v, row, sums),
        5 => run::<V, VECTORS, 5>(v, row, sums),
        6 => run::<V, VECTORS, 6>(v, row, sums),
        7 => run::<V, VECTORS, 7>(v, row, sums),
        _ => run::<V, VECTORS, 8>(v, row, sums),
    }
}

fn run<V: Vector, const VECTORS: usize, const BITS: u32>(v: V, row: RowOf<'_>, sums: &mut [f32]) {
    if matches!(row.panels[0].zero, GroupZeros::Real(..)) {
        v.run(Multiply::<V, VECTORS, BITS, true>(v, row, sums));
    } else {
        v.run(Multiply::<V, VECTORS, BITS, false>(v, row, sums));
    }
}

/// `REAL`: zero points are real.
struct Multiply<'a, V, const VECTORS: usize, const BITS: u32, const REAL: bool>(
    V,
    RowOf<'a>,
    &'a mut [f32],
);

impl<V: Vector, const VECTORS: usize, const BITS: u32, const REAL: bool> Loops
    for Multiply<'_, V, VECTORS, BITS, REAL>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(v, row, sums) = self;
        let columns = VECTORS * V::LANES;
        let bytes = 4 * V::LANES * BITS as usize;
        let mut kept = [[v.load_floats(sums); VECTORS]; PANELS];
        for (kept, sums) in kept.iter_mut().zip(sums.chunks_exact(columns)) {
            for (kept, sums) in kept.iter_mut().zip(sums.chunks_exact(V::LANES)) {
                *kept = v.load_floats(sums);
            }
        }
        let [mut first, mut second] = row.panels.map(|panel| panel.blocks);
        for (group, x) in row.x.chunks(row.blocks_of_group).enumerate() {
            let at = group * columns;
            let mut scale = [[v.load_floats(&row.panels[0].scale[at..]); VECTORS]; PANELS];
            let mut zero = scale;
            let mut beside = [[v.splat(0); VECTORS]; PANELS];
            for (index, panel) in row.panels.iter().enumerate() {
                for vector in 0..VECTORS {
                    let lane = at + vector * V::LANES;
                    scale[index][vector] = v.load_floats(&panel.scale[lane..]);
                    beside[index][vector] = panel.zero.beside(v, lane);
                    if let GroupZeros::Real(zeros, _) = panel.zero {
                        zero[index][vector] = v.load_floats(&zeros[lane..]);
                    }
                }
            }
            for x in x {
                let (now, rest) = first.split_at(VECTORS * bytes);
                first = rest;
                let (beside_now, rest) = second.split_at(VECTORS * bytes);
                second = rest;
                let blocks = [now, beside_now];
                ask_ahead::<_, 1>(blocks[0]);
                ask_ahead::<_, 1>(blocks[1]);
                for_quads!(QUAD => {
                    for (panel, block) in blocks.iter().enumerate() {
                        for vector in 0..VECTORS {
                            let block = &block[vector * bytes..(vector + 1) * bytes];
                            let codes = v.flip(quad::<V, BITS, QUAD>(v, block), row.offset);
                            for t in 0..4 {
                                let code = v.lane_bytes(codes, t);
                                let code = v.add_lanes(code, beside[panel][vector]);
                                let scale = scale[panel][vector];
                                let w = if REAL {
                                    v.scaled_from(code, zero[panel][vector], scale)
                                } else {
                                    v.scaled(code, scale)
                                };
                                let sum = &mut kept[panel][vector];
                                *sum = v.multiply_add(*sum, x[4 * QUAD + t as usize], w);
                            }
                        }
                    }
                });
            }
        }
        for (kept, sums) in kept.iter().zip(sums.chunks_exact_mut(columns)) {
            for (kept, sums) in kept.iter().zip(sums.chunks_exact_mut(V::LANES)) {
                v.store_floats(sums, *kept);
            }
        }
    }
}
