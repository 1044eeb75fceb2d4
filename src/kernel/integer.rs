//! Products of integer codes: tile by tile over panels of weights, in stretches of depth that stay
//! in the nearest caches.

use super::{
    arch::{
        Kernel, Rows,
        ends::{Ends, Parameters},
        shares,
    },
    layout::BLOCK,
    operand::{ActivationCode, Operand},
    output::{PanelSums, Sink},
    scratch::{Scratch, Weight},
    tasks::Part,
    weights::Weights,
};
use crate::simd::Loops;

/// Rows that take so little time that a tile asks for the weights ahead itself, far from where it
/// is.
const FEW: usize = 2;

/// What is wanted of a product.
pub(super) enum Target<'a> {
    /// The exact sums `Σ (x − zx) (w − zw)`, of weights with one group and integer zero points.
    Exact(&'a mut dyn Sink<i32>),
    /// Those of each group times its scale, added up in the order of the groups.
    Scaled(&'a mut dyn Sink<f32>),
}

/// A part of a product, with all it needs.
pub(super) struct Product<'a, 'to, K> {
    pub(super) weights: &'a Weights<K>,
    pub(super) x: &'a Operand,
    /// Those of [`Weights::sums_of_codes`].
    pub(super) code_sums: &'a [i32],
    pub(super) part: Part,
    pub(super) scratch: &'a mut Scratch,
    pub(super) target: Target<'to>,
}

impl<K: Kernel> Loops for Product<'_, '_, K> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self {
            weights,
            x,
            code_sums,
            part,
            scratch,
            mut target,
        } = self;
        let layout = weights.layout;
        let (groups, bits) = (layout.groups(), layout.bits);
        let (first, rows) = (part.rows.start, part.rows.len());
        let stacks = x.stacks;
        let in_runs = stacks.run > 1;
        let unpacks = in_runs || rows > K::ROWS_TO_UNPACK && !K::takes_packed(bits);
        let few = if K::takes_packed(bits) {
            FEW
        } else {
            stacks.height
        };
        let are_many = in_runs || rows > few;
        let stretches = weights.stretches(are_many);
        let tiles = K::tiles(bits, rows);
        let codes = K::Code::blocks(x);
        let has_zeros = x.zero[part.rows.clone()].iter().any(|&zero| zero != 0);
        let sums = rows * K::COLUMNS;
        let raw = scratch.raw.of_len(sums);
        let is_scaled = matches!(target, Target::Scaled(_));
        let scaled = scratch.sums.of_len(if is_scaled { sums } else { 0 });
        let unpacked = K::Weight::place(&mut scratch.unpacked);
        if stretches.is_empty() {
            raw.fill(0);
        }
        let last_panel = part.panels.end;
        for panel in part.panels {
            scaled.fill(0.0);
            let of_panel = panel * groups * K::COLUMNS..(panel + 1) * groups * K::COLUMNS;
            let of_panel = Parameters {
                zero: weights.zeros(panel),
                scale: weights.scales(panel),
                code_sums: if has_zeros { &code_sums[of_panel] } else { &[] },
                offset: weights.offset().into(),
                x_sums: &x.sums,
                x_stride: x.rows(),
                x_zero: &x.zero,
            };
            let are_plain = of_panel.are_plain() && is_scaled;
            for (index, stretch) in stretches.iter().enumerate() {
                let packed = weights.blocks(panel, stretch.blocks.clone());
                if unpacks {
                    let blocks = stretch.blocks.len().next_multiple_of(stacks.run);
                    let unpacked = unpacked.of_len(blocks * BLOCK * K::COLUMNS);
                    weights.kernel.unpack(bits, packed, stacks, unpacked);
                }
                // Reading what comes next is spread over the tiles.
                let mut next: &[u8] = &[];
                if are_many {
                    next = match stretches.get(index + 1) {
                        Some(stretch) => weights.blocks(panel, stretch.blocks.clone()),
                        None if panel + 1 < last_panel => {
                            weights.blocks(panel + 1, stretches[0].blocks.clone())
                        }
                        None => &[],
                    };
                }
                let mut next = shares(next, rows.div_ceil(stacks.height));
                let mut row = 0;
                while row < rows {
                    // Not beyond the stack.
                    let left = stacks.height - (first + row) % stacks.height;
                    let left = left.min(rows - row);
                    let count = if in_runs { left } else { height(tiles, left) };
                    let sums = row * K::COLUMNS..(row + count) * K::COLUMNS;
                    let at = first + row;
                    let ends = Ends {
                        segments: &stretch.segments,
                        parameters: Parameters {
                            x_sums: &of_panel.x_sums[at..],
                            x_zero: &of_panel.x_zero[at..],
                            ..of_panel
                        },
                        are_plain,
                        raw: &mut raw[sums.clone()],
                        scaled: if is_scaled {
                            &mut scaled[sums]
                        } else {
                            &mut []
                        },
                    };
                    let rows = Rows {
                        blocks: &codes[x.place_of(at, stretch.blocks.start)..],
                        stacks,
                        count,
                        ahead: next.next().unwrap_or_default(),
                    };
                    if unpacks {
                        weights
                            .kernel
                            .sums_of_unpacked(bits, unpacked.as_slice(), rows, ends);
                    } else {
                        weights.kernel.sums(bits, packed, rows, ends);
                    }
                    row += count;
                }
            }
            let column = panel * K::COLUMNS;
            match &mut target {
                Target::Exact(sink) => sink.take(PanelSums {
                    row: first,
                    column,
                    columns: K::COLUMNS,
                    sums: raw,
                }),
                Target::Scaled(sink) => sink.take(PanelSums {
                    row: first,
                    column,
                    columns: K::COLUMNS,
                    sums: scaled,
                }),
            }
        }
    }
}

/// The height of the next tile for so many rows: the greatest that fits, or the one after it if two
/// of those are all that is left.
fn height(tiles: &[usize], rows: usize) -> usize {
    let mut fitting = tiles.iter().copied().skip_while(|&tile| tile > rows);
    match (fitting.next(), fitting.next()) {
        (Some(greatest), Some(next)) if rows == 2 * next && greatest < rows => next,
        (greatest, _) => greatest.unwrap_or(1),
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use crate::{Activations, Affine, Isa, PackedLinear, QTensor, Scheme, Workspace};

    #[test]
    fn sums_without_inputs_are_0_whatever_the_workspace_held() {
        let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1.0, 0.0).unwrap();
        for &isa in Isa::available() {
            let mut workspace = Workspace::new();
            for depth in [40, 0] {
                let ones = Array2::<i8>::ones((16, depth));
                let weights = QTensor::from_codes(&ones, &affine).unwrap();
                let layer = PackedLinear::pack_for(isa, &weights, None)
                    .unwrap()
                    .with_activations(Activations::Static(affine.clone()))
                    .unwrap();
                let x = Array2::<i8>::ones((3, depth));
                let mut sums = Array2::zeros((3, 16));
                layer
                    .accumulate_into(&x, &mut sums, &mut workspace)
                    .unwrap();
                let depth = i32::try_from(depth).unwrap();
                assert_eq!(sums, Array2::from_elem((3, 16), depth), "{isa}");
            }
        }
    }
}
