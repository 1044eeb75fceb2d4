//! Codes that become floats, `(q − zero) · scale`, a block of a panel at a time.

use super::{
    lanes::Lanes,
    vector::{Vector, for_quads, quad},
};
use crate::{
    kernel::{layout::BLOCK, weights::GroupZeros},
    simd::Loops,
};

/// What decoding a block of integer codes needs, of the columns of its panel.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Decode<'a> {
    pub(in crate::kernel) bits: u32,
    /// The packed codes of one block.
    pub(in crate::kernel) block: &'a [u8],
    pub(in crate::kernel) scale: &'a [f32],
    pub(in crate::kernel) zero: GroupZeros<'a>,
    /// What was taken from codes when they were packed: 0, or 128 by turning the highest bit.
    pub(in crate::kernel) offset: u8,
}

/// Writes the floats of a block, `[depth][column]`.
pub(super) fn decode<V: Vector, const VECTORS: usize>(v: V, decode: Decode<'_>, to: &mut [f32]) {
    match decode.bits {
        1 => v.run(Block::<V, VECTORS, 1>(v, decode, to)),
        2 => v.run(Block::<V, VECTORS, 2>(v, decode, to)),
        3 => v.run(Block::<V, VECTORS, 3>(v, decode, to)),
        4 => v.run(Block::<V, VECTORS, 4>(v, decode, to)),
        5 => v.run(Block::<V, VECTORS, 5>(v, decode, to)),
        6 => v.run(Block::<V, VECTORS, 6>(v, decode, to)),
        7 => v.run(Block::<V, VECTORS, 7>(v, decode, to)),
        _ => v.run(Block::<V, VECTORS, 8>(v, decode, to)),
    }
}

struct Block<'a, V, const VECTORS: usize, const BITS: u32>(V, Decode<'a>, &'a mut [f32]);

impl<V: Vector, const VECTORS: usize, const BITS: u32> Loops for Block<'_, V, VECTORS, BITS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(v, decode, to) = self;
        let columns = VECTORS * V::LANES;
        let bytes = 4 * V::LANES * BITS as usize;
        let to = &mut to[..BLOCK * columns];
        for vector in 0..VECTORS {
            let lane = vector * V::LANES;
            let block = &decode.block[vector * bytes..(vector + 1) * bytes];
            let scale = v.load_floats(&decode.scale[lane..]);
            let out = &mut to[lane..];
            let mut place = 0;
            let beside = decode.zero.beside(v, lane);
            // Real zero points have a loop of their own, which asks nothing.
            match decode.zero {
                GroupZeros::Same(_) | GroupZeros::Integer(_) => {
                    for_quads!(QUAD => {
                        let codes = v.flip(quad::<V, BITS, QUAD>(v, block), decode.offset);
                        for t in 0..4 {
                            let code = v.add_lanes(v.lane_bytes(codes, t), beside);
                            v.store_floats(&mut out[place..], v.scaled(code, scale));
                            place += columns;
                        }
                    });
                }
                GroupZeros::Real(zeros, _) => {
                    let zeros = v.load_floats(&zeros[lane..]);
                    for_quads!(QUAD => {
                        let codes = v.flip(quad::<V, BITS, QUAD>(v, block), decode.offset);
                        for t in 0..4 {
                            let code = v.add_lanes(v.lane_bytes(codes, t), beside);
                            v.store_floats(&mut out[place..], v.scaled_from(code, zeros, scale));
                            place += columns;
                        }
                    });
                }
            }
        }
    }
}

impl GroupZeros<'_> {
    /// What is added to the codes of a vector of columns before they are scaled: minus their integer
    /// zero points, or the least code where zero points are real.
    #[inline(always)]
    pub(super) fn beside<V: Lanes>(self, v: V, lane: usize) -> V::Lanes {
        match self {
            GroupZeros::Same(zero) => v.splat(-zero),
            GroupZeros::Integer(zeros) => {
                v.subtract_products(v.splat(0), v.widen_to_lanes(&zeros[lane..]), 1)
            }
            GroupZeros::Real(_, least) => v.splat(least),
        }
    }
}
