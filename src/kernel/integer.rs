//! Products of integer codes: raw sums of a kernel, made exact by zero points, scaled group by group.
//!
//! With `d` the packed codes of the weights, `w = d − z`, and `x` the codes of the activations,
//!
//! ```text
//! Σ (x − zx) (d − z) = Σ x·d − zx · Σ d − z · Σ (x − zx)
//! ```
//!
//! over each group along the depth: the first sum is the kernel's, the second is known when the
//! weights are packed, the third when activations are quantized. All are computed modulo 2³², and the
//! result is within it, so that it is exact.

use std::marker::PhantomData;

use ndarray::Axis;

use super::{
    arch::{Kernel, MAX_COLUMNS, MAX_ROWS, PACKED_TILES, Rows},
    layout::{BLOCK, Layout, unpack},
    operand::Operand,
    tasks::{Task, tasks},
    weights::{GroupZeros, Weights},
};
use crate::{parallel::for_each, simd::Loops};

/// Rows up to which unpacking a panel ahead does not pay.
const ROWS_TO_UNPACK: usize = 8;

/// What sums over groups are kept in.
pub(super) trait Sum: Copy + Default + Send + Sync {
    /// Adds the sums of one group and row.
    fn add(sums: &mut [Self], group: GroupSums<'_>);
}

/// The sums of a group and row, and what makes them exact.
#[derive(Debug, Clone, Copy)]
pub(super) struct GroupSums<'a> {
    /// `Σ x·d − zx·Σd` of each column, `d` being the packed codes.
    raw: &'a [i32],
    /// What was taken from codes when they were packed.
    offset: i32,
    zero: GroupZeros<'a>,
    /// `Σ (x − zx)`.
    x_sum: i32,
    /// The scales of the weights; none where sums are not scaled.
    scale: &'a [f32],
}

impl GroupSums<'_> {
    /// `Σ (x − zx) (w − zw)` of a column; with real zero points `Σ (x − zx) q`.
    #[inline(always)]
    fn exact(&self, raw: i32, column: usize) -> i32 {
        let zero = match self.zero {
            GroupZeros::Same(zero) => zero,
            GroupZeros::Integer(zero) => zero[column].into(),
            GroupZeros::Real(_, least) => -least,
        };
        raw.wrapping_sub((zero - self.offset).wrapping_mul(self.x_sum))
    }
}

/// Exact integers; weights with a [reach](Weights::reach) have integer zero points.
impl Sum for i32 {
    #[inline(always)]
    fn add(sums: &mut [Self], group: GroupSums<'_>) {
        for (column, (sum, &raw)) in sums.iter_mut().zip(group.raw).enumerate() {
            *sum = sum.wrapping_add(group.exact(raw, column));
        }
    }
}

/// Floats: the exact sum of each group times its scale, added in the order of the groups. With real
/// zero points, `(Σ (x − zx)·q − z · Σ (x − zx)) · scale`.
#[expect(
    clippy::cast_precision_loss,
    reason = "rounded once, as a float sum of the same products would be"
)]
impl Sum for f32 {
    #[inline(always)]
    fn add(sums: &mut [Self], group: GroupSums<'_>) {
        let sums = sums.iter_mut().zip(group.raw).zip(group.scale).enumerate();
        if let GroupZeros::Real(real, _) = group.zero {
            for (column, ((sum, &raw), &scale)) in sums {
                let codes = group.exact(raw, column) as f32;
                *sum += (codes - real[column] * group.x_sum as f32) * scale;
            }
        } else {
            for (column, ((sum, &raw), &scale)) in sums {
                *sum += group.exact(raw, column) as f32 * scale;
            }
        }
    }
}

/// Computes sums for `out`, `[rows, columns]` in row-major order; `finish(row, column, sums, out)`
/// makes outputs of those of consecutive columns, which begin at `column`.
///
/// `code_sums` are those of [`Weights::sums_of_codes`], needed where activations have zero points.
pub(super) fn product<K: Kernel, S: Sum, O: Send>(
    weights: &Weights<K>,
    x: &Operand<K::Code>,
    code_sums: &[i32],
    out: &mut [O],
    finish: impl Fn(usize, usize, &[S], &mut [O]) + Send + Sync,
) {
    let task = |task: Task<'_, O>| {
        weights.kernel.run(Compute {
            weights,
            x,
            code_sums,
            task,
            finish: &finish,
            sums: PhantomData,
        });
    };
    let Layout { columns, depth, .. } = weights.layout;
    for_each(tasks(out, [x.rows, columns, depth], K::COLUMNS), task);
}

