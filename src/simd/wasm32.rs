//! The proof of WebAssembly's vectors. A module that has them in it runs only where they are, so that
//! having been compiled for them is the proof.

use super::Loops;

/// Proof of the vectors of 128 bits that this module was compiled for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct WasmSimd128(());

impl WasmSimd128 {
    pub(crate) fn detect() -> Option<Self> {
        Some(Self(()))
    }

    /// Runs loops, which are compiled for these instructions as all is: in a function of their own,
    /// so that the tiles of a kernel are not compiled into each of its drivers.
    #[inline(never)]
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        loops.run()
    }
}
