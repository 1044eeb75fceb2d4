//! Proof of AMX: tiles of bytes, 16 rows of 64, which the system must let a process use.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use super::Avx512Vnni;

/// Proof of AMX-TILE and AMX-INT8, that this process may use them, and of what [`Avx512Vnni`] proves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct AmxInt8(Avx512Vnni);

impl AmxInt8 {
    pub(crate) fn detect() -> Option<Self> {
        let vnni = Avx512Vnni::detect()?;
        (processor_has_tiles() && system_saves_tiles() && system_allows_tiles())
            .then_some(Self(vnni))
    }

    pub(crate) fn vnni(self) -> Avx512Vnni {
        self.0
    }
}

/// AMX-TILE and AMX-INT8, in leaf 7.
fn processor_has_tiles() -> bool {
    const TILE_AND_INT8: u32 = 1 << 24 | 1 << 25;
    __cpuid(0).eax >= 7 && __cpuid_count(7, 0).edx & TILE_AND_INT8 == TILE_AND_INT8
}

/// Whether the system saves what tiles hold, and how they are configured, when it switches threads.
fn system_saves_tiles() -> bool {
    const OSXSAVE: u32 = 1 << 27;
    const CONFIGURATION_AND_DATA: u64 = 1 << 17 | 1 << 18;

    #[target_feature(enable = "xsave")]
    fn enabled() -> u64 {
        // SAFETY: with the feature there is such a register.
        unsafe { _xgetbv(0) }
    }

    let has_register = __cpuid(1).ecx & OSXSAVE != 0;
    // SAFETY: the processor has XSAVE, and the system has turned it on.
    has_register && unsafe { enabled() } & CONFIGURATION_AND_DATA == CONFIGURATION_AND_DATA
}

/// Asks Linux for what a process may use only after it asked: 8 KiB more of state a thread.
#[cfg(all(target_os = "linux", not(miri)))]
fn system_allows_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: the system call reads and writes no memory of the process; it changes only what the
    // process may use, for all of its threads. It overwrites the two registers that are named.
    unsafe {
        std::arch::asm!(
            "syscall",
            inout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

/// Other systems have ways of their own.
#[cfg(not(all(target_os = "linux", not(miri))))]
fn system_allows_tiles() -> bool {
    false
}
