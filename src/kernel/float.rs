//! Products of float activations: weights become floats a block of a panel at a time, in the caches,
//! and every output is summed in the order of the depth.

use std::ops::Range;

use super::{
    arch::{Kernel, decode::Decode},
    layout::{BLOCK, Group, unpack},
    output::{PanelSums, Sink},
    scratch::Scratch,
    tasks::Part,
    value::{SmallFloat, Value},
    weights::Weights,
};
use crate::simd::Loops;

/// Blocks along the depth whose floats stay in the nearest caches.
const BLOCKS_AT_A_TIME: usize = 8;
/// Their depth.
const DEPTH_AT_A_TIME: usize = BLOCKS_AT_A_TIME * BLOCK;
/// Panels whose floats stay in the nearer caches while the rows pass by.
const PANELS_AT_A_TIME: usize = 8;

/// Computes a part of a product of activations `[rows, depth]` in row-major order.
pub(super) fn product<K: Kernel>(
    weights: &Weights<K>,
    x: &[f32],
    part: Part,
    scratch: &mut Scratch,
    sink: &mut dyn Sink<f32>,
) {
    let product = Product {
        weights,
        x,
        part,
        scratch,
        sink,
    };
    match K::COLUMNS {
        8 => weights.kernel.run(Compute::<_, 8>(product)),
        16 => weights.kernel.run(Compute::<_, 16>(product)),
        _ => weights.kernel.run(Compute::<_, 32>(product)),
    }
}

/// A part of a product, with all it needs.
struct Product<'a, K> {
    weights: &'a Weights<K>,
    x: &'a [f32],
    part: Part,
    scratch: &'a mut Scratch,
    sink: &'a mut dyn Sink<f32>,
}

/// The product; `COLUMNS` is the kernel's, as the length of an array.
struct Compute<'a, K, const COLUMNS: usize>(Product<'a, K>);

impl<K: Kernel, const COLUMNS: usize> Loops for Compute<'_, K, COLUMNS> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Product {
            weights,
            x,
            part,
            scratch,
            sink,
        } = self.0;
        let rows = part.rows.len();
        let panels_at_a_time = part.panels.len().min(PANELS_AT_A_TIME);
        let floats = scratch
            .floats
            .of_len(panels_at_a_time * DEPTH_AT_A_TIME * COLUMNS);
        let sums = scratch.sums.of_len(panels_at_a_time * rows * COLUMNS);
        let mut tiles = Panels::<_, COLUMNS> {
            weights,
            first: 0,
            panels: 0,
            codes: scratch.codes.of_len(BLOCK * COLUMNS),
            floats: floats.as_chunks_mut().0,
            sums: sums.as_chunks_mut().0,
        };
        let x = &x[part.rows.start * weights.layout.depth..][..rows * weights.layout.depth];
        for first in part.panels.clone().step_by(PANELS_AT_A_TIME) {
            tiles.first = first;
            tiles.panels = PANELS_AT_A_TIME.min(part.panels.end - first);
            tiles.sums.fill([0.0; COLUMNS]);
            for group in weights.layout.all_groups() {
                for block in (0..group.blocks).step_by(BLOCKS_AT_A_TIME) {
                    let depth = tiles.decode(group, block);
                    tiles.multiply(x, rows, depth);
                }
            }
            for panel in 0..tiles.panels {
                let column = (first + panel) * COLUMNS;
                let sums = tiles.sums[panel * rows..(panel + 1) * rows].as_flattened();
                sink.take(PanelSums {
                    row: part.rows.start,
                    column,
                    columns: COLUMNS,
                    sums,
                });
            }
        }
    }
}

/// Some panels of a part: their weights at some depth as floats, and the sums so far.
struct Panels<'a, K, const COLUMNS: usize> {
    weights: &'a Weights<K>,
    first: usize,
    panels: usize,
    /// A block of unpacked codes.
    codes: &'a mut [u8],
    /// `[panel][depth]`.
    floats: &'a mut [[f32; COLUMNS]],
    /// `[panel][row]`.
    sums: &'a mut [[f32; COLUMNS]],
}

