//! Plain Rust, for every machine.

use super::{Kernel, Rows};
use crate::{
    kernel::layout::{BLOCK, unpack},
    simd::Loops,
};

/// The kernel of no instruction set in particular.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Portable;

/// Columns in a panel.
const LANES: usize = 8;

impl Kernel for Portable {
    const NAME: &'static str = "portable-i8u8i32";
    const LANES: usize = LANES;
    const COLUMNS: usize = LANES;
    const TILES: &'static [usize] = &[4, 2, 1];
    const FUSED: bool = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");
    type Code = i16;
    type Weight = i16;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        loops.run()
    }

    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i16>, sums: &mut [i32]) {
        sums.fill(0);
        let mut unpacked = [0; BLOCK * LANES];
        for (index, block) in blocks.chunks_exact(4 * LANES * bits as usize).enumerate() {
            unpack(bits, LANES, block, &mut unpacked, i16::from);
            add_block(&unpacked, rows, index, sums);
        }
    }

    fn sums_of_unpacked(self, _bits: u32, unpacked: &[i16], rows: Rows<'_, i16>, sums: &mut [i32]) {
        sums.fill(0);
        let (blocks, _) = unpacked.as_chunks();
        for (index, block) in blocks.iter().enumerate() {
            add_block(block, rows, index, sums);
        }
    }
}

/// Adds the products of one block to the sums of every row.
fn add_block(block: &[i16; BLOCK * LANES], rows: Rows<'_, i16>, index: usize, sums: &mut [i32]) {
    let (quads, _) = block.as_chunks::<{ 4 * LANES }>();
    for (row, sums) in sums.chunks_exact_mut(LANES).take(rows.count).enumerate() {
        let (codes, _) = rows.blocks[row * rows.stride + index].as_chunks::<4>();
        for (x, quad) in codes.iter().zip(quads) {
            for (sum, w) in sums.iter_mut().zip(quad.as_chunks::<4>().0) {
                let product = |t: usize| i32::from(x[t]) * i32::from(w[t]);
                let four = (product(0) + product(1)) + (product(2) + product(3));
                *sum = sum.wrapping_add(four);
            }
        }
    }
}
