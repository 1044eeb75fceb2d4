//! Codes in 32-bit words.

/// Reads codes of `bits` bits that lie one after the other, the first in the least significant
/// bits, and go on in the next word where they do not fit.
#[expect(
    clippy::cast_possible_truncation,
    reason = "codes have at most 8 bits, and the mask leaves no more"
)]
pub(super) fn read_dense(words: impl IntoIterator<Item = i32>, bits: u32, codes: &mut [u8]) {
    let mask = (1_u64 << bits) - 1;
    let mut words = words.into_iter();
    let (mut held, mut count) = (0_u64, 0);
    for code in codes {
        if count < bits {
            let word = words.next().unwrap_or(0).cast_unsigned();
            held |= u64::from(word) << count;
            count += 32;
        }
        *code = (held & mask) as u8;
        held >>= bits;
        count -= bits;
    }
}

/// Reads codes of `bits` bits, as many to a word as fit whole.
#[expect(
    clippy::cast_possible_truncation,
    reason = "codes have at most 8 bits, and the mask leaves no more"
)]
pub(super) fn read_whole(words: impl IntoIterator<Item = i32>, bits: u32, codes: &mut [u8]) {
    let mask = (1_u32 << bits) - 1;
    for (codes, word) in codes.chunks_mut((32 / bits) as usize).zip(words) {
        for (shift, code) in (0..).step_by(bits as usize).zip(codes) {
            *code = (word.cast_unsigned() >> shift & mask) as u8;
        }
    }
}

/// Words that `len` codes take, one after the other; `None` if they cannot be counted.
pub(super) fn dense_words(len: usize, bits: u32) -> Option<usize> {
    len.checked_mul(bits as usize).map(|bits| bits.div_ceil(32))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bit by bit.
    fn plain(words: &[i32], bits: u32, index: usize) -> u8 {
        let bit = |at: usize| (words[at / 32].cast_unsigned() >> (at % 32) & 1) as u8;
        (0..bits)
            .map(|b| bit(index * bits as usize + b as usize) << b)
            .sum()
    }

    #[test]
    fn dense_codes_are_read_bit_by_bit() {
        let words: Vec<i32> = (1..=24)
            .map(|i: i32| i.wrapping_mul(-1_640_531_527))
            .collect();
        for bits in 1..=8 {
            let mut codes = vec![0; 24 * 32 / bits as usize];
            read_dense(words.iter().copied(), bits, &mut codes);
            for (index, &code) in codes.iter().enumerate() {
                assert_eq!(code, plain(&words, bits, index), "{bits} bits, {index}");
            }
        }
    }

    #[test]
    fn both_ways_are_one_where_codes_fill_words() {
        let words = [0x7654_3210, -0x1234_5678];
        for bits in [1, 2, 4, 8] {
            let mut dense = vec![0; 64 / bits as usize];
            let mut whole = dense.clone();
            read_dense(words, bits, &mut dense);
            read_whole(words, bits, &mut whole);
            assert_eq!(dense, whole);
        }
        let mut whole = [9; 11];
        read_whole([0o7654_3210, 0o5], 3, &mut whole);
        assert_eq!(whole, [0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 5]);
    }
}
