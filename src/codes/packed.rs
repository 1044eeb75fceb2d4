//! Codes packed densely: a little-endian bit stream in which element `i` takes the bits from
//! `i · bits` on, least significant first.

use super::octets;
use crate::{
    element::{BLOCK, Code},
    error::{Error, Result},
};

/// Unsigned codes of 1 to 8 or 16 bits, `bits / 8` bytes an element.
///
/// What is stored is the distance from the least code of the format, so that signed formats pack
/// without a sign bit to extend.
///
/// ```
/// use lowbit::codes::PackedCodes;
/// let packed = PackedCodes::from_bytes(4, 3, vec![0x21, 0x03])?;
/// assert_eq!((packed.len(), packed.bytes().len()), (3, 2));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct PackedCodes {
    bits: u32,
    len: usize,
    bytes: Vec<u8>,
}

impl PackedCodes {
    /// `len` codes of 0, for a tensor that is already in memory.
    pub(crate) fn zeros(bits: u32, len: usize) -> Result<Self> {
        let bytes = Self::byte_len(bits, len)?;
        Ok(Self {
            bits,
            len,
            bytes: vec![0; bytes],
        })
    }

    /// Codes from their bytes, as [`bytes`](Self::bytes) gives them.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for bits other than 1 to 8 and 16; [`Error::TooLarge`] if the bits
    /// cannot be counted; [`Error::Mismatch`] if there are not exactly as many bytes as
    /// `len` codes take, or if the unused bits at the end are not 0.
    pub fn from_bytes(bits: u32, len: usize, bytes: Vec<u8>) -> Result<Self> {
        let expected = Self::byte_len(bits, len)?;
        if bytes.len() != expected {
            return Err(Error::Mismatch {
                what: "packed codes",
                expected: format!("{expected} bytes for {len} codes of {bits} bits"),
                got: format!("{} bytes", bytes.len()),
            });
        }
        // At most 7 bits of the last byte are unused.
        let used = (len % 8) * (bits as usize % 8) % 8;
        if used != 0 && bytes.last().is_some_and(|last| last >> used != 0) {
            return Err(Error::Mismatch {
                what: "packed codes",
                expected: "zero bits after the last code".into(),
                got: format!("a last byte of {:#04x}", bytes[bytes.len() - 1]),
            });
        }
        Ok(Self { bits, len, bytes })
    }

    fn byte_len(bits: u32, len: usize) -> Result<usize> {
        if !matches!(bits, 1..=8 | 16) {
            return Err(Error::option("bits of packed codes", "1 to 8, or 16", bits));
        }
        len.checked_mul(bits as usize)
            .map(|total| total.div_ceil(8))
            .ok_or_else(|| Error::TooLarge {
                what: "packed codes",
                got: format!("{len} codes of {bits} bits"),
            })
    }

    /// Bits a code takes.
    #[must_use]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The number of codes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bit stream; unused bits of the last byte are 0.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Writes codes from element `start` on, which must be a multiple of 8; only the low `bits` of
    /// each are kept.
    pub(crate) fn write(&mut self, start: usize, codes: &[u16]) {
        let bits = self.bits;
        for (index, codes) in codes.chunks(BLOCK).enumerate() {
            let at = (start + index * BLOCK) / 8 * bits as usize;
            pack(&mut self.bytes[at..], bits, codes, 0);
        }
    }

    /// The bit stream, for threads to [`pack`] pieces of a multiple of 8 codes.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Reads `codes.len()` codes from element `start` on, which may be any.
    pub(crate) fn read(&self, start: usize, codes: &mut [u16]) {
        self.unpack(start, codes, 0);
    }

    /// [`read`](Self::read) with `least` added to each code.
    #[inline]
    pub(crate) fn unpack<C: Code>(&self, start: usize, codes: &mut [C], least: i32) {
        if self.bits == 16 {
            let (pairs, _) = self.bytes[2 * start..].as_chunks();
            for (code, &pair) in codes.iter_mut().zip(pairs) {
                *code = C::truncate(i32::from(u16::from_le_bytes(pair)) + least);
            }
            return;
        }
        let mut buffer = [0; BLOCK + 8];
        for (index, codes) in codes.chunks_mut(BLOCK).enumerate() {
            let distances = self.octets(start + index * BLOCK, codes.len(), &mut buffer);
            for (code, &distance) in codes.iter_mut().zip(distances) {
                *code = C::truncate(i32::from(distance) + least);
            }
        }
    }

