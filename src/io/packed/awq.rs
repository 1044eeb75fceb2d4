//! The layout of AutoAWQ, version `gemm`.
//!
//! `qweight`, `[in, out / 8]`: codes of 4 bits, eight outputs to a word in the order
//! 0, 2, 4, 6, 1, 3, 5, 7 from the least significant bits on. `qzeros`, `[groups, out / 8]`: in the
//! same order. `scales`, `[groups, out]`. A weight is `(code − zero point) · scale`.

use ndarray::{Array2, ArrayRef2};

use super::{PackedWeight, Parts, check_shape, checked_group_size, checked_shape, groups_of};
use crate::{error::Result, parallel::over_pieces};

/// Where in its word the code of each of eight outputs lies.
const PLACE: [usize; 8] = [0, 4, 1, 5, 2, 6, 3, 7];

/// The layout of AutoAWQ's `gemm` version, in 4 bits.
///
/// ```
/// use lowbit::io::packed::Awq;
/// use ndarray::array;
///
/// // one input of eight outputs, codes 0 to 7 in AWQ's order
/// let weight = Awq::new(None)?.read(&array![[0x7531_6420]], None, &ndarray::Array2::ones((1, 8)))?;
/// assert_eq!(weight.dequantize().column(0).to_vec(), [-8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Awq {
    group_size: Option<usize>,
}

impl Awq {
    /// The layout with `group_size` inputs to a group, `None` for one group of all.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for groups of nothing.
    pub fn new(group_size: Option<usize>) -> Result<Self> {
        Ok(Self {
            group_size: checked_group_size(group_size)?,
        })
    }

    /// Reads a layer; arrays of any layout in memory, no `qzeros` where the file has none
    /// (`zero_point` is false: the zero point is 8).
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) for arrays that do not belong together,
    /// [`Error::Empty`](crate::Error::Empty) for a layer of nothing;
    /// [`Error::InvalidScale`](crate::Error::InvalidScale) for scales that are not finite, positive
    /// and normal.
    pub fn read(
        &self,
        qweight: &ArrayRef2<i32>,
        qzeros: Option<&ArrayRef2<i32>>,
        scales: &ArrayRef2<f32>,
    ) -> Result<PackedWeight> {
        let (inputs, words) = qweight.dim();
        let outputs = words.saturating_mul(8);
        checked_shape(outputs, inputs)?;
        let (_, groups) = groups_of(inputs, self.group_size);
        if let Some(qzeros) = qzeros {
            check_shape("qzeros", [groups, words], qzeros.shape())?;
        }
        check_shape("scales", [groups, outputs], scales.shape())?;
        Parts {
            bits: 4,
            signed: false,
            group_size: self.group_size,
            codes: transposed(qweight),
            scales: scales.t(),
            zero_points: qzeros.map(transposed),
            group_of_column: None,
        }
        .assemble()
    }
}

/// Codes `[8 · words, rows]` of words `[rows, words]`.
fn transposed(words: &ArrayRef2<i32>) -> Array2<u8> {
    let (rows, columns) = words.dim();
    let mut codes = Array2::zeros((8 * columns, rows));
    if let Some(codes) = codes.as_slice_mut() {
        over_pieces(codes, rows, |start, codes| {
            let output = start / rows;
            let column = words.column(output / 8);
            let shift = 4 * PLACE[output % 8];
            for (code, word) in codes.iter_mut().zip(column) {
                let [low, ..] = (word >> shift).to_le_bytes();
                *code = low & 15;
            }
        });
    }
    codes
}
