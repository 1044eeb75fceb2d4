//! The layout of AutoGPTQ and GPTQModel.
//!
//! `qweight`, `[in · bits / 32, out]`: codes packed along the inputs. `qzeros`,
//! `[groups, out · bits / 32]`: packed along the outputs. `scales`, `[groups, out]`. `g_idx`, `[in]`:
//! the group of each input. A weight is `(code − zero point) · scale`.

use ndarray::{Array2, ArrayRef1, ArrayRef2};

use super::{
    PackedWeight, Parts, check_shape, checked_group_size, checked_shape, groups_of,
    words::{dense_words, read_dense},
};
use crate::{
    error::{Error, Result},
    parallel::over_pieces,
};

/// What `qzeros` holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GptqVersion {
    /// Zero points less 1, wrapping at the number of codes: `checkpoint_format` `gptq`, or none.
    V1,
    /// Zero points: `checkpoint_format` `gptq_v2`.
    V2,
}

/// The layout of AutoGPTQ and GPTQModel, in 2, 3, 4 or 8 bits.
///
/// ```
/// use lowbit::io::packed::{Gptq, GptqVersion};
/// use ndarray::array;
///
/// let layout = Gptq::new(4, None, GptqVersion::V1)?;
/// // eight inputs of one output, codes 0 to 7; a zero point of 7 + 1
/// let weight = layout.read(&array![[0x7654_3210]], &array![[7]], &array![[0.5]], None)?;
/// assert_eq!(weight.dequantize(), array![[-4.0, -3.5, -3.0, -2.5, -2.0, -1.5, -1.0, -0.5]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gptq {
    bits: u32,
    group_size: Option<usize>,
    version: GptqVersion,
}

impl Gptq {
    /// The layout with `group_size` inputs to a group, `None` (a `group_size` of −1 in
    /// `quantize_config.json`) for one group of all.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other bits than 2, 3, 4 and 8, and for groups of nothing.
    pub fn new(bits: u32, group_size: Option<usize>, version: GptqVersion) -> Result<Self> {
        if !matches!(bits, 2 | 3 | 4 | 8) {
            return Err(Error::option("bits of GPTQ", "2, 3, 4 or 8", bits));
        }
        Ok(Self {
            bits,
            group_size: checked_group_size(group_size)?,
            version,
        })
    }

    /// Reads a layer; arrays of any layout in memory, `g_idx` where the file has one.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for arrays that do not belong together, [`Error::Empty`] for a layer
    /// of nothing; [`Error::Mismatch`] if the groups of `g_idx` are not of `group_size` inputs, the
    /// last of what is left; [`Error::InvalidScale`] for scales that are not finite, positive and
    /// normal.
    pub fn read(
        &self,
        qweight: &ArrayRef2<i32>,
        qzeros: &ArrayRef2<i32>,
        scales: &ArrayRef2<f32>,
        g_idx: Option<&ArrayRef1<i32>>,
    ) -> Result<PackedWeight> {
        let (words, outputs) = qweight.dim();
        let bits = self.bits as usize;
        let inputs = words
            .checked_mul(32)
            .filter(|total| total.is_multiple_of(bits));
        let Some(inputs) = inputs.map(|total| total / bits) else {
            return Err(Error::ShapeMismatch {
                what: "qweight",
                expected: vec![words.next_multiple_of(bits), outputs],
                got: vec![words, outputs],
            });
        };
        checked_shape(outputs, inputs)?;
        let (_, groups) = groups_of(inputs, self.group_size);
        let zero_words = dense_words(outputs, self.bits).unwrap_or(usize::MAX);
        check_shape("qzeros", [groups, zero_words], qzeros.shape())?;
        check_shape("scales", [groups, outputs], scales.shape())?;
        if let Some(g_idx) = g_idx.filter(|g_idx| g_idx.len() != inputs) {
            return Err(Error::ShapeMismatch {
                what: "g_idx",
                expected: vec![inputs],
                got: vec![g_idx.len()],
            });
        }
        let mut codes = Array2::zeros((outputs, inputs));
        if let Some(codes) = codes.as_slice_mut() {
            over_pieces(codes, inputs, |start, codes| {
                let column = qweight.column(start / inputs);
                read_dense(column.iter().copied(), self.bits, codes);
            });
        }
        let mut zero_points = Array2::zeros((outputs, groups));
        let mut row = vec![0; outputs];
        let mask = u8::MAX >> (8 - self.bits);
        for (words, mut column) in qzeros.rows().into_iter().zip(zero_points.columns_mut()) {
            read_dense(words.iter().copied(), self.bits, &mut row);
            for (zero_point, &stored) in column.iter_mut().zip(&row) {
                *zero_point = match self.version {
                    GptqVersion::V1 => stored.wrapping_add(1) & mask,
                    GptqVersion::V2 => stored,
                };
            }
        }
        Parts {
            bits: self.bits,
            signed: false,
            group_size: self.group_size,
            codes,
            scales: scales.t(),
            zero_points: Some(zero_points),
            group_of_column: g_idx.map(|g_idx| g_idx.view()),
        }
        .assemble()
    }
}
