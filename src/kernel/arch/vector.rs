//! What the kernels ask of vector instructions: a value of a [`Vector`] proves that the machine has
//! them, and its methods are those instructions.

use std::fmt::Debug;

use crate::{
    kernel::layout::{Plane, planes},
    simd::Loops,
};

/// Vectors of bytes, four for each of some lanes of 32 bits.
pub(in crate::kernel) trait Vector: Copy + Debug + Send + Sync + 'static {
    /// Lanes of 32 bits.
    const LANES: usize;
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

    /// Every byte, its bits that `mask` has.
    fn mask(self, bytes: Self::Bytes, mask: u8) -> Self::Bytes;

    fn or(self, a: Self::Bytes, b: Self::Bytes) -> Self::Bytes;

    /// Shifted towards the low bits by less than 8; what comes over from a neighbouring byte is
    /// masked away afterwards.
    fn shift_down(self, bytes: Self::Bytes, by: u32) -> Self::Bytes;

    /// The other way.
    fn shift_up(self, bytes: Self::Bytes, by: u32) -> Self::Bytes;

    fn zero(self) -> Self::Sums;

    fn add(self, a: Self::Sums, b: Self::Sums) -> Self::Sums;

    /// Adds to the first `LANES` sums of a slice.
    fn add_to(self, sums: &mut [i32], value: Self::Sums);

    /// Writes the first `LANES` sums of a slice.
    fn store(self, sums: &mut [i32], value: Self::Sums);
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
/// [`PACKED_TILES`](super::PACKED_TILES).
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
            1 => $v.run(Packed::<V, VECTORS, $bits, 1>($tile)),
            2 => $v.run(Packed::<V, VECTORS, $bits, 2>($tile)),
            _ => $v.run(Packed::<V, VECTORS, $bits, 4>($tile)),
        }
    };
}

/// Runs a tile compiled for its number of rows, whichever it is.
macro_rules! run_unpacked {
    ($v:expr, $tile:expr, $rows:expr) => {
        match $rows {
            1 => $v.run(Unpacked::<V, VECTORS, 1>($tile)),
            2 => $v.run(Unpacked::<V, VECTORS, 2>($tile)),
            4 => $v.run(Unpacked::<V, VECTORS, 4>($tile)),
            6 => $v.run(Unpacked::<V, VECTORS, 6>($tile)),
            8 => $v.run(Unpacked::<V, VECTORS, 8>($tile)),
            _ => $v.run(Unpacked::<V, VECTORS, 12>($tile)),
        }
    };
}

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(super) use shifted;
pub(super) use {for_quads, run_packed, run_unpacked};
