//! Plain Rust, for every machine.

use super::{Kernel, Rows, decode::Decode, ends::Ends, float_row::RowOf, lanes::Lanes};
use crate::{
    kernel::{
        layout::{BLOCK, unpack},
        weights::GroupZeros,
    },
    simd::Loops,
};

/// The kernel of no instruction set in particular.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Portable;

/// Columns in a panel.
const LANES: usize = 8;
/// Codes in a block of a panel.
const CODES: usize = BLOCK * LANES;

impl Lanes for Portable {
    const LANES: usize = LANES;
    type Lanes = [i32; LANES];
    type Floats = [f32; LANES];

    fn load_lanes(self, from: &[i32]) -> [i32; LANES] {
        std::array::from_fn(|lane| from[lane])
    }

    fn widen_to_lanes(self, from: &[u8]) -> [i32; LANES] {
        std::array::from_fn(|lane| from[lane].into())
    }

    fn store_lanes(self, to: &mut [i32], lanes: [i32; LANES]) {
        to[..LANES].copy_from_slice(&lanes);
    }

    fn add_lanes(self, a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }

    fn splat(self, value: i32) -> [i32; LANES] {
        [value; LANES]
    }

    fn subtract_products(
        self,
        lanes: [i32; LANES],
        factors: [i32; LANES],
        value: i32,
    ) -> [i32; LANES] {
        let product = |lane: usize| factors[lane].wrapping_mul(value);
        std::array::from_fn(|lane| lanes[lane].wrapping_sub(product(lane)))
    }

    fn load_floats(self, from: &[f32]) -> [f32; LANES] {
        std::array::from_fn(|lane| from[lane])
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "rounded once, as a float sum of the same products would be"
    )]
    fn add_scaled(self, sums: &mut [f32], lanes: [i32; LANES], scale: [f32; LANES]) {
        for (lane, sum) in sums[..LANES].iter_mut().enumerate() {
            *sum += lanes[lane] as f32 * scale[lane];
        }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "rounded once, as a float sum of the same products would be"
    )]
    fn add_scaled_from(
        self,
        sums: &mut [f32],
        lanes: [i32; LANES],
        (zero, x): ([f32; LANES], f32),
        scale: [f32; LANES],
    ) {
        for (lane, sum) in sums[..LANES].iter_mut().enumerate() {
            *sum += (lanes[lane] as f32 - zero[lane] * x) * scale[lane];
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "codes of at most 8 bits")]
    fn scaled(self, lanes: [i32; LANES], scale: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| lanes[lane] as f32 * scale[lane])
    }

    #[expect(clippy::cast_precision_loss, reason = "codes of at most 8 bits")]
    fn scaled_from(
        self,
        lanes: [i32; LANES],
        zero: [f32; LANES],
        scale: [f32; LANES],
    ) -> [f32; LANES] {
        std::array::from_fn(|lane| (lanes[lane] as f32 - zero[lane]) * scale[lane])
    }

    fn multiply_add(self, sums: [f32; LANES], x: f32, w: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|lane| {
            if Self::FUSED {
                x.mul_add(w[lane], sums[lane])
            } else {
                sums[lane] + x * w[lane]
            }
        })
    }

    fn store_floats(self, to: &mut [f32], floats: [f32; LANES]) {
        to[..LANES].copy_from_slice(&floats);
    }
}

