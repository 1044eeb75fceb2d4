//! What the machine can do: the instructions that kernels are made of, on registers alone, and memory
//! that is only read.

use std::hint::black_box;

use lowbit::Isa;

use crate::clock::{Entry, Role, Work};

/// Instructions whose rate limits a kernel.
#[derive(Clone, Copy)]
pub(crate) enum Instructions {
    /// Pairs of 16-bit products (`vpmaddwd`), four products of bytes (`vpdpbusd`), or tiles of bytes
    /// (`tdpbsud`) where there are.
    Bytes,
    /// 4-bit by 8-bit: eight `vpmaddubsw` before widening, or `vpdpbusd`.
    Nibbles,
    /// Float multiply-add.
    Floats,
}

/// The limit of an instruction set, the same in all columns; `None` where it is not known.
pub(crate) fn of(instructions: Instructions, isa: Isa, columns: usize) -> Option<Entry> {
    let (name, _) = loops(instructions, isa)?;
    Some(Entry {
        name: format!("limit {name} ({isa})"),
        role: Role::Limit,
        cells: (0..columns)
            .map(|_| loops(instructions, isa).map(|(_, work)| work))
            .collect(),
    })
}

/// Reading `bytes` from memory, out of a buffer that no cache holds; counted as `work`.
pub(crate) fn read(bytes: usize, work: f64) -> Work {
    let buffer = vec![1_u64; (1 << 28) / 8];
    let step = bytes / 8;
    let mut at = 0;
    Box::new(move || {
        if at + step > buffer.len() {
            at = 0;
        }
        black_box(sum(&buffer[at..at + step]));
        at += step;
        work
    })
}

