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
pub(super) mod dot;
pub(super) mod pairs;
pub(super) mod portable;
mod vector;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
mod wasm32;
pub(super) mod words;
#[cfg(target_arch = "x86_64")]
mod x86;

use std::fmt::Debug;

use super::layout::BLOCK;
use crate::simd::Loops;

/// The form in which a kernel takes activations: codes that fit `i8`, perhaps widened.
pub(super) trait ActivationCode:
    Copy + Default + Debug + Send + Sync + From<i8> + 'static
{
}

impl ActivationCode for i8 {}
impl ActivationCode for i16 {}

/// The activations of a tile, in blocks along the depth: block `b` of row `r` is
/// `blocks[r · stride + b]`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a, C> {
    pub(super) blocks: &'a [[C; BLOCK]],
    pub(super) stride: usize,
    pub(super) count: usize,
}

impl<'a, C> Rows<'a, C> {
    /// One block of each of `ROWS` rows.
    #[inline(always)]
    fn block<const ROWS: usize>(self, index: usize) -> [&'a [C; BLOCK]; ROWS] {
        std::array::from_fn(|row| &self.blocks[row * self.stride + index])
    }
}

/// The integer kernel of an instruction set.
///
/// Unpacked weights lie as packed ones of 8 bits do, each widened to [`Weight`](Self::Weight). Both
/// methods write `Σ x · w` over the depth of the blocks, for `rows.count` rows of activations and the
/// columns of one panel, to `sums[row][column]`; sums wrap around at 32 bits, and are exact where the
/// depth is within limits.
pub(super) trait Kernel: Copy + Debug + Send + Sync + 'static {
    /// The instruction set and the operands, as DESIGN has it: `avx2-i8u4i32`.
    const NAME: &'static str;
    /// Columns in a vector.
    const LANES: usize;
    /// Columns in a panel, a multiple of `LANES`; at most [`MAX_COLUMNS`].
    const COLUMNS: usize;
    /// Rows a tile of unpacked weights may have, greatest first, ending with 1; at most
    /// [`MAX_ROWS`].
    const TILES: &'static [usize];
    /// Whether a float multiply-add rounds once.
    const FUSED: bool;
    /// The form in which activations are taken.
    type Code: ActivationCode;
    /// The form in which unpacked weights are kept.
    type Weight: Copy + Default + Debug + Send + Sync + From<u8>;

    /// What is taken from weights of `bits` bits, distances from their least code, so that they are
    /// what the instructions multiply: 0, or 128 where those take signed bytes alone.
    fn offset(_bits: u32) -> u8 {
        0
    }

    /// Whether packed weights of this width are taken as unpacked ones, in tiles of any height.
    fn takes_packed(_bits: u32) -> bool {
        false
    }

    /// Runs loops compiled for the instruction set.
    fn run<L: Loops>(self, loops: L) -> L::Output;

    /// Sums over packed weights, for [`PACKED_TILES`] rows: few, which do not pay for unpacking ahead.
    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, Self::Code>, sums: &mut [i32]);

    /// Sums over weights that were unpacked from `bits` bits, for [`TILES`](Self::TILES) rows.
    fn sums_of_unpacked(
        self,
        bits: u32,
        unpacked: &[Self::Weight],
        rows: Rows<'_, Self::Code>,
        sums: &mut [i32],
    );
}

/// Rows a tile of packed weights may have.
pub(super) const PACKED_TILES: &[usize] = &[4, 2, 1];
/// Columns of the widest panel.
pub(super) const MAX_COLUMNS: usize = 32;
/// Rows of the highest tile.
pub(super) const MAX_ROWS: usize = 12;
