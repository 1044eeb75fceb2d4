//! Activations as a kernel takes them: 8-bit codes in blocks along the depth, and the sums that zero
//! points need.

use std::fmt::Debug;

use ndarray::{ArrayViewMut2, Axis};

use super::{
    aligned::Aligned,
    layout::{BLOCK, Layout, to_i32},
    rows::{CHUNK, RowFault, RowSource},
};
use crate::{
    parallel::{self, PIECE, join},
    simd::{Loops, wide},
};

/// Quantized activations `[rows, depth]`, groups filled up with 0 as the weights' are.
///
/// Rows lie in stacks as high as the highest tile, block by block along the depth, so that a tile
/// reads one stretch of memory: `[stack][run of blocks][row of the stack][block of the run]`.
#[derive(Debug, Default)]
pub(super) struct Operand {
    bytes: Aligned<i8>,
    words: Aligned<i16>,
    pub(super) stacks: Stacks,
    /// Blocks of a row, in whole runs.
    blocks: usize,
    /// `Σ (x − zero)`, times the factor that the weights want, `[group][row]`.
    pub(super) sums: Vec<i32>,
    /// The zero point of each row, on the same footing as the codes.
    pub(super) zero: Vec<i32>,
    /// Real units per step, of each row.
    pub(super) scale: Vec<f32>,
}

/// How the rows of an operand lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stacks {
    /// Rows of a stack.
    pub(super) height: usize,
    /// Blocks of a row that lie side by side.
    pub(super) run: usize,
}

impl Stacks {
    /// Where a block of a row is in its stack.
    #[inline(always)]
    fn place_of(self, row: usize, block: usize) -> usize {
        (block / self.run * self.height + row) * self.run + block % self.run
    }
}

impl Default for Stacks {
    fn default() -> Self {
        Self { height: 1, run: 1 }
    }
}

/// The form in which a kernel takes activations: codes that fit `i8`, perhaps widened.
pub(super) trait ActivationCode:
    Copy + Default + Debug + Send + Sync + From<i8> + 'static
{
    /// Whether codes are widened.
    const IS_WORD: bool;

    /// The blocks of an operand in this form.
    fn blocks(operand: &Operand) -> &[[Self; BLOCK]];

    /// Where to write them.
    fn place(operand: &mut Operand) -> &mut Aligned<Self>;
}

impl ActivationCode for i8 {
    const IS_WORD: bool = false;

    fn blocks(operand: &Operand) -> &[[Self; BLOCK]] {
        operand.bytes.as_slice().as_chunks().0
    }

    fn place(operand: &mut Operand) -> &mut Aligned<Self> {
        &mut operand.bytes
    }
}

impl ActivationCode for i16 {
    const IS_WORD: bool = true;

    fn blocks(operand: &Operand) -> &[[Self; BLOCK]] {
        operand.words.as_slice().as_chunks().0
    }

    fn place(operand: &mut Operand) -> &mut Aligned<Self> {
        &mut operand.words
    }
}

impl Operand {
    /// Where a block of a row is.
    #[inline(always)]
    pub(super) fn place_of(&self, row: usize, block: usize) -> usize {
        let height = self.stacks.height;
        row / height * height * self.blocks + self.stacks.place_of(row % height, block)
    }

    /// How many rows there are.
    pub(super) fn rows(&self) -> usize {
        self.zero.len()
    }

