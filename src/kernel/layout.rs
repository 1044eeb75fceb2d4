//! How packed weights lie in memory: panels of columns, cut into blocks of 32 codes a column.
//!
//! A *column* is an output of the layer, a row of the weights `[out, in]`. A panel holds the columns
//! that a kernel computes side by side, one a vector lane; panel after panel, block after block of
//! 32 along the depth, vector after vector of lanes, a block of `b`-bit codes takes `b` vectors of
//! 4 bytes a lane:
//!
//! ```text
//! byte [lane][t] of a vector: codes of depth 4·quad + t, for the quads that share the vector
//!
//! 8 bits: vector q           quad q
//! 4 bits: vector q / 2       quad q in bits 4·(q mod 2) …
//! 2 bits: vector q / 4       quad q in bits 2·(q mod 4) …
//! 1 bit:  vector 0           quad q in bit q
//! 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1 bits: such planes one after the other, the first
//! one with the low bits of the codes
//! ```
//!
//! So one load, a shift and a mask give the four codes a lane that a dot-product instruction takes,
//! and a panel is read from its first byte to its last. Codes are distances from the least code of
//! their format. Groups along the depth start on blocks; what fills them up is 0, as are the
//! activations there.

use std::ops::Range;

use crate::{
    error::{Error, Result},
    groups::element_count,
};

/// Codes along the depth in a block.
pub(super) const BLOCK: usize = 32;

/// Quads in a block.
pub(super) const QUADS: usize = BLOCK / 4;

/// Columns at most where there is no depth: memory bounds those of weights that have some, but nothing
/// those of `[2^60, 0]`, and packing goes through them.
const COLUMNS_OF_NOTHING: usize = 1 << 20;

/// Some bits of every code of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Plane {
    /// How many bits; 0 for a plane that is not there.
    pub(super) width: u32,
    /// The first vector of the plane.
    vector: usize,
    /// The lowest of the bits in a code.
    pub(super) low: u32,
}

impl Plane {
    const NONE: Self = Self::new(0, 0, 0);

    const fn new(width: u32, vector: usize, low: u32) -> Self {
        Self { width, vector, low }
    }

    /// The vector that holds the plane's bits of a quad, and the lowest of them in its bytes.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "less than 8")]
    pub(super) const fn place(self, quad: usize) -> (usize, u32) {
        let bits = self.width as usize * quad;
        (self.vector + bits / 8, (bits % 8) as u32)
    }

    /// The plane's bits in the low bits of a byte.
    #[inline(always)]
    pub(super) const fn mask(self) -> u8 {
        u8::MAX.unbounded_shr(8 - self.width)
    }
}

/// The planes that codes of a width are cut into.
pub(super) const fn planes(bits: u32) -> [Plane; 3] {
    let whole = Plane::new(bits, 0, 0);
    match bits {
        3 => [Plane::new(2, 0, 0), Plane::new(1, 2, 2), Plane::NONE],
        5 => [Plane::new(4, 0, 0), Plane::new(1, 4, 4), Plane::NONE],
        6 => [Plane::new(4, 0, 0), Plane::new(2, 4, 4), Plane::NONE],
        7 => [
            Plane::new(4, 0, 0),
            Plane::new(2, 4, 4),
            Plane::new(1, 6, 6),
        ],
        _ => [whole, Plane::NONE, Plane::NONE],
    }
}

/// The shape of packed weights, in columns, depth and groups along the depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) columns: usize,
    pub(super) depth: usize,
    /// Depth that shares a scale; the last group may be shorter.
    pub(super) group: usize,
    /// Bits of a code, 1 to 8.
    pub(super) bits: u32,
}

/// A group along the depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) index: usize,
    /// Its first element along the depth, and how many it has.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Its first block, and how many it has.
    pub(super) block: usize,
    pub(super) blocks: usize,
}

/// A part of a group, or all of it, in a stretch of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The first block, counted from the start of the stretch, and how many there are.
    pub(super) block: usize,
    pub(super) blocks: usize,
    pub(super) group: usize,
    /// Whether the group begins here, and whether it ends here.
    pub(super) begins: bool,
    pub(super) ends: bool,
}

impl Segment {
    /// Its bytes in those of the stretch, for blocks of so many.
    #[inline(always)]
    pub(super) fn bytes(&self, block: usize) -> Range<usize> {
        self.block * block..(self.block + self.blocks) * block
    }
}

