//! From an instruction set to the kernel that serves codes of a width.

use super::arch::{self, Kernel};
use crate::{error::Result, simd::Isa};

/// Something to do with a kernel, whichever it is.
pub(super) trait Visit {
    type Output;

    fn visit<K: Kernel>(self, kernel: K) -> Result<Self::Output>;
}

/// Calls `visitor` with the kernel of an instruction set for weights of `bits` bits.
///
/// # Errors
/// [`Error::MissingIsa`](crate::Error::MissingIsa) if the machine lacks it; those of the visitor.
pub(super) fn with_kernel<V: Visit>(isa: Isa, bits: u32, visitor: V) -> Result<V::Output> {
    match isa.here()? {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => {
            let Some(avx2) = crate::simd::x86::Avx2::detect() else {
                return Err(isa.missing());
            };
            if bits == 8 {
                visitor.visit(arch::avx2::Words(avx2))
            } else {
                visitor.visit(arch::avx2::Bytes(avx2))
            }
        }
        _ => visitor.visit(arch::portable::Portable),
    }
}
