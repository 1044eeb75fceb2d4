//! The kernel of instructions that multiply tiles of bytes, as matrices: AMX.
//!
//! A few rows are computed as by VNNI. More lie in stacks of 32, the blocks of 32 codes of a row in
//! runs of two, which are a line of a tile. A run of unpacked weights is a tile for each of the two
//! vectors of columns, a line for each of the 16 quads.

use std::slice::Chunks;

use super::{
    Kernel, Rows,
    bytes::ByteKernel,
    decode::Decode,
    ends::Ends,
    float_row::RowOf,
    products::Dots,
    x86::amx::{COLUMNS, HEIGHT, RUN, RUN_BYTES, SIDE, Tiles},
};
use crate::{
    kernel::{
        layout::{BLOCK, Layout, Segment, blocks_of},
        operand::Stacks,
    },
    simd::{
        Loops,
        x86::{AmxInt8, Avx512Vnni},
    },
};

type Vnni = ByteKernel<Avx512Vnni, Dots, 2>;

/// The kernel of matrices of bytes.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct MatrixKernel {
    proof: AmxInt8,
    few_rows: Vnni,
}

/// Rows from which tiles are faster.
const ROWS_FOR_TILES: usize = 20;

/// Rows whose sums are taken at a time.
const ROWS: usize = 8;

impl MatrixKernel {
    pub(in crate::kernel) fn new(proof: AmxInt8) -> Self {
        Self {
            proof,
            few_rows: ByteKernel::new(proof.vnni(), Dots),
        }
    }
}

impl Kernel for MatrixKernel {
    const NAME: &'static str = "amxint8-i8u8i32";
    const LANES: usize = Vnni::LANES;
    const COLUMNS: usize = Vnni::COLUMNS;
    const TILES: &'static [usize] = Vnni::TILES;
    const PACKED_TILES: &'static [usize] = Vnni::PACKED_TILES;
    const ROWS_TO_UNPACK: usize = Vnni::ROWS_TO_UNPACK;
    // Few waits for the last sums of a stretch; twice the bytes of others, which come from the second
    // cache as fast as tiles are multiplied.
    const BLOCKS_AT_A_TIME: usize = 64;
    const FUSED: bool = Vnni::FUSED;
    type Code = i8;
    type Weight = u8;

    fn offset(bits: u32) -> u8 {
        Vnni::offset(bits)
    }

    fn takes_packed(bits: u32) -> bool {
        Vnni::takes_packed(bits)
    }

    fn stacks(layout: &Layout, rows: usize) -> Stacks {
        // Ending groups takes as long as multiplying tiles would save.
        let fill_runs = layout.group.min(layout.depth) > BLOCK;
        if rows < ROWS_FOR_TILES || !fill_runs {
            return Vnni::stacks(layout, rows);
        }
        Stacks {
            height: HEIGHT,
            run: RUN,
        }
    }

    /// So many that their activations stay in a cache of two megabytes beside what else is there:
    /// products take little longer than reading them.
    fn rows_of_pass(depth: usize) -> usize {
        ((1 << 20) / depth.max(1))
            .next_multiple_of(HEIGHT)
            .clamp(64, 480)
    }

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.few_rows.run(loops)
    }

    fn unpack(self, bits: u32, blocks: &[u8], stacks: Stacks, unpacked: &mut [u8]) {
        if stacks.run == 1 {
            return self.few_rows.unpack(bits, blocks, stacks, unpacked);
        }
        const { assert!(COLUMNS == Vnni::COLUMNS) };
        let block = COLUMNS * 4 * bits as usize;
        let mut runs = unpacked.chunks_exact_mut(RUN_BYTES);
        for (blocks, run) in blocks.chunks(RUN * block).zip(&mut runs) {
            if blocks.len() < RUN * block {
                // What follows the last block is multiplied as well.
                run.fill(0);
            }
            let (first, second) = run.split_at_mut(RUN_BYTES / 2);
            let half = RUN_BYTES / 2 / RUN;
            for (index, block) in blocks.chunks_exact(block).enumerate() {
                let place = index * half..(index + 1) * half;
                let (of_first, of_second) = block.split_at(block.len() / 2);
                self.few_rows
                    .unpack(bits, of_first, stacks, &mut first[place.clone()]);
                self.few_rows
                    .unpack(bits, of_second, stacks, &mut second[place]);
            }
        }
    }

    fn decode(self, decode: Decode<'_>, to: &mut [f32]) {
        self.few_rows.decode(decode, to);
    }

    fn multiply_row(self, row: RowOf<'_>, sums: &mut [f32]) {
        self.few_rows.multiply_row(row, sums);
    }

    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, ends: Ends<'_>) {
        self.few_rows.sums(bits, blocks, rows, ends);
    }

    fn sums_of_unpacked(self, bits: u32, unpacked: &[u8], rows: Rows<'_, i8>, ends: Ends<'_>) {
        if rows.stacks.run == 1 {
            return self.few_rows.sums_of_unpacked(bits, unpacked, rows, ends);
        }
        self.run(Stack {
            proof: self.proof,
            unpacked,
            rows,
            ends,
        });
    }
}

