//! Kernels of instructions that multiply bytes, the four of a quad at a time.
//!
//! Two kinds of instructions serve: those that add four products of bytes to a lane
//! ([`Dots`](super::products::Dots)), and those that sum pairs of products in 16 bits
//! ([`Pairs`](super::products::Pairs)), which are widened before 16 bits could overflow.

use std::marker::PhantomData;

use super::{
    Kernel, Rows, ask_ahead,
    decode::{Decode, decode},
    ends::Ends,
    float_row::{RowOf, multiply_row},
    products::Products,
    vector::{Vector, for_quads, four, quad, run_packed, run_unpacked},
};
use crate::{
    kernel::{
        layout::{BLOCK, QUADS, Segment, blocks_of},
        operand::Stacks,
    },
    simd::{Loops, ask_for},
};

/// The kernel of panels of `VECTORS` vectors.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct ByteKernel<V, P, const VECTORS: usize> {
    v: V,
    products: PhantomData<P>,
}

impl<V: Vector, P: Products<V>, const VECTORS: usize> ByteKernel<V, P, VECTORS> {
    pub(in crate::kernel) fn new(v: V, _: P) -> Self {
        Self {
            v,
            products: PhantomData,
        }
    }
}

impl<V: Vector, P: Products<V>, const VECTORS: usize> Kernel for ByteKernel<V, P, VECTORS> {
    const NAME: &'static str = P::NAME;
    const LANES: usize = V::LANES;
    const COLUMNS: usize = V::LANES * VECTORS;
    const TILES: &'static [usize] = P::TILES;
    const PACKED_TILES: &'static [usize] = V::PACKED_TILES;
    const ROWS_TO_UNPACK: usize = P::ROWS_TO_UNPACK;
    const FUSED: bool = V::FUSED;
    type Code = i8;
    type Weight = u8;

    fn offset(bits: u32) -> u8 {
        if P::UNSIGNED || bits < 8 { 0 } else { 128 }
    }

    fn takes_packed(bits: u32) -> bool {
        bits == 8
    }

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.v.run(loops)
    }

    fn unpack(self, bits: u32, blocks: &[u8], _: Stacks, unpacked: &mut [u8]) {
        let v = self.v;
        match bits {
            1 => v.run(Unpack::<V, 1>(v, blocks, unpacked)),
            2 => v.run(Unpack::<V, 2>(v, blocks, unpacked)),
            3 => v.run(Unpack::<V, 3>(v, blocks, unpacked)),
            4 => v.run(Unpack::<V, 4>(v, blocks, unpacked)),
            5 => v.run(Unpack::<V, 5>(v, blocks, unpacked)),
            6 => v.run(Unpack::<V, 6>(v, blocks, unpacked)),
            7 => v.run(Unpack::<V, 7>(v, blocks, unpacked)),
            _ => unpacked.copy_from_slice(blocks),
        }
    }

    fn decode(self, of: Decode<'_>, to: &mut [f32]) {
        decode::<V, VECTORS>(self.v, of, to);
    }

    fn multiply_row(self, row: RowOf<'_>, sums: &mut [f32]) {
        multiply_row::<V, VECTORS>(self.v, row, sums);
    }

    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, ends: Ends<'_>) {
        if P::TAKES_BYTES && bits == 8 {
            return self.sums_of_unpacked(bits, blocks, rows, ends);
        }
        let tile = Tile::<V, P> {
            v: self.v,
            blocks,
            rows,
            ends,
            capacity: 0,
            products: PhantomData,
        };
        run_packed!(self.v, tile, bits, rows.count);
    }

    fn sums_of_unpacked(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, ends: Ends<'_>) {
        let tile = Tile::<V, P> {
            v: self.v,
            blocks,
            rows,
            ends,
            capacity: P::capacity(bits),
            products: PhantomData,
        };
        run_unpacked!(self.v, tile, rows.count);
    }
}

/// Unpacks blocks of `BITS` bits.
struct Unpack<'a, V, const BITS: u32>(V, &'a [u8], &'a mut [u8]);

impl<V: Vector, const BITS: u32> Loops for Unpack<'_, V, BITS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self(v, blocks, unpacked) = self;
        let vector = 4 * V::LANES;
        let blocks = blocks.chunks_exact(vector * BITS as usize);
        for (block, unpacked) in blocks.zip(unpacked.chunks_exact_mut(vector * QUADS)) {
            for_quads!(QUAD => {
                v.store(&mut unpacked[QUAD * vector..], quad::<V, BITS, QUAD>(v, block));
            });
        }
    }
}

/// A tile with all it needs.
struct Tile<'a, V, P> {
    v: V,
    blocks: &'a [u8],
    rows: Rows<'a, i8>,
    ends: Ends<'a>,
    /// Quads that a part holds, where the width of the weights is not a constant.
    capacity: usize,
    products: PhantomData<P>,
}