    /// At most [`BLOCK`] codes of at most 8 bits from element `start` on, which may be any.
    #[inline(always)]
    pub(crate) fn octets<'a>(
        &self,
        start: usize,
        len: usize,
        buffer: &'a mut [u8; BLOCK + 8],
    ) -> &'a [u8] {
        // Whole octets, of which the first may begin before the first code.
        let skip = start % 8;
        let first = start / 8 * self.bits as usize;
        octets::unpack(self.bits, &self.bytes[first..], &mut buffer[..skip + len]);
        &buffer[skip..skip + len]
    }

    /// The codes from `start` to `end`, packed anew.
    pub(crate) fn slice(&self, start: usize, end: usize) -> Result<Self> {
        let bits = self.bits as usize;
        if (start * bits).is_multiple_of(8) && (end * bits).is_multiple_of(8) {
            let bytes = self.bytes[start * bits / 8..end * bits / 8].to_vec();
            return Ok(Self {
                bits: self.bits,
                len: end - start,
                bytes,
            });
        }
        let mut slice = Self::zeros(self.bits, end - start)?;
        let mut buffer = [0; 2 * BLOCK];
        let mut at = 0;
        while at < slice.len {
            let piece = buffer.len().min(slice.len - at);
            self.read(start + at, &mut buffer[..piece]);
            slice.write(at, &buffer[..piece]);
            at += piece;
        }
        Ok(slice)
    }
}

/// What a stored stream says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "PackedCodes")]
struct Unchecked {
    bits: u32,
    len: usize,
    bytes: Vec<u8>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for PackedCodes {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        Self::from_bytes(stored.bits, stored.len, stored.bytes)
    }
}

/// Packs at most [`BLOCK`] codes, less `least`, into a stream that starts on a byte; only the low
/// `bits` of each difference are kept.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the low bits are what is kept"
)]
#[inline(always)]
pub(crate) fn pack<C: Code>(bytes: &mut [u8], bits: u32, codes: &[C], least: i32) {
    if bits == 16 {
        let (pairs, _) = bytes.as_chunks_mut();
        for (pair, &code) in pairs.iter_mut().zip(codes) {
            *pair = (code.into().wrapping_sub(least) as u16).to_le_bytes();
        }
        return;
    }
    let mut buffer = [0; BLOCK];
    let distances = &mut buffer[..codes.len()];
    for (distance, &code) in distances.iter_mut().zip(codes) {
        *distance = code.into().wrapping_sub(least) as u8;
    }
    octets::pack(bits, distances, bytes);
}

impl std::fmt::Debug for PackedCodes {
    /// The counts and the first bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedCodes")
            .field("bits", &self.bits)
            .field("len", &self.len)
            .field("first_bytes", &&self.bytes[..self.bytes.len().min(8)])
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTHS: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 16];

    fn codes(bits: u32, len: usize) -> Vec<u16> {
        let mut state = 1_u32;
        (0..len)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 16) as u16 & (((1_u32 << bits) - 1) as u16)
            })
            .collect()
    }

    #[test]
    fn packing_takes_exactly_the_bits_and_gives_the_codes_back() {
        for bits in WIDTHS {
            for len in [0, 1, 2, 7, 8, 9, 31, 64, 65, 1_000] {
                let written = codes(bits, len);
                let mut packed = PackedCodes::zeros(bits, len).unwrap();
                packed.write(0, &written);
                assert_eq!(packed.bytes().len(), (len * bits as usize).div_ceil(8));
                for start in [0, 1, 3, 8].into_iter().filter(|&start| start <= len) {
                    let mut read = vec![0; len - start];
                    packed.read(start, &mut read);
                    assert_eq!(read, written[start..], "{bits} bits from {start}");
                }
                let again = PackedCodes::from_bytes(bits, len, packed.bytes().to_vec()).unwrap();
                assert_eq!(again, packed);
            }
        }
    }

    #[test]
    fn element_0_is_in_the_least_significant_bits() {
        let mut packed = PackedCodes::zeros(4, 4).unwrap();
        packed.write(0, &[1, 2, 3, 4]);
        assert_eq!(packed.bytes(), [0x21, 0x43]);
        let mut packed = PackedCodes::zeros(3, 8).unwrap();
        packed.write(0, &[7, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(packed.bytes(), [0x07, 0x00, 0x20]);
    }

    #[test]
    fn any_part_can_be_cut_out() {
        for bits in WIDTHS {
            let written = codes(bits, 100);
            let mut packed = PackedCodes::zeros(bits, 100).unwrap();
            packed.write(0, &written);
            for (start, end) in [(0, 100), (8, 16), (3, 50), (99, 100), (40, 40)] {
                let slice = packed.slice(start, end).unwrap();
                let mut read = vec![0; end - start];
                slice.read(0, &mut read);
                assert_eq!(read, written[start..end]);
                let bytes = slice.bytes().to_vec();
                PackedCodes::from_bytes(bits, end - start, bytes).unwrap();
            }
        }
    }

    #[test]
    fn bytes_that_are_not_the_codes_are_refused() {
        assert!(PackedCodes::from_bytes(3, 8, vec![0; 2]).is_err());
        assert!(PackedCodes::from_bytes(3, 8, vec![0; 4]).is_err());
        assert!(PackedCodes::from_bytes(3, 1, vec![0b1000]).is_err());
        assert!(PackedCodes::from_bytes(3, 1, vec![0b0111]).is_ok());
        assert!(PackedCodes::from_bytes(9, 0, vec![]).is_err());
        assert!(PackedCodes::zeros(16, usize::MAX).is_err());
    }
}
