//! Kernels of weights of 8 bits for instructions that multiply words: both operands are widened to
//! 16 bits, and pairs of products are summed exactly in 32.
//!
//! The quads of a vector of columns are widened in two halves, each of half the columns; every column
//! has two sums, of the even and of the odd pairs of its quads, added at the end.

use super::{
    Kernel, Rows, ask_ahead,
    decode::{Decode, decode},
    ends::Ends,
    float_row::{RowOf, multiply_row},
    vector::Vector,
};
use crate::{
    kernel::layout::{QUADS, blocks_of},
    simd::{Loops, ask_for},
};

/// Vectors with such an instruction.
pub(in crate::kernel) trait Words: Vector {
    /// The name of the kernel.
    const NAME: &'static str;
    /// Rows a tile may have.
    const TILES: &'static [usize];
    /// A vector of words.
    type Words: Copy;

    /// The first `2 · LANES` bytes of a slice, widened.
    fn widen(self, bytes: &[u8]) -> Self::Words;

    /// The first `2 · LANES` words of a slice.
    fn load_words(self, words: &[i16]) -> Self::Words;

    /// The four activations, in the place of every four words.
    fn broadcast(self, x: [i16; 4]) -> Self::Words;

    /// To each of the `LANES` sums, the products of two neighbouring words.
    fn add_products(self, sums: Self::Sums, w: Self::Words, x: Self::Words) -> Self::Sums;

    /// The sums of neighbours in two vectors, those of the first one first.
    fn sum_neighbours(self, low: Self::Sums, high: Self::Sums) -> Self::Lanes;
}

/// Four words side by side, in the order of memory.
#[cfg(any(target_arch = "x86_64", target_arch = "wasm32"))]
#[inline(always)]
pub(super) fn four_words(x: [i16; 4]) -> i64 {
    let [a, b, c, d] = x.map(|word| u64::from(word.cast_unsigned()));
    (a | b << 16 | c << 32 | d << 48).cast_signed()
}

/// The kernel of panels of `VECTORS` vectors, whose sums are computed one after the other.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct WordKernel<V, const VECTORS: usize>(pub(in crate::kernel) V);

/// Vectors of words that the quads of a vector of columns take.
const HALVES: usize = 2;

impl<V: Words, const VECTORS: usize> Kernel for WordKernel<V, VECTORS> {
    const NAME: &'static str = V::NAME;
    const LANES: usize = V::LANES;
    const COLUMNS: usize = V::LANES * VECTORS;
    const TILES: &'static [usize] = V::TILES;
    const PACKED_TILES: &'static [usize] = &[4, 2, 1];
    const FUSED: bool = V::FUSED;
    type Code = i16;
    type Weight = i16;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.0.run(loops)
    }

    fn decode(self, of: Decode<'_>, to: &mut [f32]) {
        decode::<V, VECTORS>(self.0, of, to);
    }

    fn multiply_row(self, row: RowOf<'_>, sums: &mut [f32]) {
        multiply_row::<V, VECTORS>(self.0, row, sums);
    }

    fn sums(self, _: u32, blocks: &[u8], rows: Rows<'_, i16>, ends: Ends<'_>) {
        let tile = Tile {
            v: self.0,
            source: Bytes(self.0, blocks),
            rows,
            ends,
        };
        match rows.count {
            1 => self.0.run(Rowed::<V, _, VECTORS, 1, VECTORS>(tile)),
            2 => self.0.run(Rowed::<V, _, VECTORS, 2, VECTORS>(tile)),
            _ => self.0.run(Rowed::<V, _, VECTORS, 4, 1>(tile)),
        }
    }

    fn sums_of_unpacked(self, _: u32, unpacked: &[i16], rows: Rows<'_, i16>, ends: Ends<'_>) {
        let tile = Tile {
            v: self.0,
            source: Widened(self.0, unpacked),
            rows,
            ends,
        };
        match rows.count {
            1 => self.0.run(Rowed::<V, _, VECTORS, 1, VECTORS>(tile)),
            2 => self.0.run(Rowed::<V, _, VECTORS, 2, VECTORS>(tile)),
            4 => self.0.run(Rowed::<V, _, VECTORS, 4, 1>(tile)),
            6 => self.0.run(Rowed::<V, _, VECTORS, 6, 1>(tile)),
            8 => self.0.run(Rowed::<V, _, VECTORS, 8, 1>(tile)),
            _ => self.0.run(Rowed::<V, _, VECTORS, 12, 1>(tile)),
        }
    }
}