/// The expression for each vector but the first that a panel may have, with its number as a constant.
macro_rules! for_others {
    ($vector:ident => $body:expr) => {
        for_others!($vector => $body; 1 2 3);
    };
    ($vector:ident => $body:expr; $($number:literal)*) => {$({
        const $vector: usize = $number;
        $body
    })*};
}

/// Sums of products: those of a row and vector in several chains, so that a few rows do not wait for
/// their own sums.
type Parts<V, P, const VECTORS: usize, const ROWS: usize, const CHAINS: usize> =
    [[[<P as Products<V>>::Part; CHAINS]; ROWS]; VECTORS];

type Wide<V, const VECTORS: usize, const ROWS: usize> = [[<V as Vector>::Sums; ROWS]; VECTORS];

impl<V: Vector, P: Products<V>> Tile<'_, V, P> {
    /// What the sums over a segment begin with.
    #[inline(always)]
    fn start<const VECTORS: usize, const ROWS: usize, const CHAINS: usize>(
        &self,
        segment: &Segment,
    ) -> Parts<V, P, VECTORS, ROWS, CHAINS> {
        let v = self.v;
        let mut parts = [[[P::none(v); CHAINS]; ROWS]; VECTORS];
        if !P::FILLS {
            let start: [V::Lanes; ROWS] = self.ends.start(v, segment);
            for parts in &mut parts {
                for (row, parts) in parts.iter_mut().enumerate() {
                    parts[0] = P::start(v, start[row]);
                }
            }
        }
        parts
    }

    /// Adds the products of a quad.
    #[inline(always)]
    fn add<const VECTORS: usize, const ROWS: usize, const CHAINS: usize>(
        &self,
        parts: &mut Parts<V, P, VECTORS, ROWS, CHAINS>,
        w: [V::Bytes; VECTORS],
        x: &[[i8; BLOCK]],
        quad: usize,
    ) {
        let chain = if P::FILLS { 0 } else { quad % CHAINS };
        let x = &x[..ROWS];
        for (row, x) in x.iter().enumerate() {
            let four = four(x, quad);
            for (parts, w) in parts.iter_mut().zip(w) {
                parts[row][chain] = P::add(self.v, parts[row][chain], w, four);
            }
        }
    }

    /// Makes room in full parts.
    #[inline(always)]
    fn widen<const VECTORS: usize, const ROWS: usize, const CHAINS: usize>(
        &self,
        wide: &mut Wide<V, VECTORS, ROWS>,
        parts: &mut Parts<V, P, VECTORS, ROWS, CHAINS>,
    ) {
        for (wide, parts) in wide.iter_mut().zip(parts) {
            for (wide, parts) in wide.iter_mut().zip(parts) {
                *wide = self.v.add(*wide, P::widen(self.v, parts[0]));
                parts[0] = P::none(self.v);
            }
        }
    }

    /// Ends a segment, whose sums are those of the parts, and of what they had no room for.
    #[inline(always)]
    fn end<const VECTORS: usize, const ROWS: usize, const CHAINS: usize>(
        &mut self,
        segment: &Segment,
        parts: Parts<V, P, VECTORS, ROWS, CHAINS>,
        wide: Wide<V, VECTORS, ROWS>,
        is_wide: bool,
    ) {
        // Each vector by a constant, so that sums stay in registers.
        self.end_vector::<VECTORS, ROWS, CHAINS>(segment, 0, &parts[0], &wide[0], is_wide);
        for_others!(VECTOR => if let (Some(parts), Some(wide)) = (parts.get(VECTOR), wide.get(VECTOR)) {
            self.end_vector::<VECTORS, ROWS, CHAINS>(segment, VECTOR, parts, wide, is_wide);
        });
    }

    #[inline(always)]
    fn end_vector<const VECTORS: usize, const ROWS: usize, const CHAINS: usize>(
        &mut self,
        segment: &Segment,
        vector: usize,
        parts: &[[P::Part; CHAINS]; ROWS],
        wide: &[V::Sums; ROWS],
        is_wide: bool,
    ) {
        let v = self.v;
        let mut lanes = [v.lanes(v.zero()); ROWS];
        for (row, lanes) in lanes.iter_mut().enumerate() {
            let mut total = P::widen(v, parts[row][0]);
            for &part in &parts[row][1..if P::FILLS { 1 } else { CHAINS }] {
                total = v.add(total, P::widen(v, part));
            }
            if P::FILLS && is_wide {
                total = v.add(total, wide[row]);
            }
            *lanes = v.lanes(total);
        }
        if P::FILLS {
            let start: [V::Lanes; ROWS] = self.ends.start(v, segment);
            for (lanes, start) in lanes.iter_mut().zip(start) {
                *lanes = v.add_lanes(*lanes, start);
            }
        }
        self.ends
            .take(v, VECTORS * V::LANES, segment, vector, &lanes);
    }
}

