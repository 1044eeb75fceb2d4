//! Tiles of AMX: matrices of 16 rows of 64 bytes, multiplied whole.

use std::{arch::asm, cell::Cell, marker::PhantomData, slice::Chunks};

use crate::{
    kernel::layout::BLOCK,
    simd::{ask_for, x86::AmxInt8},
};

/// Rows of a tile, columns of the sums in one, and quads of the depth in one of weights.
pub(in crate::kernel) const SIDE: usize = 16;
/// Bytes of a row of a tile.
const LINE: usize = 64;
/// Rows and columns of sums, in two tiles by two.
pub(in crate::kernel) const HEIGHT: usize = 2 * SIDE;
pub(in crate::kernel) const COLUMNS: usize = 2 * SIDE;
/// Blocks of 32 that a tile has of the depth.
pub(in crate::kernel) const RUN: usize = LINE / BLOCK;
/// Bytes of a run of blocks of weights of all columns: two tiles.
pub(in crate::kernel) const RUN_BYTES: usize = 2 * SIDE * LINE;

/// Bytes of a row of sums.
const ROW_OF_SUMS: usize = COLUMNS * size_of::<i32>();

/// How tiles are configured, in the form of the instruction set.
#[repr(C, align(64))]
struct Configuration([u8; LINE]);

/// Tiles for sums of some rows: `tmm0` to `tmm3` sums, of which `tmm2` and `tmm3` those of the rows
/// after the first 16; `tmm4` and `tmm5` the activations of the same rows; `tmm6` and `tmm7` the
/// weights of 16 columns each.
///
/// They are those of a thread, which this does not leave, and are released when it is dropped. Nothing
/// but this uses such registers in the crate, and no code that a compiler makes does.
#[derive(Debug)]
pub(in crate::kernel) struct Tiles {
    of_thread: PhantomData<*const ()>,
    /// Rows of the lower tiles, none if the upper ones have all.
    lower: usize,
    rows: usize,
    /// Blocks that a product takes at a time: all of a run, or one.
    blocks: usize,
}

thread_local! {
    /// Whether the thread's tiles are configured.
    static IN_USE: Cell<bool> = const { Cell::new(false) };
}

