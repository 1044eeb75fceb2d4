//! Blocks to floats, bit for bit as ggml has them.
//!
//! Source: ggml, `dequantize_row_*` in `ggml-quants.c`, whose products and sums are computed here in
//! the same order, without fused multiply-add.

pub(super) mod k_types;
pub(super) mod levels;
mod plain;
mod ternary;

use half::f16;
use ndarray::{ArrayD, IxDyn};

use super::TensorType;
use crate::{
    error::{Error, Result},
    groups::element_count,
    io::source::zeroed,
    parallel::{PIECE, over_pieces},
};

/// Blocks of floats, a piece at a time, each function the definition of one type.
type Dequantize = fn(&[u8], &mut [f32]);

/// The floats that a tensor's blocks stand for, in an array of the given shape.
///
/// # Errors
/// Those of [`TensorType::byte_len`]; [`Error::Mismatch`] if there are not exactly as many bytes;
/// [`Error::Unsupported`] for types that are not read; [`Error::TooLarge`] if the floats do not fit
/// in memory.
///
/// ```
/// use lowbit::io::gguf::{TensorType, dequantize};
/// let mut block = vec![0x00, 0x38]; // an f16 scale of 0.5
/// block.extend([0x80 | 0x0a; 16]); // codes 10, then codes 8, which stand for 0
/// let x = dequantize(TensorType::Q4_0, &block, &[1, 32])?;
/// assert_eq!((x[[0, 0]], x[[0, 31]]), (1.0, 0.0));
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn dequantize(kind: TensorType, bytes: &[u8], shape: &[usize]) -> Result<ArrayD<f32>> {
    let expected = kind.byte_len(shape)?;
    if bytes.len() != expected {
        return Err(Error::Mismatch {
            what: "blocks",
            expected: format!("{expected} bytes for {shape:?} of {kind}"),
            got: format!("{} bytes", bytes.len()),
        });
    }
    let mut floats = zeroed(element_count("tensor", shape)?)?;
    dequantize_into(kind, bytes, &mut floats)?;
    ArrayD::from_shape_vec(IxDyn(shape), floats).map_err(Error::other)
}

/// Writes the floats of whole blocks; the lengths belong together.
pub(super) fn dequantize_into(kind: TensorType, bytes: &[u8], floats: &mut [f32]) -> Result<()> {
    let blocks: Dequantize = match kind {
        TensorType::F32 => plain::f32,
        TensorType::F16 => plain::f16,
        TensorType::Bf16 => plain::bf16,
        TensorType::Q4_0 => plain::q4_0,
        TensorType::Q4_1 => plain::q4_1,
        TensorType::Q5_0 => plain::q5_0,
        TensorType::Q5_1 => plain::q5_1,
        TensorType::Q8_0 => plain::q8_0,
        TensorType::Q2K => k_types::q2_k,
        TensorType::Q3K => k_types::q3_k,
        TensorType::Q4K => k_types::q4_k,
        TensorType::Q5K => k_types::q5_k,
        TensorType::Q6K => k_types::q6_k,
        TensorType::Iq4Nl => levels::iq4_nl,
        TensorType::Iq4Xs => levels::iq4_xs,
        TensorType::Mxfp4 => levels::mxfp4,
        TensorType::Nvfp4 => levels::nvfp4,
        TensorType::Tq1_0 => ternary::tq1_0,
        TensorType::Tq2_0 => ternary::tq2_0,
        TensorType::Q1_0 => ternary::q1_0,
        TensorType::Q2_0 => ternary::q2_0,
        other => {
            return Err(Error::Unsupported {
                operation: "reading a tensor as floats",
                expected: "a float type, or a block type without a codebook",
                got: other.name().into(),
            });
        }
    };
    // A multiple of every block.
    let (len, size) = (kind.block_len(), kind.block_bytes());
    over_pieces(floats, PIECE, |start, floats| {
        let start = start / len * size;
        let end = start + floats.len() / len * size;
        blocks(&bytes[start..end], floats);
    });
    Ok(())
}

/// Calls `block` with each block and its floats.
fn over_blocks<const BYTES: usize, const LEN: usize>(
    bytes: &[u8],
    floats: &mut [f32],
    block: impl Fn(&[u8; BYTES], &mut [f32; LEN]),
) {
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let (floats, _) = floats.as_chunks_mut::<LEN>();
    for (bytes, floats) in blocks.iter().zip(floats) {
        block(bytes, floats);
    }
}

/// The f16 in two bytes.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// `code − offset`, exactly.
fn level(code: u8, offset: i16) -> f32 {
    f32::from(i16::from(code) - offset)
}