    /// Takes the codes of a source of so many rows, for weights of a layout, their sums multiplied by
    /// a factor; on several threads if there may be more than one.
    ///
    /// # Errors
    /// The fault of the first row that has one.
    pub(super) fn fill<C: ActivationCode>(
        &mut self,
        source: &impl RowSource,
        rows: usize,
        (layout, factor): (&Layout, i32),
        stacks: Stacks,
        threads: usize,
    ) -> Result<(), RowFault> {
        let height = stacks.height;
        self.stacks = stacks;
        self.blocks = layout.blocks().next_multiple_of(stacks.run);
        let blocks = rows.next_multiple_of(height) * self.blocks;
        self.sums.resize(rows * layout.groups(), 0);
        self.zero.resize(rows, 0);
        self.scale.resize(rows, 0.0);
        let mut place = std::mem::take(C::place(self));
        let sums = ArrayViewMut2::from_shape((layout.groups(), rows), &mut self.sums);
        let piece = Piece {
            first: 0,
            blocks: place.of_len(blocks * BLOCK).as_chunks_mut().0,
            blocks_of_row: self.blocks,
            stacks,
            sums: sums.unwrap_or_else(|_| ArrayViewMut2::from(&mut [[0; 0]; 0])),
            factor,
            zero: &mut self.zero,
            scale: &mut self.scale,
            source,
            layout,
        };
        let rows_at_a_time = match threads {
            0..=1 => usize::MAX,
            // As many halvings as give no more pieces than threads. Each rounds up to whole stacks,
            // which adds less than two of them to a piece.
            most if most < parallel::threads() => (rows >> most.ilog2()) + 2 * height,
            _ => PIECE.div_ceil(layout.depth.max(1)).max(height),
        };
        let filled = piece.fill(rows_at_a_time);
        *C::place(self) = place;
        filled
    }
}

/// Some rows, to be filled.
struct Piece<'a, C, S> {
    first: usize,
    blocks: &'a mut [[C; BLOCK]],
    blocks_of_row: usize,
    stacks: Stacks,
    /// `[group][row]`.
    sums: ArrayViewMut2<'a, i32>,
    factor: i32,
    zero: &'a mut [i32],
    scale: &'a mut [f32],
    source: &'a S,
    layout: &'a Layout,
}

impl<C: ActivationCode, S: RowSource> Piece<'_, C, S> {
    fn fill(self, most: usize) -> Result<(), RowFault> {
        let height = self.stacks.height;
        if self.zero.len() <= most.max(height) {
            return wide(self);
        }
        // Whole stacks; there are two at least.
        let half = (self.zero.len() / 2).next_multiple_of(height);
        let (blocks, blocks_after) = self.blocks.split_at_mut(half * self.blocks_of_row);
        let (sums, sums_after) = self.sums.split_at(Axis(1), half);
        let (zero, zero_after) = self.zero.split_at_mut(half);
        let (scale, scale_after) = self.scale.split_at_mut(half);
        let before = Piece {
            blocks,
            sums,
            zero,
            scale,
            ..self
        };
        let after = Piece {
            first: self.first + half,
            blocks: blocks_after,
            sums: sums_after,
            zero: zero_after,
            scale: scale_after,
            ..self
        };
        let (mut first, mut second) = (Ok(()), Ok(()));
        join(|| first = before.fill(most), || second = after.fill(most));
        first.and(second)
    }
}

impl<C: ActivationCode, S: RowSource> Loops for Piece<'_, C, S> {
    type Output = Result<(), RowFault>;

    #[inline(always)]
    fn run(mut self) -> Self::Output {
        let layout = self.layout;
        let blocks_of_group = layout.group.div_ceil(BLOCK).max(1);
        // Where no group is filled up, the row is one run.
        let (run, runs) = if layout.padded_depth() == layout.depth {
            (layout.depth, 1)
        } else {
            (layout.group, layout.groups())
        };
        let parameters = self.zero.iter_mut().zip(self.scale);
        for (index, (zero, scale)) in parameters.enumerate() {
            let row = self.first + index;
            let parameter = self.source.parameter(row)?;
            (*zero, *scale) = (parameter.zero, parameter.scale);
            let Stacks {
                height,
                run: side_by_side,
            } = self.stacks;
            let stack = index / height * height * self.blocks_of_row;
            let blocks = self.blocks.get_mut(stack + index % height * side_by_side..);
            let runs_of_row = blocks.unwrap_or_default().chunks_mut(height * side_by_side);
            let mut places = runs_of_row.flat_map(|run| run.iter_mut().take(side_by_side));
            let mut sums = self.sums.column_mut(index);
            let (mut total, mut blocks, mut group) = (0_i32, 0, 0);
            let mut chunk = [[0_i8; BLOCK]; CHUNK / BLOCK];
            for run_start in (0..runs).map(|index| index * run) {
                let run_end = (run_start + run).min(layout.depth);
                for start in (run_start..run_end).step_by(CHUNK) {
                    let len = CHUNK.min(run_end - start);
                    let codes = chunk.as_flattened_mut();
                    self.source
                        .codes(row, start, &parameter, &mut codes[..len])?;
                    codes[len..].fill(0);
                    for (codes, place) in chunk[..len.div_ceil(BLOCK)].iter().zip(&mut places) {
                        for (place, &code) in place.iter_mut().zip(codes) {
                            *place = C::from(code);
                        }
                        total = sum_of(codes).wrapping_add(total);
                        blocks += 1;
                        if blocks == blocks_of_group {
                            sums[group] = total;
                            (total, blocks, group) = (0, 0, group + 1);
                        }
                    }
                }
            }
            if blocks > 0 {
                sums[group] = total;
            }
            // Sums of codes may not fit 32 bits in rows of few bits; these differences do.
            for (group, sum) in layout.all_groups().zip(sums) {
                let zeros = parameter.zero.wrapping_mul(to_i32(group.len));
                let exact = sum.wrapping_sub(zeros);
                *sum = exact.wrapping_mul(self.factor);
            }
        }
        Ok(())
    }
}