impl Tiles {
    /// Tiles for 1 to [`HEIGHT`] rows, and products of whole runs of blocks or of single ones.
    ///
    /// # Panics
    /// Where the thread has some already.
    pub(in crate::kernel) fn new(_: AmxInt8, rows: usize, in_runs: bool) -> Self {
        let rows = rows.clamp(1, HEIGHT);
        let upper = rows.min(SIDE);
        let lower = rows - upper;
        let blocks = if in_runs { RUN } else { 1 };
        let depth = blocks * BLOCK;
        let mut configuration = Configuration([0; LINE]);
        // The palette, which has eight tiles of at most 16 rows of 64 bytes.
        configuration.0[0] = 1;
        for (tile, rows, bytes) in [
            (0, upper, LINE),
            (1, upper, LINE),
            (2, lower, LINE),
            (3, lower, LINE),
            (4, upper, depth),
            (5, lower, depth),
            (6, depth / 4, LINE),
            (7, depth / 4, LINE),
        ] {
            if rows > 0 {
                // Of two bytes, the lower one.
                configuration.0[16 + 2 * tile] = bytes.to_le_bytes()[0];
                configuration.0[48 + tile] = rows.to_le_bytes()[0];
            }
        }
        assert!(
            !IN_USE.replace(true),
            "one use of a thread's tiles at a time"
        );
        // SAFETY: the argument proves AMX; the configuration has the 64 bytes that are read, and says
        // of each tile that is used no more rows and bytes than there are.
        unsafe {
            asm!(
                "ldtilecfg [{configuration}]",
                configuration = in(reg) &raw const configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, preserves_flags, readonly),
            );
        }
        Self {
            of_thread: PhantomData,
            lower,
            rows,
            blocks,
        }
    }

    /// Sums of nothing.
    pub(in crate::kernel) fn clear(&mut self) {
        // SAFETY: `self` proves AMX, and that the upper tiles are configured; the lower ones are if
        // they have rows.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                out("tmm0") _, out("tmm1") _,
                options(nostack, nomem, preserves_flags),
            );
            if self.lower > 0 {
                asm!(
                    "tilezero tmm2",
                    "tilezero tmm3",
                    out("tmm2") _, out("tmm3") _,
                    options(nostack, nomem, preserves_flags),
                );
            }
        }
    }

    /// Adds the products of so many runs of blocks, or of one block of each.
    ///
    /// The activations of the first run are 64 bytes for each row, one after the other, those of the
    /// next run `stride` bytes after them; the weights of a run are two tiles of 16 quads. Of single
    /// blocks, both begin at that of the first run. With each run, one of the pieces that are to be
    /// read later is asked for.
    #[inline(always)]
    pub(in crate::kernel) fn add_products(
        &mut self,
        activations: &[[i8; BLOCK]],
        stride: usize,
        weights: &[u8],
        runs: usize,
        ahead: &mut Chunks<'_, u8>,
    ) {
        let Some(last) = runs.checked_sub(1) else {
            return;
        };
        // What is read from the first run to the end of the last.
        let bytes = last * stride + (self.rows - 1) * LINE + self.blocks * BLOCK;
        assert!(bytes <= size_of_val(activations), "activations of all runs");
        let bytes = last * RUN_BYTES + RUN_BYTES / 2 + self.blocks * SIDE * BLOCK;
        assert!(bytes <= weights.len(), "weights of all runs");
        let mut activations = activations.as_ptr().cast::<i8>();
        let mut weights = weights.as_ptr();
        for _ in 0..runs {
            ask_for(ahead.next().unwrap_or_default());
            // SAFETY: `self` proves AMX and that these tiles are configured, the lower ones if they
            // have rows. Of each run, rows of `blocks · 32` bytes that are 64 apart are read from the
            // activations, and `blocks · 8` rows of 64 bytes from the weights and again 1,024 bytes
            // after them: all within the slices, as was just seen.
            unsafe {
                asm!(
                    "tileloadd tmm6, [{w} + {line}]",
                    "tileloadd tmm4, [{x} + {line}]",
                    "tdpbsud tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{w} + {line} + 1024]",
                    "tdpbsud tmm1, tmm4, tmm7",
                    w = in(reg) weights,
                    x = in(reg) activations,
                    line = in(reg) LINE,
                    out("tmm0") _, out("tmm1") _,
                    out("tmm4") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly, preserves_flags),
                );
                if self.lower > 0 {
                    asm!(
                        "tileloadd tmm5, [{x} + {line} + 1024]",
                        "tdpbsud tmm2, tmm5, tmm6",
                        "tdpbsud tmm3, tmm5, tmm7",
                        x = in(reg) activations,
                        line = in(reg) LINE,
                        out("tmm2") _, out("tmm3") _, out("tmm5") _,
                        options(nostack, readonly, preserves_flags),
                    );
                }
            }
            activations = activations.wrapping_add(stride);
            weights = weights.wrapping_add(RUN_BYTES);
        }
    }

    /// Goes on from the sums of the rows there are, `[row][column]`.
    pub(in crate::kernel) fn load(&mut self, sums: &[i32]) {
        assert!(sums.len() >= self.rows * COLUMNS, "sums of all rows");
        // SAFETY: as in `store`; the same is read.
        unsafe {
            asm!(
                "tileloadd tmm0, [{sums} + {stride}]",
                "tileloadd tmm1, [{sums} + {stride} + 64]",
                sums = in(reg) sums.as_ptr(),
                stride = in(reg) ROW_OF_SUMS,
                out("tmm0") _, out("tmm1") _,
                options(nostack, preserves_flags, readonly),
            );
            if self.lower > 0 {
                asm!(
                    "tileloadd tmm2, [{sums} + {stride} + 2048]",
                    "tileloadd tmm3, [{sums} + {stride} + 2112]",
                    sums = in(reg) sums.as_ptr(),
                    stride = in(reg) ROW_OF_SUMS,
                    out("tmm2") _, out("tmm3") _,
                    options(nostack, preserves_flags, readonly),
                );
            }
        }
    }

    /// Writes the sums of the rows there are, `[row][column]`.
    pub(in crate::kernel) fn store(&self, sums: &mut [i32]) {
        const { assert!(SIDE * ROW_OF_SUMS == 2048 && ROW_OF_SUMS == 128) };
        assert!(sums.len() >= self.rows * COLUMNS, "sums of all rows");
        let sums = sums.as_mut_ptr();
        // SAFETY: `self` proves AMX and that the tiles are configured, the lower ones if they have
        // rows. The upper ones write their rows of 64 bytes, 128 apart, from the beginning and from
        // byte 64 on; the lower ones theirs after 16 such rows, which the upper ones then have: all
        // within the rows of 128 bytes that the slice has.
        unsafe {
            asm!(
                "tilestored [{sums} + {stride}], tmm0",
                "tilestored [{sums} + {stride} + 64], tmm1",
                sums = in(reg) sums,
                stride = in(reg) ROW_OF_SUMS,
                options(nostack, preserves_flags),
            );
            if self.lower > 0 {
                asm!(
                    "tilestored [{sums} + {stride} + 2048], tmm2",
                    "tilestored [{sums} + {stride} + 2112], tmm3",
                    sums = in(reg) sums,
                    stride = in(reg) ROW_OF_SUMS,
                    options(nostack, preserves_flags),
                );
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        // SAFETY: `self` proves AMX.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem, preserves_flags),
            );
        }
        IN_USE.set(false);
    }
}
