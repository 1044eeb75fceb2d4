//! Kernels of instructions that add four products of bytes to a lane: VNNI, dotprod, i8mm.

use super::{
    Kernel, Rows,
    vector::{Vector, for_quads, four, quad, run_packed, run_unpacked},
};
use crate::{
    kernel::layout::{BLOCK, QUADS},
    simd::Loops,
};

/// Vectors with such an instruction.
pub(in crate::kernel) trait Dot: Vector {
    /// The name of the kernel.
    const NAME: &'static str;
    /// Rows a tile may have.
    const TILES: &'static [usize];
    /// Whether weights are taken as unsigned bytes; otherwise as signed ones.
    const UNSIGNED: bool;

    /// To each lane, the products of its four weights and the four activations, which are the bytes
    /// of `x` in the order of memory.
    fn dot(self, sums: Self::Sums, w: Self::Bytes, x: i32) -> Self::Sums;
}

/// The kernel of panels of `VECTORS` vectors.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct DotKernel<V, const VECTORS: usize>(pub(in crate::kernel) V);

impl<V: Dot, const VECTORS: usize> Kernel for DotKernel<V, VECTORS> {
    const NAME: &'static str = V::NAME;
    const LANES: usize = V::LANES;
    const COLUMNS: usize = V::LANES * VECTORS;
    const TILES: &'static [usize] = V::TILES;
    const FUSED: bool = V::FUSED;
    type Code = i8;
    type Weight = u8;

    fn offset(bits: u32) -> u8 {
        if V::UNSIGNED || bits < 8 { 0 } else { 128 }
    }

    fn takes_packed(bits: u32) -> bool {
        bits == 8
    }

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.0.run(loops)
    }

    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, sums: &mut [i32]) {
        if bits == 8 {
            return self.sums_of_unpacked(bits, blocks, rows, sums);
        }
        let tile = Tile {
            v: self.0,
            blocks,
            rows,
            sums,
        };
        run_packed!(self.0, tile, bits, rows.count);
    }

    fn sums_of_unpacked(self, _: u32, blocks: &[u8], rows: Rows<'_, i8>, sums: &mut [i32]) {
        let tile = Tile {
            v: self.0,
            blocks,
            rows,
            sums,
        };
        run_unpacked!(self.0, tile, rows.count);
    }
}

/// A tile with all it needs.
struct Tile<'a, V> {
    v: V,
    blocks: &'a [u8],
    rows: Rows<'a, i8>,
    sums: &'a mut [i32],
}

/// Sums of a row and vector that are kept apart, so that a few rows do not wait for their own sums.
const CHAINS: usize = 4;

/// As many of them as pay for a number of rows.
const fn chains(rows: usize) -> usize {
    match rows {
        1 => CHAINS,
        2 => 2,
        _ => 1,
    }
}

type Chains<S, const VECTORS: usize, const ROWS: usize> = [[[S; CHAINS]; VECTORS]; ROWS];

impl<V: Dot> Tile<'_, V> {
    #[inline(always)]
    fn add<const VECTORS: usize, const ROWS: usize>(
        &self,
        chained: &mut Chains<V::Sums, VECTORS, ROWS>,
        w: [V::Bytes; VECTORS],
        x: [&[i8; BLOCK]; ROWS],
        quad: usize,
    ) {
        let chain = quad % const { chains(ROWS) };
        for (x, chained) in x.iter().zip(chained) {
            let four = four(x, quad);
            for (sums, w) in chained.iter_mut().zip(w) {
                sums[chain] = self.v.dot(sums[chain], w, four);
            }
        }
    }

    #[inline(always)]
    fn store<const VECTORS: usize, const ROWS: usize>(
        self,
        chained: Chains<V::Sums, VECTORS, ROWS>,
    ) {
        let sums = self.sums.chunks_exact_mut(V::LANES);
        for (sums, chain) in sums.zip(chained.as_flattened()) {
            let mut total = chain[0];
            for &sum in &chain[1..const { chains(ROWS) }] {
                total = self.v.add(total, sum);
            }
            self.v.store(sums, total);
        }
    }
}

/// A tile of `ROWS` rows over weights packed in `BITS` bits, less than 8.
struct Packed<'a, V, const VECTORS: usize, const BITS: u32, const ROWS: usize>(Tile<'a, V>);

impl<V: Dot, const VECTORS: usize, const BITS: u32, const ROWS: usize> Loops
    for Packed<'_, V, VECTORS, BITS, ROWS>
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let tile = self.0;
        let vector = 4 * V::LANES * BITS as usize;
        let mut chained = [[[tile.v.zero(); CHAINS]; VECTORS]; ROWS];
        for (index, block) in tile.blocks.chunks_exact(vector * VECTORS).enumerate() {
            let x = tile.rows.block::<ROWS>(index);
            for_quads!(QUAD => {
                let mut w = [quad::<V, BITS, QUAD>(tile.v, block); VECTORS];
                for (at, w) in w.iter_mut().enumerate().skip(1) {
                    *w = quad::<V, BITS, QUAD>(tile.v, &block[at * vector..]);
                }
                tile.add(&mut chained, w, x, QUAD);
            });
        }
        tile.store(chained);
    }
}

/// A tile of `ROWS` rows over weights in the layout of 8 bits.
struct Unpacked<'a, V, const VECTORS: usize, const ROWS: usize>(Tile<'a, V>);

impl<V: Dot, const VECTORS: usize, const ROWS: usize> Loops for Unpacked<'_, V, VECTORS, ROWS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let tile = self.0;
        let quad = 4 * V::LANES;
        let vector = quad * QUADS;
        let mut chained = [[[tile.v.zero(); CHAINS]; VECTORS]; ROWS];
        for (index, block) in tile.blocks.chunks_exact(vector * VECTORS).enumerate() {
            let x = tile.rows.block::<ROWS>(index);
            for at in 0..QUADS {
                let mut w = [tile.v.load(&block[at * quad..]); VECTORS];
                for (v, w) in w.iter_mut().enumerate().skip(1) {
                    *w = tile.v.load(&block[v * vector + at * quad..]);
                }
                tile.add(&mut chained, w, x, at);
            }
        }
        tile.store(chained);
    }
}
