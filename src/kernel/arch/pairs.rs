//! Kernels of weights of up to 7 bits for instructions that sum pairs of products of an unsigned and
//! a signed byte in 16 bits: `vpmaddubsw`.
//!
//! A pair of products is at most `2 · 128 · (2^b − 1)`, 32,512 at 7 bits, so that 16 bits hold it and
//! nothing saturates; at 4 bits and below they hold the sum of a whole block of eight quads
//! (8 · 3,840 = 30,720).

use super::{
    Kernel, Rows,
    vector::{Vector, for_quads, four, quad, run_packed, run_unpacked},
};
use crate::{
    kernel::layout::{BLOCK, QUADS},
    simd::Loops,
};

/// Vectors with such an instruction.
pub(in crate::kernel) trait Pairs: Vector {
    /// The name of the kernel.
    const NAME: &'static str;
    /// Rows a tile may have.
    const TILES: &'static [usize];
    /// Sums of 16 bits, two for each lane.
    type Pairs: Copy;

    fn no_pairs(self) -> Self::Pairs;

    /// To each sum of 16 bits, two products of unsigned weights and signed activations.
    fn add_pairs(self, pairs: Self::Pairs, w: Self::Bytes, x: i32) -> Self::Pairs;

    /// The two sums of each lane, added.
    fn sum_pairs(self, pairs: Self::Pairs) -> Self::Sums;
}

/// The kernel of panels of `VECTORS` vectors.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct PairKernel<V, const VECTORS: usize>(pub(in crate::kernel) V);

impl<V: Pairs, const VECTORS: usize> Kernel for PairKernel<V, VECTORS> {
    const NAME: &'static str = V::NAME;
    const LANES: usize = V::LANES;
    const COLUMNS: usize = V::LANES * VECTORS;
    const TILES: &'static [usize] = V::TILES;
    const FUSED: bool = V::FUSED;
    type Code = i8;
    type Weight = u8;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.0.run(loops)
    }

    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, sums: &mut [i32]) {
        let tile = Tile {
            v: self.0,
            bits,
            blocks,
            rows,
            sums,
        };
        run_packed!(self.0, tile, bits, rows.count);
    }

    fn sums_of_unpacked(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, sums: &mut [i32]) {
        let tile = Tile {
            v: self.0,
            bits,
            blocks,
            rows,
            sums,
        };
        run_unpacked!(self.0, tile, rows.count);
    }
}

/// Quads whose sums of pairs 16 bits hold, for weights of a width: `2 · 128 · (2^bits − 1)` a quad.
const fn quads_in_16_bits(bits: u32) -> usize {
    match bits {
        0..=4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    }
}

/// A tile with all it needs: weights of `bits` bits.
struct Tile<'a, V> {
    v: V,
    bits: u32,
    blocks: &'a [u8],
    rows: Rows<'a, i8>,
    sums: &'a mut [i32],
}

type PairsOf<V, const VECTORS: usize, const ROWS: usize> = [[<V as Pairs>::Pairs; VECTORS]; ROWS];

impl<V: Pairs> Tile<'_, V> {
    #[inline(always)]
    fn add<const VECTORS: usize, const ROWS: usize>(
        &self,
        pairs: &mut PairsOf<V, VECTORS, ROWS>,
        w: [V::Bytes; VECTORS],
        x: [&[i8; BLOCK]; ROWS],
        quad: usize,
    ) {
        for (x, pairs) in x.iter().zip(pairs) {
            let four = four(x, quad);
            for (pairs, w) in pairs.iter_mut().zip(w) {
                *pairs = self.v.add_pairs(*pairs, w, four);
            }
        }
    }

    /// Adds the sums of 16 bits to those of 32.
    #[inline(always)]
    fn flush<const VECTORS: usize, const ROWS: usize>(
        &mut self,
        pairs: &mut PairsOf<V, VECTORS, ROWS>,
    ) {
        let sums = self.sums.chunks_exact_mut(V::LANES);
        for (sums, pairs) in sums.zip(pairs.as_flattened_mut()) {
            self.v.add_to(sums, self.v.sum_pairs(*pairs));
            *pairs = self.v.no_pairs();
        }
    }
}

/// A tile of `ROWS` rows over weights packed in `BITS` bits, less than 8.
struct Packed<'a, V, const VECTORS: usize, const BITS: u32, const ROWS: usize>(Tile<'a, V>);

impl<V: Pairs, const VECTORS: usize, const BITS: u32, const ROWS: usize> Loops
    for Packed<'_, V, VECTORS, BITS, ROWS>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut tile = self.0;
        tile.sums[..ROWS * VECTORS * V::LANES].fill(0);
        let vector = 4 * V::LANES * BITS as usize;
        for (index, block) in tile.blocks.chunks_exact(vector * VECTORS).enumerate() {
            let x = tile.rows.block::<ROWS>(index);
            let mut pairs = [[tile.v.no_pairs(); VECTORS]; ROWS];
            for_quads!(QUAD => {
                let mut w = [quad::<V, BITS, QUAD>(tile.v, block); VECTORS];
                for (at, w) in w.iter_mut().enumerate().skip(1) {
                    *w = quad::<V, BITS, QUAD>(tile.v, &block[at * vector..]);
                }
                tile.add(&mut pairs, w, x, QUAD);
                if (QUAD + 1).is_multiple_of(quads_in_16_bits(BITS)) {
                    tile.flush(&mut pairs);
                }
            });
        }
    }
}

/// A tile of `ROWS` rows over weights in the layout of 8 bits.
struct Unpacked<'a, V, const VECTORS: usize, const ROWS: usize>(Tile<'a, V>);

impl<V: Pairs, const VECTORS: usize, const ROWS: usize> Loops for Unpacked<'_, V, VECTORS, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut tile = self.0;
        tile.sums[..ROWS * VECTORS * V::LANES].fill(0);
        let quad = 4 * V::LANES;
        let vector = quad * QUADS;
        let step = quads_in_16_bits(tile.bits);
        for (index, block) in tile.blocks.chunks_exact(vector * VECTORS).enumerate() {
            let x = tile.rows.block::<ROWS>(index);
            for first in (0..QUADS).step_by(step) {
                let mut pairs = [[tile.v.no_pairs(); VECTORS]; ROWS];
                for at in first..first + step {
                    let mut w = [tile.v.load(&block[at * quad..]); VECTORS];
                    for (v, w) in w.iter_mut().enumerate().skip(1) {
                        *w = tile.v.load(&block[v * vector + at * quad..]);
                    }
                    tile.add(&mut pairs, w, x, at);
                }
                tile.flush(&mut pairs);
            }
        }
    }
}
