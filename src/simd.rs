//! Instruction sets: which ones this machine has, which one is used, and code compiled for it.
//!
//! A value of `x86::Avx2` and its kin proves that the machine has the instructions; the only way to
//! one is `detect`.

#[cfg(target_arch = "aarch64")]
pub(crate) mod aarch64;
mod lanes;
mod memory;
#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
pub(crate) mod wasm32;
#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

pub(crate) use lanes::{extremes, reduce, widen};
pub(crate) use memory::{Ahead, NOTHING, OnLine, Streaming, ask_for, prefetch};

use std::{fmt, str::FromStr, sync::OnceLock};

use crate::error::{Error, Result};

/// The environment variable that forces an instruction set.
const VARIABLE: &str = "LOWBIT_ISA";

/// An instruction set that the kernels of this crate are written for.
///
/// Results do not depend on it, but for float sums: where one instruction set has a fused
/// multiply-add and another has not, they differ by rounding.
///
/// The environment variable `LOWBIT_ISA` forces one for the whole process by the name it is
/// displayed with (`portable`, `avx512vnni`, `neondotprod` …); a packed layer takes one as an
/// argument too.
///
/// ```
/// use lowbit::Isa;
/// assert!(Isa::available().contains(&Isa::Portable));
/// println!("kernels run on {}", Isa::selected()?);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Isa {
    /// Plain Rust, on every machine.
    Portable,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// AVX2, and dot products of bytes in vectors of 256 bits.
    AvxVnni,
    /// x86-64 with AVX-512 F, BW, DQ and VL.
    Avx512,
    /// AVX-512, and dot products of bytes.
    Avx512Vnni,
    /// The same, and products of matrices of bytes (AMX), on Linux.
    AmxInt8,
    /// aarch64 with NEON, on a little-endian machine.
    Neon,
    /// NEON, and dot products of signed bytes.
    NeonDotprod,
    /// NEON, and dot products of unsigned by signed bytes.
    NeonI8mm,
    /// WebAssembly with vectors of 128 bits, where the crate is compiled with that target feature.
    WasmSimd128,
}

impl Isa {
    const ALL: [Self; 10] = [
        Self::Portable,
        Self::Avx2,
        Self::AvxVnni,
        Self::Avx512,
        Self::Avx512Vnni,
        Self::AmxInt8,
        Self::Neon,
        Self::NeonDotprod,
        Self::NeonI8mm,
        Self::WasmSimd128,
    ];

    /// The instruction sets of this machine, slowest first.
    #[must_use]
    pub fn available() -> &'static [Self] {
        static AVAILABLE: OnceLock<Vec<Isa>> = OnceLock::new();
        AVAILABLE.get_or_init(|| Self::ALL.into_iter().filter(|isa| isa.is_here()).collect())
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        Self::available().contains(&self)
    }

    /// The one that is used where none is asked for: that of `LOWBIT_ISA`, else the fastest.
    ///
    /// # Errors
    /// [`Error::MissingIsa`] if `LOWBIT_ISA` names one that is not here, or none at all.
    pub fn selected() -> Result<Self> {
        match Self::forced() {
            None => Ok(Self::fastest()),
            Some(name) => name.parse::<Self>()?.here(),
        }
    }

    /// The name that `LOWBIT_ISA` gives.
    fn forced() -> Option<&'static str> {
        static FORCED: OnceLock<Option<String>> = OnceLock::new();
        let forced = FORCED.get_or_init(|| std::env::var(VARIABLE).ok());
        forced.as_deref().filter(|name| !name.is_empty())
    }

    /// This instruction set, if the machine has it.
    ///
    /// # Errors
    /// [`Error::MissingIsa`] naming those that are here.
    pub(crate) fn here(self) -> Result<Self> {
        if self.is_available() {
            Ok(self)
        } else {
            Err(self.missing())
        }
    }

    /// That the machine lacks it.
    pub(crate) fn missing(self) -> Error {
        missing(self.name())
    }

    fn fastest() -> Self {
        Self::available().last().copied().unwrap_or(Self::Portable)
    }

    fn is_here(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => x86::Avx2::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::AvxVnni => x86::AvxVnni::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => x86::Avx512::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512Vnni => x86::Avx512Vnni::detect().is_some(),
            #[cfg(target_arch = "x86_64")]
            Self::AmxInt8 => x86::AmxInt8::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => aarch64::Neon::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonDotprod => aarch64::NeonDotprod::detect().is_some(),
            #[cfg(target_arch = "aarch64")]
            Self::NeonI8mm => aarch64::NeonI8mm::detect().is_some(),
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            Self::WasmSimd128 => wasm32::WasmSimd128::detect().is_some(),
            // Those of other architectures.
            _ => false,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::AvxVnni => "avxvnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::AmxInt8 => "amxint8",
            Self::Neon => "neon",
            Self::NeonDotprod => "neondotprod",
            Self::NeonI8mm => "neoni8mm",
            Self::WasmSimd128 => "wasmsimd128",
        }
    }
}

