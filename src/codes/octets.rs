//! Codes of 1 to 8 bits packed and unpacked eight at a time, in one 64-bit word: neighbours move
//! together, or apart, in three steps, which vectorizes over words.

use crate::simd::{Loops, wide};

/// Words of a block.
const WORDS: usize = 32;

/// Packs the low `bits` of each code, `bits` bytes for eight of them; the bytes begin where those of
/// the first code do, and bits after the last code are 0.
pub(crate) fn pack(bits: u32, codes: &[u8], bytes: &mut [u8]) {
    wide(Pack { bits, codes, bytes });
}

/// Unpacks codes from bytes that begin where those of the first code do.
pub(crate) fn unpack(bits: u32, bytes: &[u8], codes: &mut [u8]) {
    wide(Unpack { bits, bytes, codes });
}

struct Pack<'a> {
    bits: u32,
    codes: &'a [u8],
    bytes: &'a mut [u8],
}

impl Loops for Pack<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.bits {
            1 => pack_known::<1>(self.codes, self.bytes),
            2 => pack_known::<2>(self.codes, self.bytes),
            3 => pack_known::<3>(self.codes, self.bytes),
            4 => pack_known::<4>(self.codes, self.bytes),
            5 => pack_known::<5>(self.codes, self.bytes),
            6 => pack_known::<6>(self.codes, self.bytes),
            7 => pack_known::<7>(self.codes, self.bytes),
            _ => {
                let len = self.codes.len().min(self.bytes.len());
                self.bytes[..len].copy_from_slice(&self.codes[..len]);
            }
        }
    }
}

#[inline(always)]
fn pack_known<const BITS: usize>(codes: &[u8], bytes: &mut [u8]) {
    let (octets, rest) = codes.as_chunks::<8>();
    let (whole, last) = bytes.split_at_mut(octets.len() * BITS);
    let (slots, _) = whole.as_chunks_mut::<BITS>();
    let mut words = [0; WORDS];
    for (octets, slots) in octets.chunks(WORDS).zip(slots.chunks_mut(WORDS)) {
        for (word, octet) in words.iter_mut().zip(octets) {
            *word = together::<BITS>(u64::from_le_bytes(*octet));
        }
        for (slot, word) in slots.iter_mut().zip(&words) {
            slot.copy_from_slice(&word.to_le_bytes()[..BITS]);
        }
    }
    if !rest.is_empty() {
        let mut octet = [0; 8];
        octet[..rest.len()].copy_from_slice(rest);
        let word = together::<BITS>(u64::from_le_bytes(octet));
        for (byte, value) in last.iter_mut().zip(word.to_le_bytes()) {
            *byte = value;
        }
    }
}

struct Unpack<'a> {
    bits: u32,
    bytes: &'a [u8],
    codes: &'a mut [u8],
}

impl Loops for Unpack<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        match self.bits {
            1 => unpack_known::<1>(self.bytes, self.codes),
            2 => unpack_known::<2>(self.bytes, self.codes),
            3 => unpack_known::<3>(self.bytes, self.codes),
            4 => unpack_known::<4>(self.bytes, self.codes),
            5 => unpack_known::<5>(self.bytes, self.codes),
            6 => unpack_known::<6>(self.bytes, self.codes),
            7 => unpack_known::<7>(self.bytes, self.codes),
            _ => {
                let len = self.codes.len().min(self.bytes.len());
                self.codes[..len].copy_from_slice(&self.bytes[..len]);
            }
        }
    }
}

#[inline(always)]
fn unpack_known<const BITS: usize>(bytes: &[u8], codes: &mut [u8]) {
    let (octets, rest) = codes.as_chunks_mut::<8>();
    let (whole, last) = bytes.split_at(octets.len() * BITS);
    let (slots, _) = whole.as_chunks::<BITS>();
    let mut words = [0; WORDS];
    for (slots, octets) in slots.chunks(WORDS).zip(octets.chunks_mut(WORDS)) {
        for (word, slot) in words.iter_mut().zip(slots) {
            let mut bytes = [0; 8];
            bytes[..BITS].copy_from_slice(slot);
            *word = u64::from_le_bytes(bytes);
        }
        for (octet, &word) in octets.iter_mut().zip(&words) {
            *octet = apart::<BITS>(word).to_le_bytes();
        }
    }
    if !rest.is_empty() {
        let mut bytes = [0; 8];
        for (byte, &value) in bytes.iter_mut().zip(last) {
            *byte = value;
        }
        let octet = apart::<BITS>(u64::from_le_bytes(bytes)).to_le_bytes();
        rest.copy_from_slice(&octet[..rest.len()]);
    }
}

