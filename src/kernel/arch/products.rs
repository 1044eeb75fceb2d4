//! How products of bytes are summed: in 32 bits, or in pairs of 16 that are widened in time.

use std::fmt::Debug;

use super::vector::{Dot, PairSums, Vector};
use crate::kernel::layout::QUADS;

/// How products of bytes are summed.
pub(in crate::kernel) trait Products<V: Vector>:
    Copy + Debug + Send + Sync + 'static
{
    /// The name of the kernel.
    const NAME: &'static str;
    /// Rows a tile of unpacked weights may have, greatest first.
    const TILES: &'static [usize];
    /// Rows up to which unpacking a panel ahead does not pay.
    const ROWS_TO_UNPACK: usize;
    /// Whether unsigned bytes of 8 bits may be weights; otherwise they are packed as signed ones.
    const UNSIGNED: bool;
    /// Whether weights of 8 bits are taken at all.
    const TAKES_BYTES: bool;
    /// Whether a part may be full; others may have to wait for their own sums, and are kept in chains.
    const FILLS: bool;
    /// Sums of products.
    type Part: Copy;

    /// Quads whose products a part holds, for weights of some bits.
    fn capacity(bits: u32) -> usize;

    fn none(v: V) -> Self::Part;

    /// A part that begins with a number, where it has place for one.
    fn start(v: V, start: V::Lanes) -> Self::Part;

    /// To each lane, the products of its four weights and the four activations, which are the bytes
    /// of `x` in the order of memory.
    fn add(v: V, part: Self::Part, w: V::Bytes, x: i32) -> Self::Part;

    fn widen(v: V, part: Self::Part) -> V::Sums;
}

/// Sums of 32 bits, as of VNNI, dotprod, i8mm.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Dots;

impl<V: Dot> Products<V> for Dots {
    const NAME: &'static str = V::NAME;
    const TILES: &'static [usize] = <V as Dot>::TILES;
    // Instructions that shift and mask beside those that multiply cost nothing in high tiles.
    const ROWS_TO_UNPACK: usize = if V::LANES == 16 { usize::MAX } else { 8 };
    const UNSIGNED: bool = V::UNSIGNED;
    const TAKES_BYTES: bool = true;
    const FILLS: bool = false;
    type Part = V::Sums;

    #[inline(always)]
    fn capacity(_: u32) -> usize {
        usize::MAX
    }

    #[inline(always)]
    fn none(v: V) -> V::Sums {
        v.zero()
    }

    #[inline(always)]
    fn start(v: V, start: V::Lanes) -> V::Sums {
        v.of_lanes(start)
    }

    #[inline(always)]
    fn add(v: V, part: V::Sums, w: V::Bytes, x: i32) -> V::Sums {
        v.dot(part, w, x)
    }

    #[inline(always)]
    fn widen(_: V, part: V::Sums) -> V::Sums {
        part
    }
}

/// Sums of pairs in 16 bits, for weights of up to 7 bits: `vpmaddubsw`.
///
/// A pair of products is at most `2 · 128 · (2^b − 1)`, 32,512 at 7 bits, so that 16 bits hold it and
/// nothing saturates; at 4 bits they hold the sum of a whole block of eight quads (8 · 3,840 =
/// 30,720), at 2 bits of five.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Pairs;

impl<V: PairSums> Products<V> for Pairs {
    const NAME: &'static str = V::NAME;
    const TILES: &'static [usize] = <V as PairSums>::TILES;
    const ROWS_TO_UNPACK: usize = 8;
    const UNSIGNED: bool = true;
    const TAKES_BYTES: bool = false;
    const FILLS: bool = true;
    type Part = V::Pairs;

    #[inline(always)]
    fn capacity(bits: u32) -> usize {
        match bits {
            0..=1 => 15 * QUADS,
            2 => 5 * QUADS,
            3 => 2 * QUADS,
            4 => QUADS,
            5 => 4,
            6 => 2,
            _ => 1,
        }
    }

    #[inline(always)]
    fn none(v: V) -> V::Pairs {
        v.no_pairs()
    }

    #[inline(always)]
    fn start(v: V, _: V::Lanes) -> V::Pairs {
        v.no_pairs()
    }

    #[inline(always)]
    fn add(v: V, part: V::Pairs, w: V::Bytes, x: i32) -> V::Pairs {
        v.add_pairs(part, w, x)
    }

    #[inline(always)]
    fn widen(v: V, part: V::Pairs) -> V::Sums {
        v.sum_pairs(part)
    }
}
