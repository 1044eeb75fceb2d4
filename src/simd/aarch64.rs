//! Proofs of aarch64 instruction sets.
//!
//! Loops are functions of their own wherever they are run: NEON being part of every target, nothing
//! else would keep the tiles of a kernel from being compiled into each of its drivers.
#![allow(
    unsafe_code,
    reason = "entering code compiled for an instruction set is unsafe; a proof makes it sound"
)]

use std::arch::is_aarch64_feature_detected;

use super::Loops;

/// Proof of NEON on a little-endian machine, where the bytes of a lane are in the order of memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neon(());

impl Neon {
    pub(crate) fn detect() -> Option<Self> {
        let here = cfg!(target_endian = "little") && is_aarch64_feature_detected!("neon");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "neon")]
        #[inline(never)]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has NEON.
        unsafe { enter(loops) }
    }
}

/// Proof of dot products of signed bytes, and of what [`Neon`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonDotprod(());

impl NeonDotprod {
    pub(crate) fn detect() -> Option<Self> {
        let here = Neon::detect().is_some() && is_aarch64_feature_detected!("dotprod");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "neon,dotprod")]
        #[inline(never)]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has both of them.
        unsafe { enter(loops) }
    }
}

/// Proof of dot products of unsigned by signed bytes, and of what [`Neon`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NeonI8mm(());

impl NeonI8mm {
    pub(crate) fn detect() -> Option<Self> {
        let here = Neon::detect().is_some() && is_aarch64_feature_detected!("i8mm");
        here.then_some(Self(()))
    }

    /// Runs loops compiled for these instructions.
    pub(crate) fn run<L: Loops>(self, loops: L) -> L::Output {
        #[target_feature(enable = "neon,i8mm")]
        #[inline(never)]
        fn enter<L: Loops>(loops: L) -> L::Output {
            loops.run()
        }
        // SAFETY: `self` proves that the machine has both of them.
        unsafe { enter(loops) }
    }
}