/// The low bits of eight bytes, side by side.
#[inline(always)]
fn together<const BITS: usize>(codes: u64) -> u64 {
    let codes = codes & (LOW_OF_8 * low(BITS));
    let pairs = join(codes, LOW_OF_16 * low(8), 8 - BITS);
    let fours = join(pairs, LOW_OF_32 * low(16), 16 - 2 * BITS);
    join(fours, low(32), 32 - 4 * BITS)
}

/// Eight numbers that lie side by side, in a byte each.
#[inline(always)]
fn apart<const BITS: usize>(packed: u64) -> u64 {
    let fours = part(packed, low(4 * BITS), 32, 32 - 4 * BITS);
    let pairs = part(fours, LOW_OF_32 * low(2 * BITS), 16, 16 - 2 * BITS);
    part(pairs, LOW_OF_16 * low(BITS), 8, 8 - BITS)
}

/// The least bit of each lane of 8, 16 and 32 bits.
const LOW_OF_8: u64 = 0x0101_0101_0101_0101;
const LOW_OF_16: u64 = 0x0001_0001_0001_0001;
const LOW_OF_32: u64 = 0x0000_0001_0000_0001;

/// So many bits, the least ones.
#[inline(always)]
const fn low(bits: usize) -> u64 {
    (1 << bits) - 1
}

/// What is in `mask` stays, the rest moves down.
#[inline(always)]
fn join(lanes: u64, mask: u64, by: usize) -> u64 {
    (lanes & mask) | ((lanes & !mask) >> by)
}

/// What is in `mask` stays; what follows it in each lane, as many bits, moves up, to `half`.
#[inline(always)]
fn part(lanes: u64, mask: u64, half: usize, by: usize) -> u64 {
    (lanes & mask) | ((lanes << by) & (mask << half))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::on_each;

    struct There<'a> {
        bits: u32,
        codes: &'a [u8],
    }

    impl Loops for There<'_> {
        type Output = Vec<u8>;

        #[inline(always)]
        fn run(self) -> Vec<u8> {
            let Self { bits, codes } = self;
            let mut bytes = vec![0xff; (codes.len() * bits as usize).div_ceil(8)];
            let to = &mut bytes;
            Pack {
                bits,
                codes,
                bytes: to,
            }
            .run();
            bytes
        }
    }

    struct Back<'a> {
        bits: u32,
        bytes: &'a [u8],
        len: usize,
    }

    impl Loops for Back<'_> {
        type Output = Vec<u8>;

        #[inline(always)]
        fn run(self) -> Vec<u8> {
            let Self { bits, bytes, len } = self;
            let mut codes = vec![0xff; len];
            let to = &mut codes;
            Unpack {
                bits,
                bytes,
                codes: to,
            }
            .run();
            codes
        }
    }

    #[test]
    fn every_instruction_set_packs_bit_by_bit_and_back() {
        for bits in 1..=8 {
            let mask = u8::MAX >> (8 - bits);
            for len in [0_usize, 1, 3, 7, 8, 9, 63, 255, 256, 257, 1_000] {
                let codes: Vec<u8> = (0..len)
                    .map(|at| u8::try_from((at * 73 + at / 5) % 256).unwrap())
                    .collect();
                let bit = |at: usize| codes[at / bits as usize] >> (at % bits as usize) & 1;
                let mut expected = vec![0; (len * bits as usize).div_ceil(8)];
                for at in 0..len * bits as usize {
                    expected[at / 8] |= bit(at) << (at % 8);
                }
                for bytes in on_each(|| There {
                    bits,
                    codes: &codes,
                }) {
                    assert_eq!(bytes, expected, "{len} codes of {bits} bits");
                }
                let masked: Vec<u8> = codes.iter().map(|code| code & mask).collect();
                for back in on_each(|| Back {
                    bits,
                    bytes: &expected,
                    len,
                }) {
                    assert_eq!(back, masked, "{len} codes of {bits} bits");
                }
            }
        }
    }
}
