//! Floats to blocks, byte for byte as ggml writes them.
//!
//! Source: ggml, `quantize_*` in `ggml-quants.c` compiled without fused multiply-add: its searches,
//! its order of summation and its rounding, which differs from the rest of this crate (half away from
//! zero, truncation after adding a half, or half to even, by type).

mod k_asymmetric;
mod k_symmetric;
mod levels;
mod plain;
mod search;
mod ternary;

use half::f16;
use ndarray::{ArrayRef, Dimension, Ix1};

use super::TensorType;
use crate::{
    error::{Error, Result},
    io::source::zeroed,
    parallel::map_over_pieces,
};

/// Blocks of one row from its floats and, where there are any, the importance of each; `None` where
/// a scale is beyond its storage type.
type Quantize = fn(&[f32], Option<&[f32]>, &mut [u8]) -> Option<()>;

/// The blocks of a tensor of any layout, whose last axis is whole blocks.
///
/// `importance`, one number for each element of the last axis ("imatrix": the mean square of what
/// that input has seen), weights the error that Q4_0 to Q5_1, the K types and IQ4 search to reduce;
/// other types do without.
///
/// # Errors
/// Those of [`TensorType::byte_len`]; [`Error::NonFinite`] for values that are not finite, and for
/// importance that is not or is negative; [`Error::ShapeMismatch`] if there is not an importance for
/// each element of a row; [`Error::Unsupported`] for types that are not written;
/// [`Error::Mismatch`] for values so large that a scale is beyond its storage type.
///
/// ```
/// use lowbit::io::gguf::{TensorType, dequantize, quantize};
/// let x = ndarray::Array2::from_shape_fn((2, 256), |(i, j)| (i + 1) as f32 * (j as f32 * 0.1).sin());
/// let blocks = quantize(TensorType::Q6K, &x, None)?;
/// assert_eq!(blocks.len(), 2 * 210);
/// let again = dequantize(TensorType::Q6K, &blocks, x.shape())?;
/// assert!(x.iter().zip(&again).all(|(x, y)| (x - y).abs() < 0.05));
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn quantize<D: Dimension>(
    kind: TensorType,
    x: &ArrayRef<f32, D>,
    importance: Option<&ArrayRef<f32, Ix1>>,
) -> Result<Vec<u8>> {
    let row_blocks: Quantize = match kind {
        TensorType::F32 => plain::f32,
        TensorType::F16 => plain::f16,
        TensorType::Bf16 => plain::bf16,
        TensorType::Q4_0 => plain::q4_0,
        TensorType::Q4_1 => plain::q4_1,
        TensorType::Q5_0 => plain::q5_0,
        TensorType::Q5_1 => plain::q5_1,
        TensorType::Q8_0 => plain::q8_0,
        TensorType::Q2K => k_asymmetric::q2_k,
        TensorType::Q3K => k_symmetric::q3_k,
        TensorType::Q4K => k_asymmetric::q4_k,
        TensorType::Q5K => k_asymmetric::q5_k,
        TensorType::Q6K => k_symmetric::q6_k,
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
                operation: "writing a tensor as blocks",
                expected: "a float type, or a block type without a codebook",
                got: other.name().into(),
            });
        }
    };
    let bytes = kind.byte_len(x.shape())?;
    let row = x.shape().last().copied().unwrap_or(1);
    let importance = importance.map(|i| checked_importance(i, row)).transpose()?;
    check_finite(x)?;
    let standard = x.as_standard_layout();
    let floats: &[f32] = standard.as_slice().unwrap_or_default();
    let mut blocks = zeroed(bytes)?;
    if blocks.is_empty() {
        return Ok(blocks);
    }
    let row_bytes = row / kind.block_len() * kind.block_bytes();
    let written = map_over_pieces(&mut blocks, row_bytes, |start, blocks| {
        let start = start / row_bytes * row;
        row_blocks(&floats[start..start + row], importance.as_deref(), blocks)
    });
    match written.iter().position(Option::is_none) {
        None => Ok(blocks),
        Some(index) => {
            let floats = &floats[index * row..(index + 1) * row];
            let largest = floats.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            Err(Error::Mismatch {
                what: "values",
                expected: format!("a magnitude that the scales of {kind} can reach"),
                got: format!("up to {largest:e} in row {index}"),
            })
        }
    }
}