/// A tile with all it needs.
struct Tile<'a, V, S> {
    v: V,
    source: S,
    rows: Rows<'a, i16>,
    ends: Ends<'a>,
}

/// Weights in the layout of 8 bits, from which vectors of words are read.
trait Source<V: Words>: Copy {
    /// The words that begin at a code.
    fn words(self, at: usize) -> V::Words;

    /// Asks for what lies ahead of the codes of a block and vector.
    fn ask_ahead<const ROWS: usize>(self, block: usize);
}

#[derive(Debug, Clone, Copy)]
struct Bytes<'a, V>(V, &'a [u8]);

impl<V: Words> Source<V> for Bytes<'_, V> {
    #[inline(always)]
    fn words(self, at: usize) -> V::Words {
        self.0.widen(&self.1[at..])
    }

    #[inline(always)]
    fn ask_ahead<const ROWS: usize>(self, block: usize) {
        ask_ahead::<_, ROWS>(&self.1[block..][..4 * V::LANES * QUADS]);
    }
}

#[derive(Debug, Clone, Copy)]
struct Widened<'a, V>(V, &'a [i16]);

impl<V: Words> Source<V> for Widened<'_, V> {
    #[inline(always)]
    fn words(self, at: usize) -> V::Words {
        self.0.load_words(&self.1[at..])
    }

    #[inline(always)]
    fn ask_ahead<const ROWS: usize>(self, _: usize) {}
}

/// A tile of `ROWS` rows, so many vectors of columns `TOGETHER`: all for few rows, so that weights are
/// read in their order.
struct Rowed<'a, V, S, const VECTORS: usize, const ROWS: usize, const TOGETHER: usize>(
    Tile<'a, V, S>,
);

impl<V, S, const VECTORS: usize, const ROWS: usize, const TOGETHER: usize> Loops
    for Rowed<'_, V, S, VECTORS, ROWS, TOGETHER>
where
    V: Words,
    S: Source<V>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Tile {
            v,
            source,
            rows,
            mut ends,
        } = self.0;
        let quad = 4 * V::LANES;
        let mut ahead = rows.ahead_in(blocks_of(ends.segments));
        for segment in ends.segments {
            let start: [V::Lanes; ROWS] = ends.start(v, segment);
            for first in (0..VECTORS).step_by(TOGETHER) {
                let mut halves = [[[v.zero(); HALVES]; ROWS]; TOGETHER];
                for index in segment.block..segment.block + segment.blocks {
                    let x = rows.block::<ROWS>(index);
                    if first == 0 {
                        ask_for(ahead.next().unwrap_or_default());
                    }
                    for (vector, halves) in halves.iter_mut().enumerate() {
                        let block = (index * VECTORS + first + vector) * QUADS * quad;
                        source.ask_ahead::<ROWS>(block);
                        for at in 0..QUADS {
                            let code = block + at * quad;
                            let w = [source.words(code), source.words(code + quad / 2)];
                            for (x, halves) in x.iter().zip(&mut *halves) {
                                let four = v.broadcast(x.as_chunks::<4>().0[at]);
                                for (sums, w) in halves.iter_mut().zip(w) {
                                    *sums = v.add_products(*sums, w, four);
                                }
                            }
                        }
                    }
                }
                for (vector, halves) in halves.into_iter().enumerate() {
                    let mut sums = [v.lanes(v.zero()); ROWS];
                    for (row, sums) in sums.iter_mut().enumerate() {
                        let [low, high] = halves[row];
                        *sums = v.add_lanes(v.sum_neighbours(low, high), start[row]);
                    }
                    ends.take(v, V::LANES * VECTORS, segment, first + vector, &sums);
                }
            }
        }
    }
}