/// Blocks that a kernel goes through at a time, and the groups there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stretch {
    pub(super) blocks: Range<usize>,
    pub(super) segments: Vec<Segment>,
}

/// The blocks of a stretch, of which these are the segments.
#[inline(always)]
pub(super) fn blocks_of(segments: &[Segment]) -> usize {
    segments.last().map_or(0, |last| last.block + last.blocks)
}

impl Layout {
    /// # Errors
    /// [`Error::TooLarge`](crate::Error::TooLarge) if the codes, filled up to blocks, cannot be
    /// addressed, and for more than [`COLUMNS_OF_NOTHING`] without any.
    pub(super) fn new(columns: usize, depth: usize, group: usize, bits: u32) -> Result<Self> {
        let layout = Self {
            columns,
            depth,
            group: group.clamp(1, depth.max(1)),
            bits,
        };
        let padded = element_count(
            "packed weights",
            &[
                depth.div_ceil(layout.group),
                layout.group.div_ceil(BLOCK),
                BLOCK,
            ],
        )?;
        element_count("packed weights", &[columns.saturating_add(64), padded])?;
        if padded == 0 && columns > COLUMNS_OF_NOTHING {
            return Err(Error::TooLarge {
                what: "packed weights without inputs",
                got: format!("{columns} columns"),
            });
        }
        Ok(layout)
    }

    pub(super) fn groups(&self) -> usize {
        self.depth.div_ceil(self.group)
    }

    pub(super) fn group(&self, index: usize) -> Group {
        let start = index * self.group;
        let len = self.group.min(self.depth - start);
        Group {
            index,
            start,
            len,
            block: index * self.group.div_ceil(BLOCK),
            blocks: len.div_ceil(BLOCK),
        }
    }

    pub(super) fn all_groups(&self) -> impl Iterator<Item = Group> {
        let layout = *self;
        (0..self.groups()).map(move |index| layout.group(index))
    }

    /// The blocks of a column in stretches of at most `most`; none where there is no column, whose
    /// depth is only claimed.
    pub(super) fn stretches(&self, most: usize) -> Vec<Stretch> {
        let mut stretches: Vec<Stretch> = vec![];
        if self.columns == 0 {
            return stretches;
        }
        for group in self.all_groups() {
            let mut done = 0;
            while done < group.blocks {
                let at = group.block + done;
                let stretch = match stretches.last_mut() {
                    Some(last) if last.blocks.len() < most => last,
                    _ => {
                        stretches.push(Stretch {
                            blocks: at..at,
                            segments: vec![],
                        });
                        continue;
                    }
                };
                let blocks = (group.blocks - done).min(most - stretch.blocks.len());
                stretch.segments.push(Segment {
                    block: stretch.blocks.len(),
                    blocks,
                    group: group.index,
                    begins: done == 0,
                    ends: done + blocks == group.blocks,
                });
                stretch.blocks.end += blocks;
                done += blocks;
            }
        }
        stretches
    }

    /// Blocks of a column.
    pub(super) fn blocks(&self) -> usize {
        match self.groups() {
            0 => 0,
            groups => {
                let last = self.group(groups - 1);
                last.block + last.blocks
            }
        }
    }

    /// Depth with every group filled up to blocks.
    pub(super) fn padded_depth(&self) -> usize {
        self.blocks() * BLOCK
    }

    /// Bytes of a block of `columns` columns.
    pub(super) fn block_bytes(&self, columns: usize) -> usize {
        columns * 4 * self.bits as usize
    }
}

/// The depth of a group, which is at most what a 32-bit sum of products allows where it is used.
pub(super) fn to_i32(depth: usize) -> i32 {
    i32::try_from(depth).unwrap_or(i32::MAX)
}

/// Writes one block of one vector: `code(lane, depth)` for `4 · lanes · bits` bytes.
pub(super) fn write_block(
    bits: u32,
    lanes: usize,
    out: &mut [u8],
    code: impl Fn(usize, usize) -> u8,
) {
    out.fill(0);
    for plane in planes(bits).into_iter().filter(|plane| plane.width > 0) {
        for quad in 0..QUADS {
            let (vector, shift) = plane.place(quad);
            let out = &mut out[4 * lanes * vector..4 * lanes * (vector + 1)];
            for (byte, out) in out.iter_mut().enumerate() {
                let code = code(byte / 4, 4 * quad + byte % 4);
                *out |= ((code >> plane.low) & plane.mask()) << shift;
            }
        }
    }
}

