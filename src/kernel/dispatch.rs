//! From an instruction set to the kernel that serves codes of a width.

use super::arch::{Kernel, portable::Portable};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use super::arch::{bytes::ByteKernel, products::Pairs, words::WordKernel};
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use super::arch::{
    bytes::ByteKernel,
    products::{Dots, Pairs},
};
#[cfg(target_arch = "x86_64")]
use super::arch::{matrices::MatrixKernel, words::WordKernel};
#[cfg(target_arch = "aarch64")]
use crate::simd::aarch64::{Neon, NeonDotprod, NeonI8mm};
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
use crate::simd::wasm32::WasmSimd128;
#[cfg(target_arch = "x86_64")]
use crate::simd::x86::{AmxInt8, Avx2, Avx512, Avx512Vnni, AvxVnni};
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
    // Each instruction set is detected anew, which gives the proof that its kernels hold.
    let missing = || isa.missing();
    let _ = bits;
    match isa.here()? {
        Isa::Portable => visitor.visit(Portable),
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => match (Avx2::detect().ok_or_else(missing)?, bits) {
            (vector, 8) => visitor.visit(WordKernel::<_, 2>(vector)),
            (vector, _) => visitor.visit(ByteKernel::<_, _, 2>::new(vector, Pairs)),
        },
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni => {
            let vector = AvxVnni::detect().ok_or_else(missing)?;
            visitor.visit(ByteKernel::<_, _, 2>::new(vector, Dots))
        }
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => match (Avx512::detect().ok_or_else(missing)?, bits) {
            (vector, 8) => visitor.visit(WordKernel::<_, 2>(vector)),
            (vector, _) => visitor.visit(ByteKernel::<_, _, 2>::new(vector, Pairs)),
        },
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => {
            let vector = Avx512Vnni::detect().ok_or_else(missing)?;
            visitor.visit(ByteKernel::<_, _, 2>::new(vector, Dots))
        }
        #[cfg(target_arch = "x86_64")]
        Isa::AmxInt8 => visitor.visit(MatrixKernel::new(AmxInt8::detect().ok_or_else(missing)?)),
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => match (Neon::detect().ok_or_else(missing)?, bits) {
            (vector, 8) => visitor.visit(ByteKernel::<_, _, 2>::new(vector, Dots)),
            (vector, _) => visitor.visit(ByteKernel::<_, _, 2>::new(vector, Pairs)),
        },
        #[cfg(target_arch = "aarch64")]
        Isa::NeonDotprod => {
            let vector = NeonDotprod::detect().ok_or_else(missing)?;
            visitor.visit(ByteKernel::<_, _, 4>::new(vector, Dots))
        }
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm => {
            let vector = NeonI8mm::detect().ok_or_else(missing)?;
            visitor.visit(ByteKernel::<_, _, 4>::new(vector, Dots))
        }
        #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
        Isa::WasmSimd128 => match (WasmSimd128::detect().ok_or_else(missing)?, bits) {
            (vector, 8) => visitor.visit(WordKernel::<_, 2>(vector)),
            (vector, _) => visitor.visit(ByteKernel::<_, _, 2>::new(vector, Pairs)),
        },
        // Those of other architectures, none of which is here.
        _ => Err(missing()),
    }
}
