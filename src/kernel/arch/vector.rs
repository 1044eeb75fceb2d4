//! What the kernels ask of vector instructions: a value of a [`Vector`] proves that the machine has
//! them, and its methods are those instructions.

use super::lanes::Lanes;
use crate::{
    kernel::layout::{Plane, planes},
    simd::Loops,
};

/// Vectors of bytes, four for each lane.
pub(in crate::kernel) trait Vector: Lanes {
    /// Rows a tile of packed weights may have, greatest first, ending with 1: few, which do not pay
    /// for unpacking ahead.
    const PACKED_TILES: &'static [usize];
    /// Whether a float multiply-add rounds once.
    const FUSED: bool;
    /// A vector of bytes.
    type Bytes: Copy;
    /// Sums of 32 bits, one a lane, or some whose total is that of the lane.
    type Sums: Copy;

    /// Runs loops compiled for these instructions.
    fn run<L: Loops>(self, loops: L) -> L::Output;

    /// The first `4 · LANES` bytes of a slice.
    fn load(self, bytes: &[u8]) -> Self::Bytes;

    /// Writes the first `4 · LANES` bytes of a slice.
    fn store(self, to: &mut [u8], bytes: Self::Bytes);

    /// Every byte, its bits that `mask` has.
    fn mask(self, bytes: Self::Bytes, mask: u8) -> Self::Bytes;

    /// Every byte, the bits that `mask` has turned.
    fn flip(self, bytes: Self::Bytes, mask: u8) -> Self::Bytes;

    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// Shifted towards the low bits by less than 8; what comes over from a neighbouring byte is
    /// masked away afterwards.
    fn shift_down(self, bytes: Self::Bytes, by: u32) -> Self::Bytes;

    /// The other way.
    fn shift_up(self, bytes: Self::Bytes, by: u32) -> Self::Bytes;

    /// One byte of each lane, the one at `t` in the order of memory.
    fn lane_bytes(self, bytes: Self::Bytes, t: u32) -> Self::Lanes;

    fn zero(self) -> Self::Sums;

    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;

    /// The total of each lane.
    fn lanes(self, sums: Self::Sums) -> Self::Lanes;

    /// Sums of such totals.
    fn of_lanes(self, lanes: Self::Lanes) -> Self::Sums;
}

/// Vectors with an instruction that adds four products of bytes to a lane: VNNI, dotprod, i8mm.
pub(in crate::kernel) trait Dot: Vector {
    /// The name of the kernel.
    const NAME: &'static str;
    /// Rows a tile may have.
    const TILES: &'static [usize];
    /// Whether weights are taken as unsigned bytes; otherwise as signed ones.
    const UNSIGNED: bool;

    /// To each lane, the products of its four weights and the four activations, which are the bytes
    /// of `x` in the order of memory.
    fn dot(self, sums: Self::Sums, w: Self::Bytes, x: i32) -> Self::Sums;
}

/// Vectors with an instruction that sums pairs of products of an unsigned and a signed byte in 16
/// bits: `vpmaddubsw`.
pub(in crate::kernel) trait PairSums: Vector {
    /// The name of the kernel.
    const NAME: &'static str;
    /// Rows a tile may have.
    const TILES: &'static [usize];
    /// Sums of 16 bits, two for each lane.
    type Pairs: Copy;

    fn no_pairs(self) -> Self::Pairs;

    /// To each sum of 16 bits, two products of unsigned weights and signed activations.
    fn add_pairs(self, pairs: Self::Pairs, w: Self::Bytes, x: i32) -> Self::Pairs;

    /// The two sums of each lane, added.
    fn sum_pairs(self, pairs: Self::Pairs) -> Self::Sums;
}

/// The codes of one quad, a byte each, from a block of one vector of columns.
#[inline(always)]
pub(super) fn quad<V: Vector, const BITS: u32, const QUAD: usize>(v: V, block: &[u8]) -> V::Bytes {
    let [first, second, third] = planes(BITS);
    let mut codes = part::<V, QUAD>(v, block, first);
    if second.width > 0 {
        codes = v.or(codes, part::<V, QUAD>(v, block, second));
    }
    if third.width > 0 {
        codes = v.or(codes, part::<V, QUAD>(v, block, third));
    }
    codes
}