/// Unpacks blocks into the layout of 8 bits, `4 · lanes · 8` codes for each block of one vector, and
/// gives each code to `widen`.
#[inline(always)]
pub(super) fn unpack<T>(
    bits: u32,
    lanes: usize,
    blocks: &[u8],
    out: &mut [T],
    widen: impl Fn(u8) -> T + Copy,
) {
    match bits {
        1 => unpack_width::<1, T>(lanes, blocks, out, widen),
        2 => unpack_width::<2, T>(lanes, blocks, out, widen),
        3 => unpack_width::<3, T>(lanes, blocks, out, widen),
        4 => unpack_width::<4, T>(lanes, blocks, out, widen),
        5 => unpack_width::<5, T>(lanes, blocks, out, widen),
        6 => unpack_width::<6, T>(lanes, blocks, out, widen),
        7 => unpack_width::<7, T>(lanes, blocks, out, widen),
        _ => unpack_width::<8, T>(lanes, blocks, out, widen),
    }
}

#[inline(always)]
fn unpack_width<const BITS: u32, T>(
    lanes: usize,
    blocks: &[u8],
    out: &mut [T],
    widen: impl Fn(u8) -> T + Copy,
) {
    let vector = 4 * lanes;
    let blocks = blocks.chunks_exact(vector * BITS as usize);
    for (block, out) in blocks.zip(out.chunks_exact_mut(vector * QUADS)) {
        for (quad, out) in out.chunks_exact_mut(vector).enumerate() {
            let planes = planes(BITS).map(|plane| (plane, plane.place(quad)));
            let read = |index: usize, byte: usize| {
                let (plane, (at, shift)) = planes[index];
                ((block[at * vector + byte] >> shift) & plane.mask()) << plane.low
            };
            for (byte, out) in out.iter_mut().enumerate() {
                let mut code = read(0, byte);
                for (index, (plane, _)) in planes.iter().enumerate().skip(1) {
                    if plane.width > 0 {
                        code |= read(index, byte);
                    }
                }
                *out = widen(code);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_gives_back_what_was_written_for_every_width() {
        for bits in 1..=8 {
            for lanes in [1, 4, 8, 16] {
                let code =
                    |lane: usize, depth: usize| ((lane * 37 + depth * 11 + 5) % (1 << bits)) as u8;
                let mut block = vec![0xff; 4 * lanes * bits as usize];
                write_block(bits, lanes, &mut block, code);
                let mut codes = vec![0_u8; BLOCK * lanes];
                unpack(bits, lanes, &block, &mut codes, |code| code);
                for depth in 0..BLOCK {
                    for lane in 0..lanes {
                        let got = codes[(depth / 4 * lanes + lane) * 4 + depth % 4];
                        assert_eq!(got, code(lane, depth), "{bits} bits");
                    }
                }
            }
        }
    }

    #[test]
    fn groups_start_on_blocks_and_the_last_may_be_shorter() {
        let layout = Layout::new(3, 172, 40, 4).unwrap();
        let groups: Vec<Group> = layout.all_groups().collect();
        assert_eq!(groups.len(), 5);
        assert_eq!(
            (groups[1].start, groups[1].block, groups[1].blocks),
            (40, 2, 2)
        );
        assert_eq!(
            (groups[4].start, groups[4].len, groups[4].blocks),
            (160, 12, 1)
        );
        assert_eq!(layout.blocks(), 9);
        let stretches = layout.stretches(3);
        assert_eq!(stretches.len(), 3);
        assert_eq!(stretches[1].blocks, 3..6);
        // The second half of group 1, then all of group 2.
        let [half, whole] = stretches[1].segments[..] else {
            panic!("{stretches:?}");
        };
        assert_eq!((half.group, half.begins, half.ends), (1, false, true));
        assert_eq!((whole.block, whole.blocks, whole.group), (1, 2, 2));
        assert!(whole.begins && whole.ends);
        assert_eq!(Layout::new(3, 0, 40, 4).unwrap().blocks(), 0);
        assert_eq!(Layout::new(3, 5, usize::MAX, 4).unwrap().group, 5);
        assert!(Layout::new(2, usize::MAX / 4, 1, 4).is_err());
        assert!(Layout::new(usize::MAX / 64, 32, 32, 8).is_err());
    }
}
