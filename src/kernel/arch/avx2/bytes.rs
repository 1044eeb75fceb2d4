//! Weights of up to 7 bits: `vpmaddubsw` of unsigned weights and signed activations.
//!
//! A pair of products is at most `2 · 128 · (2^b − 1)`, 32,512 at 7 bits, so that 16 bits hold it;
//! at 4 bits and below they hold the sum of a whole block of eight quads (8 · 3,840 = 30,720).

use std::arch::x86_64::{
    __m256i, _mm256_add_epi16, _mm256_add_epi32, _mm256_madd_epi16, _mm256_maddubs_epi16,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_setzero_si256,
};

use super::{LANES, load_sums, quad, store_sums};
use crate::{
    kernel::{
        arch::{Kernel, Rows, for_quads},
        layout::BLOCK,
    },
    simd::{Loops, x86::Avx2},
};

/// The kernel of weights of up to 7 bits.
#[derive(Debug, Clone, Copy)]
pub(in crate::kernel) struct Bytes(pub(in crate::kernel) Avx2);

/// Vectors of columns in a panel.
const VECTORS: usize = 2;
const COLUMNS: usize = VECTORS * LANES;

impl Kernel for Bytes {
    const NAME: &'static str = "avx2-i8u7i32";
    const LANES: usize = LANES;
    const COLUMNS: usize = COLUMNS;
    const TILES: &'static [usize] = &[6, 4, 2, 1];
    const FUSED: bool = true;
    type Code = i8;
    type Weight = u8;

    fn run<L: Loops>(self, loops: L) -> L::Output {
        self.0.run(loops)
    }

    #[inline(always)]
    fn sums(self, bits: u32, blocks: &[u8], rows: Rows<'_, i8>, sums: &mut [i32]) {
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe {
            match bits {
                1 => any_rows::<1, 4, 1>(blocks, rows, sums),
                2 => any_rows::<2, 4, 2>(blocks, rows, sums),
                3 => any_rows::<3, 4, 3>(blocks, rows, sums),
                4 => any_rows::<4, 4, 4>(blocks, rows, sums),
                5 => any_rows::<5, 5, 5>(blocks, rows, sums),
                6 => any_rows::<6, 6, 6>(blocks, rows, sums),
                _ => any_rows::<7, 7, 7>(blocks, rows, sums),
            }
        }
    }

    #[inline(always)]
    fn sums_of_unpacked(self, bits: u32, unpacked: &[u8], rows: Rows<'_, i8>, sums: &mut [i32]) {
        // SAFETY: `self` proves that the machine has AVX2.
        unsafe {
            match bits {
                1..=4 => any_rows::<8, 4, 8>(unpacked, rows, sums),
                5 => any_rows::<8, 5, 8>(unpacked, rows, sums),
                6 => any_rows::<8, 6, 8>(unpacked, rows, sums),
                _ => any_rows::<8, 7, 8>(unpacked, rows, sums),
            }
        }
    }
}

/// Quads whose sums of pairs 16 bits hold, for weights of a width.
const fn quads_in_16_bits(bits: u32) -> usize {
    match bits {
        0..=4 => 8,
        5 => 4,
        6 => 2,
        _ => 1,
    }
}

/// `VECTOR_COUNT` is `BITS`, as the length of an array: vectors of a block of one vector of columns.
#[inline]
#[target_feature(enable = "avx2")]
fn any_rows<const BITS: u32, const RANGE: u32, const VECTOR_COUNT: usize>(
    blocks: &[u8],
    rows: Rows<'_, i8>,
    sums: &mut [i32],
) {
    match rows.count {
        1 => tile::<BITS, RANGE, VECTOR_COUNT, 1>(blocks, rows, sums),
        2 => tile::<BITS, RANGE, VECTOR_COUNT, 2>(blocks, rows, sums),
        4 => tile::<BITS, RANGE, VECTOR_COUNT, 4>(blocks, rows, sums),
        _ => tile::<BITS, RANGE, VECTOR_COUNT, 6>(blocks, rows, sums),
    }
}

/// Sums for `ROWS` rows of weights packed in `BITS` bits that have `RANGE` bits.
#[target_feature(enable = "avx2")]
fn tile<const BITS: u32, const RANGE: u32, const VECTOR_COUNT: usize, const ROWS: usize>(
    blocks: &[u8],
    rows: Rows<'_, i8>,
    sums: &mut [i32],
) {
    let (sums, _) = sums.as_chunks_mut::<LANES>();
    let (sums, _) = sums.as_chunks_mut::<VECTORS>();
    let sums = &mut sums[..ROWS];
    sums.fill([[0; LANES]; VECTORS]);
    let (vectors, _) = blocks.as_chunks::<32>();
    let (vectors, _) = vectors.as_chunks::<VECTOR_COUNT>();
    let (blocks, _) = vectors.as_chunks::<VECTORS>();
    for (index, block) in blocks.iter().enumerate() {
        let x: [_; ROWS] = std::array::from_fn(|row| &rows.blocks[row * rows.stride + index]);
        let mut pairs = [[_mm256_setzero_si256(); VECTORS]; ROWS];
        for_quads!(QUAD => {
            let w: [__m256i; VECTORS] = std::array::from_fn(|v| quad::<BITS, QUAD>(&block[v]));
            for (x, pairs) in x.iter().zip(&mut pairs) {
                let four = broadcast(x, QUAD);
                for (pair, w) in pairs.iter_mut().zip(w) {
                    *pair = _mm256_add_epi16(*pair, _mm256_maddubs_epi16(w, four));
                }
            }
            if (QUAD + 1).is_multiple_of(quads_in_16_bits(RANGE)) {
                for (sums, pairs) in sums.iter_mut().zip(&mut pairs) {
                    for (sum, pair) in sums.iter_mut().zip(pairs) {
                        let wide = _mm256_madd_epi16(*pair, _mm256_set1_epi16(1));
                        *pair = _mm256_setzero_si256();
                        store_sums(sum, _mm256_add_epi32(load_sums(sum), wide));
                    }
                }
            }
        });
    }
}

/// The four codes of a quad in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn broadcast(block: &[i8; BLOCK], quad: usize) -> __m256i {
    let (quads, _) = block.as_chunks::<4>();
    _mm256_set1_epi32(i32::from_ne_bytes(quads[quad].map(i8::cast_unsigned)))
}