/// Rows of a stack, with all they need.
struct Stack<'a> {
    proof: AmxInt8,
    unpacked: &'a [u8],
    rows: Rows<'a, i8>,
    ends: Ends<'a>,
}

impl Loops for Stack<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let segments = self.ends.segments;
        // Where a group begins or ends within a run, runs are taken in halves; not where nothing
        // follows it.
        let last = segments.len().saturating_sub(1);
        let in_runs = segments.iter().enumerate().all(|(index, segment)| {
            segment.block.is_multiple_of(RUN)
                && (segment.blocks.is_multiple_of(RUN) || index == last)
        });
        let mut tiles = Tiles::new(self.proof, self.rows.count, in_runs);
        let mut ahead = self.rows.ahead_in(blocks_of(segments).div_ceil(RUN));
        for segment in segments {
            if segment.begins {
                tiles.clear();
            } else {
                tiles.load(self.ends.raw);
            }
            if in_runs {
                let runs = segment.blocks.div_ceil(RUN);
                self.add(&mut tiles, segment.block, runs, &mut ahead);
            } else {
                // The first blocks of runs, and the second ones.
                let end = segment.block + segment.blocks;
                for first in segment.block..end.min(segment.block + RUN) {
                    self.add(&mut tiles, first, (end - first).div_ceil(RUN), &mut ahead);
                }
            }
            tiles.store(self.ends.raw);
            if segment.ends {
                self.end(segment);
            }
        }
    }
}

impl Stack<'_> {
    /// Adds the products of so many runs, or blocks of them, from a block on.
    #[inline(always)]
    fn add(&self, tiles: &mut Tiles, block: usize, runs: usize, ahead: &mut Chunks<'_, u8>) {
        let height = self.rows.stacks.height;
        let (run, within) = (block / RUN, block % RUN);
        tiles.add_products(
            &self.rows.blocks[run * height * RUN + within..],
            height * RUN_BYTES / COLUMNS,
            &self.unpacked[run * RUN_BYTES + within * (RUN_BYTES / 2 / RUN)..],
            runs,
            ahead,
        );
    }

    /// Ends the group of a segment.
    #[inline(always)]
    fn end(&mut self, segment: &Segment) {
        let mut row = 0;
        while row < self.rows.count {
            row += match self.rows.count - row {
                ROWS.. => self.end_rows::<ROWS>(segment, row),
                4.. => self.end_rows::<4>(segment, row),
                2.. => self.end_rows::<2>(segment, row),
                _ => self.end_rows::<1>(segment, row),
            };
        }
    }

    #[inline(always)]
    fn end_rows<const ROWS: usize>(&mut self, segment: &Segment, first: usize) -> usize {
        let v = self.proof.vnni();
        let mut ends = self.ends.of_rows(COLUMNS, first..first + ROWS);
        for vector in 0..COLUMNS / SIDE {
            ends.take_raw::<_, ROWS>(v, COLUMNS, segment, vector);
        }
        ROWS
    }
}