fn check_finite<D: Dimension>(x: &ArrayRef<f32, D>) -> Result<()> {
    match x.indexed_iter().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((position, &value)) => Err(Error::NonFinite {
            what: "values",
            expected: "finite numbers",
            position: ndarray::IntoDimension::into_dimension(position)
                .as_array_view()
                .to_vec(),
            value: value.into(),
        }),
    }
}

fn checked_importance(importance: &ArrayRef<f32, Ix1>, row: usize) -> Result<Vec<f32>> {
    if importance.len() != row {
        return Err(Error::ShapeMismatch {
            what: "importance",
            expected: vec![row],
            got: vec![importance.len()],
        });
    }
    match importance
        .iter()
        .position(|&i| !(i >= 0.0 && i.is_finite()))
    {
        None => Ok(importance.to_vec()),
        Some(index) => Err(Error::NonFinite {
            what: "importance",
            expected: "finite numbers, none negative",
            position: vec![index],
            value: importance[index].into(),
        }),
    }
}

/// Calls `block` with each block of a row, its importance and its bytes.
fn over_blocks<const LEN: usize, const BYTES: usize>(
    row: &[f32],
    importance: Option<&[f32]>,
    bytes: &mut [u8],
    block: impl Fn(&[f32; LEN], Option<&[f32]>, &mut [u8; BYTES]) -> Option<()>,
) -> Option<()> {
    let (blocks, _) = row.as_chunks::<LEN>();
    let (bytes, _) = bytes.as_chunks_mut::<BYTES>();
    for (index, (x, bytes)) in blocks.iter().zip(bytes).enumerate() {
        let importance = importance.map(|importance| &importance[index * LEN..][..LEN]);
        block(x, importance, bytes)?;
    }
    Some(())
}

/// Writes a number as f16 and gives back what was written.
fn write_half(bytes: &mut [u8], at: usize, value: f32) -> Option<f32> {
    let half = f16::from_f32(value);
    bytes[at..at + 2].copy_from_slice(&half.to_le_bytes());
    half.is_finite().then(|| half.to_f32())
}

/// `1 / scale`, and 0 for a scale of 0.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The first element of the greatest magnitude; 0 if all are.
fn of_greatest_magnitude(x: &[f32]) -> f32 {
    x.iter().fold(
        0.0,
        |most: f32, &x| if x.abs() > most.abs() { x } else { most },
    )
}

/// Codes below 16, the first half in the low halves of the bytes, the second in the high ones.
fn write_halves(codes: &[u8], bytes: &mut [u8]) {
    let (low, high) = codes.split_at(bytes.len());
    for ((byte, low), high) in bytes.iter_mut().zip(low).zip(high) {
        *byte = low | high << 4;
    }
}

/// The sum of squares, in order.
fn square_sum(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |sum, x| sum + x * x)
}

/// Codes of two bits, four to a byte: per half of a block of 256, byte `l` holds elements `l`,
/// `l + 32`, `l + 64` and `l + 96`.
fn write_two_bit_planes(codes: impl Fn(usize) -> u8, bytes: &mut [u8]) {
    for (half, bytes) in bytes.chunks_exact_mut(32).enumerate() {
        for (l, byte) in bytes.iter_mut().enumerate() {
            *byte = (0..4).fold(0, |byte, plane| {
                byte | codes(half * 128 + plane * 32 + l) << (2 * plane)
            });
        }
    }
}

/// Whether every search came to a number.
fn all_finite(x: &[f32]) -> Option<()> {
    x.iter().all(|x| x.is_finite()).then_some(())
}

/// Weights of a group: importance times the root of `sigma2` and the element's square.
fn important<const G: usize>(x: &[f32], sigma2: f32, importance: &[f32]) -> [f32; G] {
    std::array::from_fn(|l| importance[l] * (sigma2 + x[l] * x[l]).sqrt())
}