impl<K: Kernel, const COLUMNS: usize> Panels<'_, K, COLUMNS> {
    /// Makes floats of some blocks of a group, from `block` on; returns where along the depth they
    /// are.
    #[inline(always)]
    fn decode(&mut self, group: Group, block: usize) -> Range<usize> {
        let weights = self.weights;
        let start = block * BLOCK;
        let len = (group.len - start).min(DEPTH_AT_A_TIME);
        let panels = self.first..self.first + self.panels;
        for (panel, floats) in panels.zip(self.floats.chunks_exact_mut(DEPTH_AT_A_TIME)) {
            let scale = weights.scale(panel, group.index);
            let zero = weights.zero(panel, group.index);
            for (index, floats) in floats[..len.next_multiple_of(BLOCK)]
                .chunks_mut(BLOCK)
                .enumerate()
            {
                let at = group.block + block + index;
                let block = weights.blocks(panel, at..at + 1);
                let bits = weights.layout.bits;
                match weights.value() {
                    Value::Distance => weights.kernel.decode(
                        Decode {
                            bits,
                            block,
                            scale,
                            zero,
                            offset: weights.offset(),
                        },
                        floats.as_flattened_mut(),
                    ),
                    Value::Float(float) => {
                        let codes = &mut *self.codes;
                        unpack(bits, K::LANES, block, codes, |code| code);
                        to_floats::<K, COLUMNS>(codes, scale, float, floats);
                    }
                }
            }
        }
        group.start + start..group.start + start + len
    }

    /// Adds the products of all rows at this depth.
    #[inline(always)]
    fn multiply(&mut self, x: &[f32], rows: usize, depth: Range<usize>) {
        let mut row = 0;
        while row < rows {
            let left = rows - row;
            let count = *TILES.iter().find(|&&tile| tile <= left).unwrap_or(&1);
            let mut tile_x = [&x[..0]; TILES[0]];
            for (index, tile_x) in tile_x[..count].iter_mut().enumerate() {
                let start = (row + index) * self.weights.layout.depth;
                *tile_x = &x[start + depth.start..start + depth.end];
            }
            if count == 1 {
                self.multiply_row(tile_x[0], rows, row);
                row += 1;
                continue;
            }
            for panel in 0..self.panels {
                let floats = &self.floats[panel * DEPTH_AT_A_TIME..][..depth.len()];
                let sums = &mut self.sums[panel * rows + row..][..count];
                match count {
                    6 => tile::<K, COLUMNS, 6>(floats, &tile_x, sums),
                    4 => tile::<K, COLUMNS, 4>(floats, &tile_x, sums),
                    _ => tile::<K, COLUMNS, 2>(floats, &tile_x, sums),
                }
            }
            row += count;
        }
    }
}

impl<K: Kernel, const COLUMNS: usize> Panels<'_, K, COLUMNS> {
    /// Adds the products of one row, several panels side by side: the sums of one would wait for
    /// themselves.
    #[inline(always)]
    fn multiply_row(&mut self, x: &[f32], rows: usize, row: usize) {
        let mut first = 0;
        while first < self.panels {
            let count = if self.panels - first >= 4 { 4 } else { 1 };
            if count == 4 {
                self.row_of::<4>(x, rows, row, first);
            } else {
                self.row_of::<1>(x, rows, row, first);
            }
            first += count;
        }
    }

    #[inline(always)]
    fn row_of<const PANELS: usize>(&mut self, x: &[f32], rows: usize, row: usize, first: usize) {
        let mut kept = [[0.0; COLUMNS]; PANELS];
        for (panel, kept) in kept.iter_mut().enumerate() {
            *kept = self.sums[(first + panel) * rows + row];
        }
        let mut floats = [&self.floats[..0]; PANELS];
        for (panel, floats) in floats.iter_mut().enumerate() {
            *floats = &self.floats[(first + panel) * DEPTH_AT_A_TIME..][..x.len()];
        }
        for (at, &x) in x.iter().enumerate() {
            for (panel, kept) in kept.iter_mut().enumerate() {
                let w = &floats[panel][at];
                for (sum, &w) in kept.iter_mut().zip(w) {
                    *sum = if K::FUSED {
                        x.mul_add(w, *sum)
                    } else {
                        *sum + x * w
                    };
                }
            }
        }
        for (panel, kept) in kept.iter().enumerate() {
            self.sums[(first + panel) * rows + row] = *kept;
        }
    }
}

/// Rows that a tile may have: six times two vectors of sums fill the registers of AVX2.
const TILES: [usize; 4] = [6, 4, 2, 1];

/// Adds the products of some depth to the sums of `ROWS` rows.
#[inline(always)]
fn tile<K: Kernel, const COLUMNS: usize, const ROWS: usize>(
    floats: &[[f32; COLUMNS]],
    x: &[&[f32]; TILES[0]],
    sums: &mut [[f32; COLUMNS]],
) {
    let (sums, _) = sums.as_chunks_mut::<ROWS>();
    let mut kept = sums[0];
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row][..floats.len()]);
    for (at, w) in floats.iter().enumerate() {
        for (row, kept) in kept.iter_mut().enumerate() {
            let x = x[row][at];
            for (sum, &w) in kept.iter_mut().zip(w) {
                *sum = if K::FUSED {
                    x.mul_add(w, *sum)
                } else {
                    *sum + x * w
                };
            }
        }
    }
    sums[0] = kept;
}

/// The values of small floats times the scale, for the codes of a block, in the order of the depth.
#[inline(always)]
fn to_floats<K: Kernel, const COLUMNS: usize>(
    codes: &[u8],
    scale: &[f32],
    float: SmallFloat,
    floats: &mut [[f32; COLUMNS]],
) {
    reorder::<K, COLUMNS>(codes, floats, |code, column| {
        float.value(code) * scale[column]
    });
}

/// Gives each code to `float(code, column)`, and puts what it returns in the order of the depth.
#[inline(always)]
fn reorder<K: Kernel, const COLUMNS: usize>(
    codes: &[u8],
    floats: &mut [[f32; COLUMNS]],
    float: impl Fn(u32, usize) -> f32,
) {
    for (vector, codes) in codes.chunks_exact(BLOCK * K::LANES).enumerate() {
        let first = vector * K::LANES;
        for (floats, codes) in floats.chunks_mut(4).zip(codes.chunks_exact(4 * K::LANES)) {
            let (words, _) = codes.as_chunks::<4>();
            for (t, floats) in floats.iter_mut().enumerate() {
                for (lane, word) in words.iter().enumerate() {
                    let code = (u32::from_le_bytes(*word) >> (8 * t)) & 0xff;
                    floats[first + lane] = float(code, first + lane);
                }
            }
        }
    }
}
