//! From an instruction set to the kernel that serves codes of a width.

use super::arch::{Kernel, portable::Portable};
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
    let isa = isa.here()?;
    #[cfg(target_arch = "x86_64")]
    {
        use super::arch::{dot::DotKernel, pairs::PairKernel, words::WordKernel};
        use crate::simd::x86::{Avx2, Avx512, Avx512Vnni, AvxVnni};
        match isa {
            Isa::Avx512Vnni => {
                let vector = Avx512Vnni::detect().ok_or_else(|| isa.missing())?;
                return visitor.visit(DotKernel::<_, 2>(vector));
            }
            Isa::Avx512 => {
                let vector = Avx512::detect().ok_or_else(|| isa.missing())?;
                return if bits == 8 {
                    visitor.visit(WordKernel::<_, 2>(vector))
                } else {
                    visitor.visit(PairKernel::<_, 2>(vector))
                };
            }
            Isa::AvxVnni => {
                let vector = AvxVnni::detect().ok_or_else(|| isa.missing())?;
                return visitor.visit(DotKernel::<_, 2>(vector));
            }
            Isa::Avx2 => {
                let vector = Avx2::detect().ok_or_else(|| isa.missing())?;
                return if bits == 8 {
                    visitor.visit(WordKernel::<_, 2>(vector))
                } else {
                    visitor.visit(PairKernel::<_, 2>(vector))
                };
            }
            Isa::Portable => {}
        }
    }
    let _ = bits;
    visitor.visit(Portable)
}