/// A tile of `ROWS` rows over weights packed in `BITS` bits, less than 8.
struct Packed<
    'a,
    V,
    P,
    const VECTORS: usize,
    const BITS: u32,
    const ROWS: usize,
    const CHAINS: usize,
>(Tile<'a, V, P>);

impl<V, P, const VECTORS: usize, const BITS: u32, const ROWS: usize, const CHAINS: usize> Loops
    for Packed<'_, V, P, VECTORS, BITS, ROWS, CHAINS>
where
    V: Vector,
    P: Products<V>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut tile = self.0;
        let v = tile.v;
        let capacity = P::capacity(BITS);
        let vector = 4 * V::LANES * BITS as usize;
        let mut ahead = tile.rows.ahead_in(blocks_of(tile.ends.segments));
        for segment in tile.ends.segments {
            let mut parts = tile.start::<VECTORS, ROWS, CHAINS>(segment);
            let mut wide = [[v.zero(); ROWS]; VECTORS];
            let (mut is_wide, mut held) = (false, 0);
            let blocks =
                tile.blocks[segment.bytes(vector * VECTORS)].chunks_exact(vector * VECTORS);
            for (index, block) in blocks.enumerate() {
                let x = tile.rows.block::<ROWS>(segment.block + index);
                ask_ahead::<_, ROWS>(block);
                ask_for(ahead.next().unwrap_or_default());
                if P::FILLS && capacity >= QUADS && held == capacity / QUADS {
                    tile.widen(&mut wide, &mut parts);
                    (is_wide, held) = (true, 0);
                }
                for_quads!(QUAD => {
                    let mut w = [quad::<V, BITS, QUAD>(v, block); VECTORS];
                    for (at, w) in w.iter_mut().enumerate().skip(1) {
                        *w = quad::<V, BITS, QUAD>(v, &block[at * vector..]);
                    }
                    tile.add(&mut parts, w, x, QUAD);
                    if P::FILLS && capacity < QUADS && (QUAD + 1).is_multiple_of(capacity) {
                        tile.widen(&mut wide, &mut parts);
                        is_wide = true;
                    }
                });
                held += 1;
            }
            tile.end(segment, parts, wide, is_wide);
        }
    }
}

/// A tile of `ROWS` rows over weights in the layout of 8 bits.
struct Unpacked<'a, V, P, const VECTORS: usize, const ROWS: usize, const CHAINS: usize>(
    Tile<'a, V, P>,
);

impl<V, P, const VECTORS: usize, const ROWS: usize, const CHAINS: usize> Loops
    for Unpacked<'_, V, P, VECTORS, ROWS, CHAINS>
where
    V: Vector,
    P: Products<V>,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let mut tile = self.0;
        let v = tile.v;
        let quad = 4 * V::LANES;
        let vector = quad * QUADS;
        let mut ahead = tile.rows.ahead_in(blocks_of(tile.ends.segments));
        for segment in tile.ends.segments {
            let mut parts = tile.start::<VECTORS, ROWS, CHAINS>(segment);
            let mut wide = [[v.zero(); ROWS]; VECTORS];
            let (mut is_wide, mut held) = (false, 0);
            let blocks =
                tile.blocks[segment.bytes(vector * VECTORS)].chunks_exact(vector * VECTORS);
            for (index, block) in blocks.enumerate() {
                let x = tile.rows.block::<ROWS>(segment.block + index);
                ask_ahead::<_, ROWS>(block);
                ask_for(ahead.next().unwrap_or_default());
                // Parts are full after some blocks, or within a block.
                if P::FILLS && tile.capacity < QUADS {
                    for first in (0..QUADS).step_by(tile.capacity) {
                        for at in first..first + tile.capacity {
                            tile.add(&mut parts, load::<V, VECTORS>(v, block, at), x, at);
                        }
                        tile.widen(&mut wide, &mut parts);
                    }
                    is_wide = true;
                    continue;
                }
                if P::FILLS && held == tile.capacity {
                    tile.widen(&mut wide, &mut parts);
                    (is_wide, held) = (true, 0);
                }
                for at in 0..QUADS {
                    tile.add(&mut parts, load::<V, VECTORS>(v, block, at), x, at);
                }
                held += QUADS;
            }
            tile.end(segment, parts, wide, is_wide);
        }
    }
}

/// The weights of a quad, from a block of bytes.
#[inline(always)]
fn load<V: Vector, const VECTORS: usize>(v: V, block: &[u8], at: usize) -> [V::Bytes; VECTORS] {
    let quad = 4 * V::LANES;
    let mut w = [v.load(&block[at * quad..]); VECTORS];
    for (vector, w) in w.iter_mut().enumerate().skip(1) {
        *w = v.load(&block[(vector * QUADS + at) * quad..]);
    }
    w
}