fn missing(got: &str) -> Error {
    let names: Vec<&str> = Isa::available().iter().map(|isa| isa.name()).collect();
    Error::MissingIsa {
        available: names.join(", "),
        got: got.to_owned(),
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = Error;

    /// The instruction set of a name as `LOWBIT_ISA` takes it, whether it is here or not.
    fn from_str(name: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|isa| isa.name() == name)
            .ok_or_else(|| missing(name))
    }
}

/// Work in plain loops, to be compiled for several instruction sets.
///
/// A trait, not a closure: `run` and what it calls must be inlined to be compiled so, which only
/// `#[inline(always)]` makes certain, and closures cannot have it.
pub(crate) trait Loops {
    /// What the work gives.
    type Output;

    /// Does the work; to be marked `#[inline(always)]`.
    fn run(self) -> Self::Output;
}

/// Runs loops compiled for the widest instruction set in use. The results have the same bits on
/// each.
#[inline]
pub(crate) fn wide<L: Loops>(loops: L) -> L::Output {
    #[cfg(target_arch = "x86_64")]
    match x86::Widest::in_use() {
        x86::Widest::Avx512(avx512) => return avx512.run(loops),
        x86::Widest::Avx2(avx2) => return avx2.run(loops),
        x86::Widest::Baseline => {}
    }
    loops.run()
}

/// What loops give compiled for each instruction set that this machine has, the baseline first.
#[cfg(test)]
pub(crate) fn on_each<L: Loops>(loops: impl Fn() -> L) -> Vec<L::Output> {
    #[cfg_attr(
        not(target_arch = "x86_64"),
        expect(unused_mut, reason = "the baseline is all there is")
    )]
    let mut outputs = vec![loops().run()];
    #[cfg(target_arch = "x86_64")]
    {
        outputs.extend(x86::Avx2::detect().map(|avx2| avx2.run(loops())));
        outputs.extend(x86::Avx512::detect().map(|avx512| avx512.run(loops())));
    }
    outputs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for isa in Isa::ALL {
            assert_eq!(isa.to_string().parse::<Isa>().unwrap(), isa);
        }
        let error = "mmx".parse::<Isa>().unwrap_err().to_string();
        assert!(
            error.contains("portable") && error.contains("mmx"),
            "{error}"
        );
    }

    #[test]
    fn those_of_another_machine_are_missing_by_their_name() {
        let missing = Isa::ALL.into_iter().filter(|isa| !isa.is_available());
        let errors: Vec<Error> = missing.map(|isa| isa.here().unwrap_err()).collect();
        assert!(!errors.is_empty(), "no machine is of three architectures");
        for error in errors {
            let Error::MissingIsa { available, got } = error else {
                panic!("{error}");
            };
            assert!(available.starts_with("portable") && !available.contains(&got));
        }
    }

    #[test]
    fn the_fastest_one_is_the_last_that_is_here() {
        let fastest = Isa::ALL.into_iter().rfind(|isa| isa.is_available());
        assert_eq!(Some(Isa::fastest()), fastest);
        assert!(Isa::Portable.is_available());
    }

    /// Whether Linux, where it runs, names a feature of the processor.
    #[cfg(target_arch = "x86_64")]
    fn linux_has(feature: &str) -> bool {
        let processors = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        processors.split_whitespace().any(|word| word == feature)
    }

    /// An instruction set that is not seen would cost speed and no test: all of them go through
    /// those that are available.
    #[cfg(target_arch = "x86_64")]
    #[test]
    fn what_the_processor_has_is_available() {
        let avx2 = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        let avx512 = avx2
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        for (isa, here) in [
            (Isa::Avx2, avx2),
            (Isa::AvxVnni, avx2 && is_x86_feature_detected!("avxvnni")),
            (Isa::Avx512, avx512),
            (
                Isa::Avx512Vnni,
                avx512 && is_x86_feature_detected!("avx512vnni"),
            ),
            (Isa::AmxInt8, linux_has("amx_int8")),
        ] {
            assert_eq!(isa.is_available(), here, "{isa}");
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn plain_loops_are_compiled_for_what_is_selected() {
        use x86::Widest;
        let expected = match Isa::selected().unwrap() {
            Isa::Portable => "Baseline",
            Isa::Avx512 | Isa::Avx512Vnni | Isa::AmxInt8 => "Avx512",
            _ => "Avx2",
        };
        let widest = match Widest::in_use() {
            Widest::Baseline => "Baseline",
            Widest::Avx2(_) => "Avx2",
            Widest::Avx512(_) => "Avx512",
        };
        assert_eq!(widest, expected);
    }

    #[test]
    fn what_the_environment_demands_is_what_is_selected() {
        match std::env::var(VARIABLE) {
            Ok(name) if !name.is_empty() => {
                assert_eq!(Isa::selected().unwrap().to_string(), name);
            }
            _ => assert_eq!(Isa::selected().unwrap(), Isa::fastest()),
        }
    }
}
