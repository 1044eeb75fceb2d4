//! What an instruction set must provide, and those there are.
//!
//! A value of a kernel proves that the machine has its instructions. Kernels compute raw sums of
//! products of codes; zero points, scales and outputs are the drivers' business, so that a kernel is
//! a few dozen lines.
#![cfg_attr(
    not(target_arch = "x86_64"),
    allow(
        dead_code,
        reason = "other architectures have fewer kinds of instructions"
    )
)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
pub(super) mod bytes;
pub(super) mod decode;
pub(super) mod ends;
pub(super) mod float_row;
mod lanes;
#[cfg(target_arch = "x86_64")]
pub(super) mod matrices;
pub(super) mod portable;
pub(super) mod products;
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
pub(super) mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::{fmt::Debug, slice::Chunks};

use self::{decode::Decode, ends::Ends, float_row::RowOf};
use super::{
    layout::{BLOCK, Layout, unpack},
    operand::{ActivationCode, Stacks},
    scratch::Weight,
};
use crate::simd::{Loops, prefetch};

/// The activations of a tile, in blocks along the depth: where one block of a row lies beside
/// another's, block `b` of row `r` is `blocks[b · height + r]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, C> {
    pub(super) blocks: &'a [[C; BLOCK]],
    pub(super) stacks: Stacks,
    pub(super) count: usize,
    /// Weights that come next, which a kernel may ask for while it computes.
    pub(super) ahead: &'a [u8],
}

impl<'a, C: Copy> Rows<'a, C> {
    /// A block of each row.
    #[inline(always)]
    fn block<const ROWS: usize>(self, index: usize) -> &'a [[C; BLOCK]] {
        &self.blocks[index * self.stacks.height..][..ROWS]
    }

    /// What comes next, in a part for each of so many steps.
    #[inline(always)]
    fn ahead_in(self, steps: usize) -> Chunks<'a, u8> {
        shares(self.ahead, steps)
    }
}

/// The integer kernel of an instruction set.
///
/// Unpacked weights lie as packed ones of 8 bits do, each widened to [`Weight`](Self::Weight). Both
/// methods sum `x · w` over the segments of `ends`, for `rows.count` rows of activations and the
/// columns of one panel, and end the groups there; integer sums wrap around at 32 bits, and are exact
/// where the depth is within limits.
pub(super) trait Kernel: Copy + Debug + Send + Sync + 'static {
    /// The instruction set and the operands, as DESIGN has it: `avx2-i8u4i32`.
    const NAME: &'static str;
    /// Columns in a vector.
    const LANES: usize;
    /// Columns in a panel, 8, 16 or 32, a multiple of `LANES`.
    const COLUMNS: usize;
    /// Rows a tile of unpacked weights may have, of 12, 8, 6, 4, 2 and 1; greatest first,
    /// ending with 1.
    const TILES: &'static [usize];
    /// The same for packed weights: few, which do not pay for unpacking ahead.
    const PACKED_TILES: &'static [usize];
    /// Rows up to which unpacking a panel ahead does not pay.
    const ROWS_TO_UNPACK: usize = 8;
    /// Blocks in a stretch that stays in the nearest caches, unpacked: 32 KiB of the widest panels.
    const BLOCKS_AT_A_TIME: usize = 32;
    /// Whether a float multiply-add rounds once.
    const FUSED: bool;
    /// The form in which activations are taken.
    type Code: ActivationCode;
    /// The form in which unpacked weights are kept.
    type Weight: Weight;

    /// What is taken from weights of `bits` bits, distances from their least code, so that they are
    /// what the instructions multiply: 0, or 128 where those take signed bytes alone.
    fn offset(_bits: u32) -> u8 {
        0
    }

    /// Whether packed weights of this width are taken as unpacked ones, in tiles of any height.
    fn takes_packed(_bits: u32) -> bool {
        false
    }

    /// The heights of tiles for weights of some bits and so many rows.
    #[inline(always)]
    fn tiles(bits: u32, rows: usize) -> &'static [usize] {
        if rows > Self::ROWS_TO_UNPACK || Self::takes_packed(bits) {
            Self::TILES
        } else {
            Self::PACKED_TILES
        }
    }

    /// How so many rows are to lie: in stacks of the highest tile, unless the kernel has tiles of any
    /// height for rows whose blocks lie in runs of several.
    fn stacks(layout: &Layout, rows: usize) -> Stacks {
        Stacks {
            height: Self::tiles(layout.bits, rows)[0].min(rows).max(1),
            run: 1,
        }
    }

    /// Rows that share a pass over weights of some depth, in whole stacks.
    fn rows_of_pass(_depth: usize) -> usize {
        // Of tiles of 12, 8, 6, 4, 2 and 1 rows.
        480
    }

    /// Runs loops compiled for the instruction set.
    fn run<L: Loops>(self, loops: L) -> L::Output;

    /// Unpacks blocks of `bits` bits into the layout of 8 bits, for activations that lie in such
    /// stacks.
    fn unpack(self, bits: u32, blocks: &[u8], _: Stacks, unpacked: &mut [Self::Weight]) {
        self.run(Unpack::<Self> {
            bits,
            blocks,
            unpacked,
        });
    }

    /// Writes the floats of a block of integer codes, `[depth][column]`.
    fn decode(self, decode: Decode<'_>, to: &mut [f32]);

    /// Adds the products of one row of floats to its sums, those of both panels, in the order of the
    /// depth.
    fn multiply_row(self, row: RowOf<'_>, sums: &mut [f32]);

    /// Sums over packed weights, for [`PACKED_TILES`](Self::PACKED_TILES) rows.
    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, Self::Code>, ends: Ends<'_>);

    /// Sums over weights that were unpacked from `bits` bits, for [`TILES`](Self::TILES) rows, or
    /// any number of a stack in runs of several blocks.
    fn sums_of_unpacked(
        self,
        bits: u32,
        unpacked: &[Self::Weight],
        rows: Rows<'_, Self::Code>,
        ends: Ends<'_>,
    );
}

/// Unpacking in plain loops.
struct Unpack<'a, K: Kernel> {
    bits: u32,
    blocks: &'a [u8],
    unpacked: &'a mut [K::Weight],
}

impl<K: Kernel> Loops for Unpack<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            bits,
            blocks,
            unpacked,
        } = self;
        unpack(bits, K::LANES, blocks, unpacked, K::Weight::from);
    }
}

/// Bytes in equal shares, one for each of so many steps while there are any.
#[inline(always)]
pub(super) fn shares(bytes: &[u8], steps: usize) -> Chunks<'_, u8> {
    bytes.chunks(bytes.len().div_ceil(steps.max(1)).max(1))
}

/// Asks for what lies ahead where weights pass by once, for a few rows: products of so few take no
/// longer than reading the weights.
#[inline(always)]
fn ask_ahead<T, const ROWS: usize>(near: &[T]) {
    if ROWS <= 2 {
        prefetch(near);
    }
}
