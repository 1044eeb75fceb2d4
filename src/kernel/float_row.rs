//! The product of one row of float activations, as in generating a text token by token: nothing is
//! written on the way, and each output has the same bits as in a product of many rows.

use super::{
    arch::{
        Kernel,
        float_row::{PANELS, Panel, RowOf},
    },
    layout::BLOCK,
    output::{PanelSums, Sink},
    scratch::Scratch,
    tasks::Part,
    weights::Weights,
};

/// Columns of the widest panel.
const MOST_COLUMNS: usize = 32;

/// Computes the part of a product that has one row, `x` of them all `[rows, depth]`, by weights of
/// integer codes.
pub(super) fn product<K: Kernel>(
    weights: &Weights<K>,
    x: &[f32],
    part: &Part,
    scratch: &mut Scratch,
    sink: &mut dyn Sink<f32>,
) {
    let layout = &weights.layout;
    let x = &x[part.rows.start * layout.depth..][..layout.depth];
    let blocks = layout.blocks();
    let filled = scratch.floats.of_len(blocks * BLOCK);
    for group in layout.all_groups() {
        let (values, rest) =
            filled[group.block * BLOCK..][..group.blocks * BLOCK].split_at_mut(group.len);
        values.copy_from_slice(&x[group.start..][..group.len]);
        rest.fill(0.0);
    }
    let panel = |index: usize| Panel {
        blocks: weights.blocks(index, 0..blocks),
        scale: weights.scales(index),
        zero: weights.zeros(index),
    };
    for first in part.panels.clone().step_by(PANELS) {
        // The last one may have to do twice.
        let panels = PANELS.min(part.panels.end - first);
        let mut sums = [0.0; PANELS * MOST_COLUMNS];
        let sums = &mut sums[..PANELS * K::COLUMNS];
        let row = RowOf {
            bits: layout.bits,
            offset: weights.offset(),
            x: filled.as_chunks().0,
            blocks_of_group: layout.group.div_ceil(BLOCK).max(1),
            panels: [panel(first), panel(first + panels - 1)],
        };
        weights.kernel.multiply_row(row, sums);
        for (index, sums) in sums.chunks_exact(K::COLUMNS).take(panels).enumerate() {
            sink.take(PanelSums {
                row: part.rows.start,
                column: (first + index) * K::COLUMNS,
                columns: K::COLUMNS,
                sums,
            });
        }
    }
}
