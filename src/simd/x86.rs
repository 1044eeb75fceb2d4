//! Proofs of x86-64 instruction sets.
#![allow(
    unsafe_code,
    reason = "entering code compiled for an instruction set is unsafe; a proof makes it sound"
)]

/// Proof of AVX2, FMA and F16C.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Avx2(());

impl Avx2 {
    pub(crate) fn detect() -> Option<Self> {
        let here = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        here.then_some(Self(()))
    }

    /// Runs `work` compiled for these instructions, as far as it is inlined.
    #[inline]
    pub(crate) fn run<R>(self, work: impl FnOnce() -> R) -> R {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn enter<R>(work: impl FnOnce() -> R) -> R {
            work()
        }
        // SAFETY: `self` proves that the machine has AVX2, FMA and F16C.
        unsafe { enter(work) }
    }
}