/// The bits that a plane has of a quad, in their place in the codes.
#[inline(always)]
fn part<V: Vector, const QUAD: usize>(v: V, block: &[u8], plane: Plane) -> V::Bytes {
    let (vector, from) = plane.place(QUAD);
    let bytes = v.load(&block[4 * V::LANES * vector..]);
    if plane.width == 8 {
        return bytes;
    }
    let moved = match plane.low {
        low if low > from => v.shift_up(bytes, low - from),
        low if low < from => v.shift_down(bytes, from - low),
        _ => bytes,
    };
    v.mask(moved, plane.mask() << plane.low)
}

/// One of eight shifts by a number that is a constant where this is inlined.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! shifted {
    ($intrinsic:ident, $bytes:expr, $by:expr) => {
        match $by {
            0 => $bytes,
            1 => $intrinsic::<1>($bytes),
            2 => $intrinsic::<2>($bytes),
            3 => $intrinsic::<3>($bytes),
            4 => $intrinsic::<4>($bytes),
            5 => $intrinsic::<5>($bytes),
            6 => $intrinsic::<6>($bytes),
            _ => $intrinsic::<7>($bytes),
        }
    };
}

/// The four codes of a quad of activations, in the order of memory.
#[inline(always)]
pub(super) fn four<const BLOCK: usize>(block: &[i8; BLOCK], quad: usize) -> i32 {
    let (quads, _) = block.as_chunks::<4>();
    i32::from_ne_bytes(quads[quad].map(i8::cast_unsigned))
}

/// The body once for each quad of a block, each time with its number as a constant, which decides
/// loads, shifts and masks.
macro_rules! for_quads {
    ($quad:ident => $body:block) => {
        for_quads!($quad => $body; 0 1 2 3 4 5 6 7);
    };
    ($quad:ident => $body:block; $($number:literal)*) => {$({
        const $quad: usize = $number;
        $body
    })*};
}

/// Runs a tile of packed weights, compiled for its width and its number of rows, one of
/// [`PACKED_TILES`](Vector::PACKED_TILES).
macro_rules! run_packed {
    ($v:expr, $tile:expr, $bits:expr, $rows:expr) => {
        match ($bits, $rows) {
            (1, rows) => run_packed!($v, $tile, rows; 1),
            (2, rows) => run_packed!($v, $tile, rows; 2),
            (3, rows) => run_packed!($v, $tile, rows; 3),
            (4, rows) => run_packed!($v, $tile, rows; 4),
            (5, rows) => run_packed!($v, $tile, rows; 5),
            (6, rows) => run_packed!($v, $tile, rows; 6),
            (_, rows) => run_packed!($v, $tile, rows; 7),
        }
    };
    ($v:expr, $tile:expr, $rows:ident; $bits:literal) => {
        match $rows {
            1 => $v.run(Packed::<V, P, VECTORS, $bits, 1, 4>($tile)),
            2 => $v.run(Packed::<V, P, VECTORS, $bits, 2, 2>($tile)),
            8 if const { V::LANES == 16 } => $v.run(Packed::<V, P, VECTORS, $bits, 8, 1>($tile)),
            _ => $v.run(Packed::<V, P, VECTORS, $bits, 4, 1>($tile)),
        }
    };
}

/// Runs a tile compiled for its number of rows, whichever it is.
macro_rules! run_unpacked {
    ($v:expr, $tile:expr, $rows:expr) => {
        match $rows {
            1 => $v.run(Unpacked::<V, P, VECTORS, 1, 4>($tile)),
            2 => $v.run(Unpacked::<V, P, VECTORS, 2, 2>($tile)),
            4 => $v.run(Unpacked::<V, P, VECTORS, 4, 1>($tile)),
            8 if const { V::LANES == 16 } => $v.run(Unpacked::<V, P, VECTORS, 8, 1>($tile)),
            12 if const { V::LANES == 16 } => $v.run(Unpacked::<V, P, VECTORS, 12, 1>($tile)),
            _ => $v.run(Unpacked::<V, P, VECTORS, 6, 1>($tile)),
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use shifted;
pub(super) use {for_quads, run_packed, run_unpacked};