#[inline(always)]
fn sum_of(block: &[i8; BLOCK]) -> i32 {
    block.iter().map(|&code| i32::from(code)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::rows::RowParameter;

    /// Unsigned codes of one bit, all 1, as signed bytes.
    struct Ones;

    impl RowSource for Ones {
        fn parameter(&self, _: usize) -> Result<RowParameter, RowFault> {
            Ok(RowParameter {
                zero: -128,
                scale: 1.0,
            })
        }

        fn codes(
            &self,
            _: usize,
            _: usize,
            _: &RowParameter,
            out: &mut [i8],
        ) -> Result<(), RowFault> {
            out.fill(-127);
            Ok(())
        }
    }

    #[cfg(feature = "rayon")]
    const HIGH: Stacks = Stacks { height: 12, run: 1 };

    /// Which threads rows are taken on, each row long enough for all of them to come.
    #[cfg(feature = "rayon")]
    #[derive(Default)]
    struct Threads(std::sync::Mutex<std::collections::HashSet<std::thread::ThreadId>>);

    #[cfg(feature = "rayon")]
    impl RowSource for Threads {
        fn parameter(&self, row: usize) -> Result<RowParameter, RowFault> {
            if row.is_multiple_of(400) {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            self.0.lock().unwrap().insert(std::thread::current().id());
            Ones.parameter(row)
        }

        fn codes(
            &self,
            row: usize,
            start: usize,
            parameter: &RowParameter,
            out: &mut [i8],
        ) -> Result<(), RowFault> {
            Ones.codes(row, start, parameter, out)
        }
    }

    #[cfg(feature = "rayon")]
    #[test]
    #[cfg_attr(target_family = "wasm", ignore = "there is one thread")]
    fn rows_are_taken_on_no_more_threads_than_are_allowed() {
        let layout = Layout::new(1, 128, 128, 1).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8);
        let pool = pool.build().unwrap();
        for (most, rows) in [(1, 4_001), (2, 4_001), (3, 7_999), (4, 7_999)] {
            let threads = Threads::default();
            let mut operand = Operand::default();
            let fill = || operand.fill::<i8>(&threads, rows, (&layout, 1), HIGH, most);
            pool.install(fill).unwrap();
            assert!(threads.0.into_inner().unwrap().len() <= most);
            assert_eq!(operand.sums, vec![128; rows]);
        }
    }

    /// Rows of codes of few bits may be so long that their codes, taken as signed bytes, have a sum
    /// that 32 bits do not hold; that of the distances from the zero point is within the limit.
    #[test]
    fn the_sum_of_the_distances_is_exact_where_that_of_the_codes_is_not() {
        for depth in [1 << 25, (1 << 25) - 31] {
            let layout = Layout::new(1, depth, depth, 1).unwrap();
            let mut operand = Operand::default();
            operand
                .fill::<i8>(&Ones, 1, (&layout, -1), Stacks::default(), 1)
                .unwrap();
            assert_eq!(operand.sums, [-to_i32(depth)]);
        }
    }
}