impl Kernel for Portable {
    const NAME: &'static str = "portable-i8u8i32";
    const LANES: usize = LANES;
    const COLUMNS: usize = LANES;
    const TILES: &'static [usize] = &[4, 2, 1];
    const PACKED_TILES: &'static [usize] = &[4, 2, 1];
    const FUSED: bool = cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64");
    type Code = i16;
    type Weight = i16;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        loops.run()
    }

    fn decode(self, of: Decode<'_>, to: &mut [f32]) {
        let mut codes = [0_u8; CODES];
        unpack(of.bits, LANES, of.block, &mut codes, |code| code);
        let scale = self.load_floats(of.scale);
        for (depth, to) in to.chunks_exact_mut(LANES).enumerate() {
            let at = |lane: usize| (depth / 4 * LANES + lane) * 4 + depth % 4;
            let code: [i32; LANES] = std::array::from_fn(|lane| codes[at(lane)].into());
            let floats = match of.zero {
                GroupZeros::Same(zero) => self.scaled(code.map(|code| code - zero), scale),
                GroupZeros::Integer(zeros) => {
                    let code = self.subtract_products(code, self.widen_to_lanes(zeros), 1);
                    self.scaled(code, scale)
                }
                GroupZeros::Real(zeros, least) => {
                    let code = code.map(|code| code + least);
                    self.scaled_from(code, self.load_floats(zeros), scale)
                }
            };
            self.store_floats(to, floats);
        }
    }

    fn multiply_row(self, row: RowOf<'_>, sums: &mut [f32]) {
        let bytes = 4 * LANES * row.bits as usize;
        let mut floats = [0.0; CODES];
        for (panel, sums) in row.panels.into_iter().zip(sums.chunks_exact_mut(LANES)) {
            let mut kept = self.load_floats(sums);
            let groups = row.x.chunks(row.blocks_of_group).enumerate();
            let mut blocks = panel.blocks.chunks_exact(bytes);
            for (group, x) in groups {
                for (x, block) in x.iter().zip(&mut blocks) {
                    self.decode(panel.decode(&row, block, group * LANES), &mut floats);
                    for (&x, w) in x.iter().zip(floats.chunks_exact(LANES)) {
                        kept = self.multiply_add(kept, x, self.load_floats(w));
                    }
                }
            }
            self.store_floats(sums, kept);
        }
    }

    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i16>, ends: Ends<'_>) {
        let bytes = 4 * LANES * bits as usize;
        let mut unpacked = [0; CODES];
        let block = |index: usize, row: usize, sums: &mut [i32; LANES]| {
            // A block is unpacked once for all rows.
            if row == 0 {
                let block = &blocks[index * bytes..(index + 1) * bytes];
                unpack(bits, LANES, block, &mut unpacked, i16::from);
            }
            add_block(
                &unpacked,
                &rows.blocks[index * rows.stacks.height + row],
                sums,
            );
        };
        over_segments(rows, ends, block);
    }

    fn sums_of_unpacked(self, _: u32, unpacked: &[i16], rows: Rows<'_, i16>, ends: Ends<'_>) {
        let (blocks, _) = unpacked.as_chunks();
        let block = |index: usize, row: usize, sums: &mut [i32; LANES]| {
            add_block(
                &blocks[index],
                &rows.blocks[index * rows.stacks.height + row],
                sums,
            );
        };
        over_segments(rows, ends, block);
    }
}

/// Calls `block(index, row, sums)` for each block of each segment and each row, and ends the
/// segments.
fn over_segments(
    rows: Rows<'_, i16>,
    mut ends: Ends<'_>,
    mut block: impl FnMut(usize, usize, &mut [i32; LANES]),
) {
    for segment in ends.segments {
        let mut sums = match rows.count {
            1 => [ends.start::<_, 1>(Portable, segment)[0]; 4],
            2 => {
                let [first, second] = ends.start(Portable, segment);
                [first, second, first, second]
            }
            _ => ends.start(Portable, segment),
        };
        for index in segment.block..segment.block + segment.blocks {
            for (row, sums) in sums[..rows.count].iter_mut().enumerate() {
                block(index, row, sums);
            }
        }
        match rows.count {
            1 => ends.take(Portable, LANES, segment, 0, &[sums[0]]),
            2 => ends.take(Portable, LANES, segment, 0, &[sums[0], sums[1]]),
            _ => ends.take(Portable, LANES, segment, 0, &sums),
        }
    }
}

/// Adds the products of one block to the sums of a row.
fn add_block(block: &[i16; CODES], x: &[i16; BLOCK], sums: &mut [i32; LANES]) {
    let (quads, _) = block.as_chunks::<{ 4 * LANES }>();
    for (x, quad) in x.as_chunks::<4>().0.iter().zip(quads) {
        for (sum, w) in sums.iter_mut().zip(quad.as_chunks::<4>().0) {
            let product = |t: usize| i32::from(x[t]) * i32::from(w[t]);
            let four = (product(0) + product(1)) + (product(2) + product(3));
            *sum = sum.wrapping_add(four);
        }
    }
}
