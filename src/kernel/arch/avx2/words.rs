//! Weights of 8 bits: both operands widened to 16 bits, `vpmaddwd` sums their products exactly.
//!
//! A vector of 16 words holds the quads of four columns; every column has two sums, of the even and
//! of the odd pairs of its quads, added at the end.

use std::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_castsi256_si128, _mm256_cvtepu8_epi16,
    _mm256_extracti128_si256, _mm256_hadd_epi32, _mm256_loadu_si256, _mm256_madd_epi16,
    _mm256_permute4x64_epi64, _mm256_set1_epi64x, _mm256_setzero_si256,
};

use super::{LANES, load, store_sums};
use crate::{
    kernel::{
        arch::{Kernel, Rows},
        layout::{BLOCK, QUADS},
    },
    simd::{Loops, x86::Avx2},
};

/// The kernel of weights of 8 bits.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Words(pub(in crate::kernel) Avx2);

/// Vectors of columns in a panel; their sums are computed one after the other.
const VECTORS: usize = 2;
/// Vectors of words that the quads of a vector of columns take.
const HALVES: usize = 2;

impl Kernel for Words {
    const NAME: &'static str = "avx2-i16u8i32";
    const LANES: usize = LANES;
    const COLUMNS: usize = VECTORS * LANES;
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    const FUSED: bool = true;
    type Code = i16;
    type Weight = i16;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.0.run(loops)
    }

    #[inline(always)]
    fn sums(self, _bits: u32, blocks: &[u8], rows: Rows<'_, i16>, sums: &mut [i32]) {
        let (quads, _) = blocks.as_chunks();
        let (vectors, _) = quads.as_chunks();
        let (blocks, _) = vectors.as_chunks();
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe { sums_of_packed(blocks, rows, sums) }
    }

    #[inline(always)]
    fn sums_of_unpacked(self, _bits: u32, unpacked: &[i16], rows: Rows<'_, i16>, sums: &mut [i32]) {
        let (halves, _) = unpacked.as_chunks();
        let (quads, _) = halves.as_chunks();
        let (vectors, _) = quads.as_chunks();
        let (blocks, _) = vectors.as_chunks();
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe { sums_of_words(blocks, rows, sums) }
    }
}

/// A quad of packed codes, a byte each.
type Packed = [u8; 32];
/// A quad of unpacked codes, in two vectors of words.
type Unpacked = [[i16; 16]; HALVES];

/// Half of the codes of a quad, those of four columns, widened to words.
#[inline]
#[target_feature(enable = "avx2")]
fn widen(quad: &Packed, half: usize) -> __m256i {
    let bytes = load(quad);
    _mm256_cvtepu8_epi16(if half == 0 {
        _mm256_castsi256_si128(bytes)
    } else {
        _mm256_extracti128_si256::<1>(bytes)
    })
}

#[inline]
#[target_feature(enable = "avx2")]
fn load_words(quad: &Unpacked, half: usize) -> __m256i {
    // SAFETY: the array has the 32 bytes that are read; no alignment is needed.
    unsafe { _mm256_loadu_si256(quad[half].as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_packed(blocks: &[[[Packed; QUADS]; VECTORS]], rows: Rows<'_, i16>, sums: &mut [i32]) {
    match rows.count {
        1 => tile::<_, 1>(blocks, rows, sums, |quad, half| widen(quad, half)),
        2 => tile::<_, 2>(blocks, rows, sums, |quad, half| widen(quad, half)),
        4 => tile::<_, 4>(blocks, rows, sums, |quad, half| widen(quad, half)),
        _ => tile::<_, 6>(blocks, rows, sums, |quad, half| widen(quad, half)),
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn sums_of_words(blocks: &[[[Unpacked; QUADS]; VECTORS]], rows: Rows<'_, i16>, sums: &mut [i32]) {
    match rows.count {
        1 => tile::<_, 1>(blocks, rows, sums, |quad, half| load_words(quad, half)),
        2 => tile::<_, 2>(blocks, rows, sums, |quad, half| load_words(quad, half)),
        4 => tile::<_, 4>(blocks, rows, sums, |quad, half| load_words(quad, half)),
        _ => tile::<_, 6>(blocks, rows, sums, |quad, half| load_words(quad, half)),
    }
}

/// Sums for `ROWS` rows; `words(quad, half)` gives the weights of half a quad.
#[inline]
#[target_feature(enable = "avx2")]
fn tile<Quad, const ROWS: usize>(
    blocks: &[[[Quad; QUADS]; VECTORS]],
    rows: Rows<'_, i16>,
    sums: &mut [i32],
    words: impl Fn(&Quad, usize) -> __m256i,
) {
    for vector in 0..VECTORS {
        let mut halves = [[_mm256_setzero_si256(); HALVES]; ROWS];
        for (index, block) in blocks.iter().enumerate() {
            let x: [_; ROWS] = std::array::from_fn(|row| &rows.blocks[row * rows.stride + index]);
            for (q, quad) in block[vector].iter().enumerate() {
                let w: [__m256i; HALVES] = std::array::from_fn(|half| words(quad, half));
                for (x, halves) in x.iter().zip(&mut halves) {
                    let four = broadcast(x, q);
                    for (half, w) in halves.iter_mut().zip(w) {
                        *half = _mm256_add_epi32(*half, _mm256_madd_epi16(w, four));
                    }
                }
            }
        }
        let (sums, _) = sums.as_chunks_mut::<LANES>();
        for (sums, [low, high]) in sums.chunks_exact_mut(VECTORS).zip(halves) {
            // Sums of neighbours: columns 0, 1, 4, 5, 2, 3, 6, 7, put in order.
            let mixed = _mm256_hadd_epi32(low, high);
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(mixed);
            store_sums(&mut sums[vector], ordered);
        }
    }
}

/// The four codes of a quad, in all four places of a vector.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(block: &[i16; BLOCK], quad: usize) -> __m256i {
    let (quads, _) = block.as_chunks::<4>();
    let [a, b, c, d] = quads[quad].map(|code| u64::from(code.cast_unsigned()));
    let four = a | b << 16 | c << 32 | d << 48;
    _mm256_set1_epi64x(four.cast_signed())
}
