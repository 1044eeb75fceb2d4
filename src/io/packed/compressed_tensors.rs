//! The `pack-quantized` layout of compressed-tensors.
//!
//! `weight_packed`, `[out, ⌈in · bits / 32⌉]`: signed codes less the least one, packed along the
//! inputs. `weight_scale`, `[out, groups]`. `weight_zero_point`, `[⌈out · bits / 32⌉, groups]`: packed
//! in the same way along the outputs; none where the scheme is symmetric. `weight_shape`: out and in.
//! `weight_g_idx`, `[in]`: the group of each input, where there is an activation order.
//!
//! Releases before 0.17 put `⌊32 / bits⌋` codes in a word and left the rest of it empty. The
//! numbers of words tell the two apart wherever out (with zero points) or in is a multiple of 32;
//! where they do not, codes are taken to be one after the other.

use ndarray::{Array2, ArrayRef1, ArrayRef2, ArrayView1};

use super::{
    PackedWeight, Parts, check_shape, checked_group_size, checked_shape, groups_of,
    words::{dense_words, read_dense, read_whole},
};
use crate::{
    error::{Error, Result},
    parallel::over_pieces,
};

/// The `pack-quantized` layout of compressed-tensors, in 2 to 8 bits.
///
/// ```
/// use lowbit::io::packed::CompressedTensors;
/// use ndarray::array;
///
/// let layout = CompressedTensors::new(4, None)?;
/// let weight = layout.read(&array![[0x0000_0f80]], &array![[0.5]], None, [1, 3], None)?;
/// assert_eq!(weight.dequantize(), array![[-4.0, 0.0, 3.5]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressedTensors {
    bits: u32,
    group_size: Option<usize>,
}

impl CompressedTensors {
    /// The layout with `group_size` inputs to a group, `None` (strategy `channel`) for one group of
    /// all.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for other bits than 2 to 8, and for groups of nothing.
    pub fn new(bits: u32, group_size: Option<usize>) -> Result<Self> {
        if !(2..=8).contains(&bits) {
            return Err(Error::option("bits of compressed-tensors", "2 to 8", bits));
        }
        Ok(Self {
            bits,
            group_size: checked_group_size(group_size)?,
        })
    }

    /// Reads a layer of the given shape, out and in; arrays of any layout in memory.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for arrays that do not belong together, [`Error::Empty`] for a layer
    /// of nothing; [`Error::Mismatch`] if the groups of `g_idx` are not of `group_size` inputs, the
    /// last of what is left; [`Error::InvalidScale`] for scales that are not finite, positive and
    /// normal.
    pub fn read(
        &self,
        packed: &ArrayRef2<i32>,
        scale: &ArrayRef2<f32>,
        zero_point: Option<&ArrayRef2<i32>>,
        shape: [usize; 2],
        g_idx: Option<&ArrayRef1<i32>>,
    ) -> Result<PackedWeight> {
        let [outputs, inputs] = shape;
        checked_shape(outputs, inputs)?;
        let (_, groups) = groups_of(inputs, self.group_size);
        check_shape("weight_scale", [outputs, groups], scale.shape())?;
        // Before anything is allocated for a shape that is only claimed.
        let along_inputs = self.ways(inputs, packed.ncols());
        if packed.nrows() != outputs || along_inputs.is_empty() {
            let words = dense_words(inputs, self.bits).unwrap_or(usize::MAX);
            return mismatch("weight_packed", [outputs, words], packed);
        }
        let mut ways = along_inputs;
        if let Some(zero_point) = zero_point {
            let along_outputs = self.ways(outputs, zero_point.nrows());
            ways.retain(|way| along_outputs.contains(way));
            if zero_point.ncols() != groups || ways.is_empty() {
                let words = dense_words(outputs, self.bits).unwrap_or(usize::MAX);
                return mismatch("weight_zero_point", [words, groups], zero_point);
            }
        }
        let unpack = |words: ArrayView1<'_, i32>, codes: &mut [u8]| match ways[0] {
            Way::Dense => read_dense(words.iter().copied(), self.bits, codes),
            Way::Whole => read_whole(words.iter().copied(), self.bits, codes),
        };
        let mut codes = Array2::zeros((outputs, inputs));
        if let Some(codes) = codes.as_slice_mut() {
            over_pieces(codes, inputs, |start, codes| {
                unpack(packed.row(start / inputs), codes);
            });
        }
        let zero_points = zero_point.map(|packed| {
            let mut zero_points = Array2::zeros((outputs, groups));
            let mut buffer = vec![0; outputs];
            for (words, mut column) in packed.columns().into_iter().zip(zero_points.columns_mut()) {
                unpack(words, &mut buffer);
                column
                    .iter_mut()
                    .zip(&buffer)
                    .for_each(|(to, &from)| *to = from);
            }
            zero_points
        });
        if let Some(g_idx) = g_idx.filter(|g_idx| g_idx.len() != inputs) {
            return Err(Error::ShapeMismatch {
                what: "weight_g_idx",
                expected: vec![inputs],
                got: vec![g_idx.len()],
            });
        }
        // The writer fills it with −1 until it has an order.
        let g_idx = g_idx.filter(|g_idx| g_idx.iter().all(|&group| group != -1));
        Parts {
            bits: self.bits,
            signed: true,
            group_size: self.group_size,
            codes,
            scales: scale.view(),
            zero_points,
            group_of_column: g_idx.map(|g_idx| g_idx.view()),
        }
        .assemble()
    }

    /// The ways in which `len` codes can lie in so many words, the likelier first.
    fn ways(&self, len: usize, words: usize) -> Vec<Way> {
        let mut ways = Vec::new();
        if Some(words) == dense_words(len, self.bits) {
            ways.push(Way::Dense);
        }
        if words == len.div_ceil((32 / self.bits) as usize) {
            ways.push(Way::Whole);
        }
        ways
    }
}

/// How codes lie in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// One after the other.
    Dense,
    /// As many to a word as fit whole.
    Whole,
}

fn mismatch<T>(what: &'static str, expected: [usize; 2], got: &ArrayRef2<i32>) -> Result<T> {
    Err(Error::ShapeMismatch {
        what,
        expected: expected.to_vec(),
        got: got.shape().to_vec(),
    })
}