/// A task with all it needs.
struct Compute<'a, 'out, K: Kernel, S, O, F> {
    weights: &'a Weights<K>,
    x: &'a Operand<K::Code>,
    code_sums: &'a [i32],
    task: Task<'out, O>,
    finish: &'a F,
    sums: PhantomData<S>,
}

impl<K, S, O, F> Loops for Compute<'_, '_, K, S, O, F>
where
    K: Kernel,
    S: Sum,
    F: Fn(usize, usize, &[S], &mut [O]),
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            weights,
            x,
            code_sums,
            mut task,
            finish,
            ..
        } = self;
        let rows = task.out.nrows();
        let bits = weights.layout.bits;
        let unpacks = rows > ROWS_TO_UNPACK && !K::takes_packed(bits);
        let tiles = if unpacks || K::takes_packed(bits) {
            K::TILES
        } else {
            PACKED_TILES
        };
        let mut unpacked = if unpacks {
            vec![K::Weight::default(); weights.layout.padded_depth() * K::COLUMNS]
        } else {
            vec![]
        };
        for (index, mut out) in task
            .out
            .axis_chunks_iter_mut(Axis(1), K::COLUMNS)
            .enumerate()
        {
            let panel = task.panel + index;
            if unpacks {
                let packed = weights.blocks(panel, 0..weights.layout.blocks());
                unpack(bits, K::LANES, packed, &mut unpacked, K::Weight::from);
            }
            let mut row = 0;
            while row < rows {
                let count = tiles.iter().find(|&&tile| tile <= rows - row);
                let count = count.copied().unwrap_or(1);
                let mut sums = [S::default(); MAX_ROWS * MAX_COLUMNS];
                let sums = &mut sums[..count * K::COLUMNS];
                tile(
                    weights,
                    x,
                    code_sums,
                    panel,
                    task.row + row,
                    &unpacked,
                    sums,
                );
                for (index, sums) in sums.chunks_exact(K::COLUMNS).enumerate() {
                    let mut out = out.row_mut(row + index);
                    if let Some(out) = out.as_slice_mut() {
                        let sums = &sums[..out.len()];
                        finish(task.row + row + index, panel * K::COLUMNS, sums, out);
                    }
                }
                row += count;
            }
        }
    }
}

/// The sums of a few rows, as many as `sums` has place for, and one panel.
#[inline(always)]
fn tile<K: Kernel, S: Sum>(
    weights: &Weights<K>,
    x: &Operand<K::Code>,
    code_sums: &[i32],
    panel: usize,
    row: usize,
    unpacked: &[K::Weight],
    sums: &mut [S],
) {
    let layout = weights.layout;
    let groups = layout.groups();
    let mut raw = [0; MAX_ROWS * MAX_COLUMNS];
    let raw = &mut raw[..sums.len()];
    for group in layout.all_groups() {
        let rows = Rows {
            blocks: &x.blocks[row * x.stride + group.block..],
            stride: x.stride,
            count: sums.len() / K::COLUMNS,
        };
        let blocks = group.block..group.block + group.blocks;
        if unpacked.is_empty() {
            let packed = weights.blocks(panel, blocks);
            weights.kernel.sums(layout.bits, packed, rows, raw);
        } else {
            let size = BLOCK * K::COLUMNS;
            let unpacked = &unpacked[blocks.start * size..blocks.end * size];
            weights
                .kernel
                .sums_of_unpacked(layout.bits, unpacked, rows, raw);
        }
        let zero = weights.zero(panel, group.index);
        let scale = weights.scale(panel, group.index);
        let raw = raw.chunks_exact_mut(K::COLUMNS);
        for (index, (sums, raw)) in sums.chunks_exact_mut(K::COLUMNS).zip(raw).enumerate() {
            let x_zero = x.zero[row + index];
            if x_zero != 0 {
                let at = (panel * groups + group.index) * K::COLUMNS;
                for (raw, code_sum) in raw.iter_mut().zip(&code_sums[at..at + K::COLUMNS]) {
                    *raw = raw.wrapping_sub(x_zero.wrapping_mul(*code_sum));
                }
            }
            S::add(
                sums,
                GroupSums {
                    raw,
                    offset: weights.offset().into(),
                    zero,
                    x_sum: x.sums[(row + index) * groups + group.index],
                    scale,
                },
            );
        }
    }
}