/// The sum, in as many parts as a vectorized loop needs.
fn sum(values: &[u64]) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: AVX-512 was just detected.
            return unsafe { sum_avx512(values) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: AVX2 was just detected.
            return unsafe { sum_avx2(values) };
        }
    }
    sum_in_parts(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn sum_avx512(values: &[u64]) -> u64 {
    sum_in_parts(values)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn sum_avx2(values: &[u64]) -> u64 {
    sum_in_parts(values)
}

#[inline(always)]
fn sum_in_parts(values: &[u64]) -> u64 {
    let mut parts = [0_u64; 64];
    for chunk in values.chunks_exact(64) {
        for (part, &value) in parts.iter_mut().zip(chunk) {
            *part = part.wrapping_add(value);
        }
    }
    parts.iter().fold(0, |a, &b| a.wrapping_add(b))
}

#[cfg(not(target_arch = "x86_64"))]
fn loops(_: Instructions, _: Isa) -> Option<(&'static str, Work)> {
    None
}

#[cfg(target_arch = "x86_64")]
use x86::loops;

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::{arch::x86_64::*, hint::black_box};

    use lowbit::Isa;

    use super::{Instructions, Work};

    /// Turns of a loop in a call.
    const TURNS: usize = 200_000;

    pub(super) fn loops(instructions: Instructions, isa: Isa) -> Option<(&'static str, Work)> {
        use Instructions::{Bytes, Floats, Nibbles};
        if !Isa::available().contains(&isa) {
            return None;
        }
        // SAFETY, in all of these: the instruction set is available.
        let loops: (&'static str, Work) = match (instructions, isa) {
            (Bytes, Isa::Avx2) => ("vpmaddwd", Box::new(|| unsafe { words_256() })),
            (Bytes, Isa::Avx512) => ("vpmaddwd", Box::new(|| unsafe { words_512() })),
            (Bytes | Nibbles, Isa::AvxVnni) => ("vpdpbusd", Box::new(|| unsafe { dot_256() })),
            (Bytes | Nibbles, Isa::Avx512Vnni) => ("vpdpbusd", Box::new(|| unsafe { dot_512() })),
            (Bytes | Nibbles, Isa::AmxInt8) => ("tdpbsud", Box::new(|| unsafe { tiles() })),
            (Nibbles, Isa::Avx2) => ("8 vpmaddubsw", Box::new(|| unsafe { pairs_256() })),
            (Nibbles, Isa::Avx512) => ("8 vpmaddubsw", Box::new(|| unsafe { pairs_512() })),
            (Floats, Isa::Avx2 | Isa::AvxVnni) => ("FMA", Box::new(|| unsafe { floats_256() })),
            (Floats, Isa::Avx512 | Isa::Avx512Vnni | Isa::AmxInt8) => {
                ("FMA", Box::new(|| unsafe { floats_512() }))
            }
            _ => return None,
        };
        Some(loops)
    }

    /// A loop of independent chains; `products` are those of one step of one chain.
    macro_rules! limit {
        ($name:ident, $features:literal, $zero:expr, $chains:literal, $products:expr,
         |$sum:ident, $w:ident, $x:ident| $step:expr, $operand:expr) => {
            #[target_feature(enable = $features)]
            fn $name() -> f64 {
                let mut sums = [$zero; $chains];
                let ($w, $x) = (black_box($operand), black_box($operand));
                for _ in 0..TURNS {
                    for $sum in &mut sums {
                        $step;
                        // Not to be merged with the next turn's.
                        unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) * $sum) };
                    }
                }
                black_box(sums);
                2.0 * ($products * $chains * TURNS) as f64
            }
        };
        (ymm $name:ident, $features:literal, $zero:expr, $chains:literal, $products:expr,
         |$sum:ident, $w:ident, $x:ident| $step:expr, $operand:expr) => {
            #[target_feature(enable = $features)]
            fn $name() -> f64 {
                let mut sums = [$zero; $chains];
                let ($w, $x) = (black_box($operand), black_box($operand));
                for _ in 0..TURNS {
                    for $sum in &mut sums {
                        $step;
                        unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) * $sum) };
                    }
                }
                black_box(sums);
                2.0 * ($products * $chains * TURNS) as f64
            }
        };
    }

    limit!(ymm words_256, "avx2", _mm256_setzero_si256(), 12, 16,
        |sum, w, x| *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(opaque_256(w), x)),
        _mm256_set1_epi8(1));
    limit!(
        words_512,
        "avx512f,avx512bw",
        _mm512_setzero_si512(),
        24,
        32,
        |sum, w, x| *sum = _mm512_add_epi32(*sum, _mm512_madd_epi16(opaque_512(w), x)),
        _mm512_set1_epi8(1)
    );
    limit!(ymm dot_256, "avx2,avxvnni", _mm256_setzero_si256(), 12, 32,
        |sum, w, x| *sum = _mm256_dpbusd_avx_epi32(*sum, w, x), _mm256_set1_epi8(1));
    limit!(
        dot_512,
        "avx512f,avx512vnni",
        _mm512_setzero_si512(),
        24,
        64,
        |sum, w, x| *sum = _mm512_dpbusd_epi32(*sum, w, x),
        _mm512_set1_epi8(1)
    );
    limit!(ymm floats_256, "avx2,fma", _mm256_setzero_ps(), 12, 8,
        |sum, w, x| *sum = _mm256_fmadd_ps(w, x, *sum), _mm256_set1_ps(1.0));
    limit!(
        floats_512,
        "avx512f",
        _mm512_setzero_ps(),
        24,
        16,
        |sum, w, x| *sum = _mm512_fmadd_ps(w, x, *sum),
        _mm512_set1_ps(1.0)
    );

    /// Four products of tiles at a time, on tiles alone.
    ///
    /// # Safety
    /// AMX must be available, and allowed to the process.
    unsafe fn tiles() -> f64 {
        #[repr(align(64))]
        struct Configuration([u8; 64]);
        let mut configuration = Configuration([0; 64]);
        configuration.0[0] = 1;
        for tile in 0..8 {
            configuration.0[16 + 2 * tile] = 64;
            configuration.0[48 + tile] = 16;
        }
        // SAFETY: the tiles are configured as the largest there are, and released in the end.
        unsafe {
            std::arch::asm!(
                "ldtilecfg [{configuration}]",
                "2:",
                "tdpbsud tmm0, tmm4, tmm6",
                "tdpbsud tmm1, tmm4, tmm7",
                "tdpbsud tmm2, tmm5, tmm6",
                "tdpbsud tmm3, tmm5, tmm7",
                "dec {turns}",
                "jnz 2b",
                "tilerelease",
                configuration = in(reg) &raw const configuration,
                turns = inout(reg) TURNS => _,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
            );
        }
        2.0 * (4 * 16 * 16 * 64 * TURNS) as f64
    }

    /// A value that the compiler knows nothing of, so that a product is not computed once for all.
    #[target_feature(enable = "avx2")]
    #[inline]
    fn opaque_256(mut w: __m256i) -> __m256i {
        // SAFETY: an empty instruction.
        unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) w) };
        w
    }

    #[target_feature(enable = "avx512f")]
    #[inline]
    fn opaque_512(mut w: __m512i) -> __m512i {
        // SAFETY: an empty instruction.
        unsafe { std::arch::asm!("/* {0} */", inout(zmm_reg) w) };
        w
    }

    /// Eight sums of pairs in 16 bits, then one widening, for each of the chains.
    macro_rules! nibbles {
        ($name:ident, $features:literal, $chains:literal, $bytes:literal, $opaque:ident,
         $zero:ident, $add16:ident, $maddubs:ident, $add32:ident, $madd:ident, $set8:ident,
         $set16:ident) => {
            #[target_feature(enable = $features)]
            fn $name() -> f64 {
                let mut sums = [$zero(); $chains];
                let (w, x) = (black_box($set8(1)), black_box($set8(1)));
                let ones = black_box($set16(1));
                for _ in 0..TURNS / 8 {
                    let mut pairs = [$zero(); $chains];
                    for _ in 0..8 {
                        for pairs in &mut pairs {
                            *pairs = $add16(*pairs, $maddubs($opaque(w), x));
                        }
                    }
                    for (sum, pairs) in sums.iter_mut().zip(pairs) {
                        *sum = $add32(*sum, $madd(pairs, ones));
                    }
                    black_box(&mut sums);
                }
                2.0 * ($bytes * $chains * 8 * (TURNS / 8)) as f64
            }
        };
    }

    nibbles!(
        pairs_256,
        "avx2",
        8,
        32,
        opaque_256,
        _mm256_setzero_si256,
        _mm256_add_epi16,
        _mm256_maddubs_epi16,
        _mm256_add_epi32,
        _mm256_madd_epi16,
        _mm256_set1_epi8,
        _mm256_set1_epi16
    );
    nibbles!(
        pairs_512,
        "avx512f,avx512bw",
        16,
        64,
        opaque_512,
        _mm512_setzero_si512,
        _mm512_add_epi16,
        _mm512_maddubs_epi16,
        _mm512_add_epi32,
        _mm512_madd_epi16,
        _mm512_set1_epi8,
        _mm512_set1_epi16
    );
}
