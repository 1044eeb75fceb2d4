//! Quantized layers as other programs pack them: GPTQ, AWQ and compressed-tensors.
//!
//! Each layout is a value, [`Gptq`], [`Awq`] or [`CompressedTensors`], whose `read` takes the arrays
//! of one layer as they are in a file and gives a [`PackedWeight`]: the same codes, scales and zero
//! points, in a [`QTensor`]. Nothing is rounded on the way.

mod awq;
mod compressed_tensors;
mod gptq;
mod words;

use half::f16;
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use crate::{
    affine::Affine,
    error::{Error, Result},
    groups::element_count,
    scheme::{Granularity, Mapping, ScaleKind, Scheme},
    tensor::QTensor,
};
pub use awq::Awq;
pub use compressed_tensors::CompressedTensors;
pub use gptq::{Gptq, GptqVersion};

/// The weight of a layer, `[out, in]`, as another program quantized it.
///
/// Where that program chose groups of inputs that do not lie side by side (GPTQ's activation order),
/// the columns of the [`tensor`](Self::tensor) are those of the weight with each group put together,
/// and [`order`](Self::order) says which is which.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedWeight {
    tensor: QTensor,
    order: Option<Vec<usize>>,
}

impl PackedWeight {
    /// Codes, scales and zero points.
    #[must_use]
    pub fn tensor(&self) -> &QTensor {
        &self.tensor
    }

    /// The column of the weight that each column of the tensor is; `None` where it is its own.
    ///
    /// A layer with an order is applied by taking the inputs in that order.
    #[must_use]
    pub fn order(&self) -> Option<&[usize]> {
        self.order.as_deref()
    }

    /// The tensor, and the order of its columns.
    #[must_use]
    pub fn into_parts(self) -> (QTensor, Option<Vec<usize>>) {
        (self.tensor, self.order)
    }

    /// The weight in floats, `[out, in]`, columns in the order of the layer's inputs.
    #[must_use]
    pub fn dequantize(&self) -> Array2<f32> {
        let shape = self.tensor.shape();
        let mut weight = Array2::zeros((shape[0], shape[1]));
        // It has the tensor's shape.
        let _ = self.tensor.dequantize_into(&mut weight);
        let Some(order) = &self.order else {
            return weight;
        };
        let mut place = vec![0; order.len()];
        for (column, &of) in order.iter().enumerate() {
            place[of] = column;
        }
        weight.select(Axis(1), &place)
    }
}

/// The size of groups, `None` for one group a row.
fn checked_group_size(group_size: Option<usize>) -> Result<Option<usize>> {
    match group_size {
        Some(0) => Err(Error::option("group size", "at least 1", 0)),
        size => Ok(size),
    }
}

/// The size of groups in a row of `inputs`, and their number.
fn groups_of(inputs: usize, group_size: Option<usize>) -> (usize, usize) {
    let size = group_size.unwrap_or(inputs).min(inputs);
    (size, inputs.div_ceil(size.max(1)))
}

/// Checks that the codes of a layer can be counted, and are not none.
fn checked_shape(outputs: usize, inputs: usize) -> Result<()> {
    if outputs == 0 || inputs == 0 {
        return Err(Error::Empty {
            what: "packed weight".into(),
        });
    }
    element_count("packed weight", &[outputs, inputs]).map(drop)
}

fn check_shape(what: &'static str, expected: [usize; 2], got: &[usize]) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::ShapeMismatch {
        what,
        expected: expected.to_vec(),
        got: got.to_vec(),
    })
}

/// What every layout comes down to.
struct Parts<'a> {
    bits: u32,
    signed: bool,
    group_size: Option<usize>,
    /// Distances from the least code, `[out, in]`.
    codes: Array2<u8>,
    /// `[out, groups]`.
    scales: ArrayView2<'a, f32>,
    /// Distances from the least code, `[out, groups]`; `None` for the middle.
    zero_points: Option<Array2<u8>>,
    /// The group of each column; `None` for one after the other.
    group_of_column: Option<ArrayView1<'a, i32>>,
}

impl Parts<'_> {
    /// Puts the parts together; their shapes were checked.
    fn assemble(self) -> Result<PackedWeight> {
        let (outputs, inputs) = self.codes.dim();
        let (size, groups) = groups_of(inputs, self.group_size);
        let order = match self.group_of_column {
            None => None,
            Some(group_of_column) => columns_by_group(group_of_column, size)?,
        };
        let codes = match &order {
            None => self.codes,
            Some(order) => self.codes.select(Axis(1), order),
        };
        let middle = 1_u8 << (self.bits - 1);
        let zero_points = self.zero_points.filter(|z| z.iter().any(|&z| z != middle));
        let least = if self.signed { f32::from(middle) } else { 0.0 };
        let zero_point: Vec<f32> = match &zero_points {
            None => vec![f32::from(middle) - least; outputs * groups],
            Some(zero_points) => zero_points.iter().map(|&z| f32::from(z) - least).collect(),
        };
        let (granularity, shape) = if groups == 1 {
            (Granularity::PerAxis(0), vec![outputs])
        } else {
            (Granularity::PerGroup(size), vec![outputs, groups])
        };
        let scheme = Scheme::int(self.bits).granularity(granularity);
        let scheme = if self.signed {
            scheme
        } else {
            scheme.unsigned()
        }
        .scale_kind(scale_kind(self.scales))
        .mapping(match zero_points {
            None => Mapping::Symmetric,
            Some(_) => Mapping::Asymmetric,
        })
        .build()?;
        let scale = self.scales.iter().copied().collect();
        let affine = Affine::new(scheme, &shape, scale, zero_point)?;
        let tensor = if self.signed {
            let codes = codes.mapv(|distance| distance.wrapping_sub(middle).cast_signed());
            QTensor::from_codes(&codes, &affine)?
        } else {
            QTensor::from_codes(&codes, &affine)?
        };
        Ok(PackedWeight { tensor, order })
    }
}

/// Half precision, which these programs mostly use, if it holds every scale.
fn scale_kind(scales: ArrayView2<'_, f32>) -> ScaleKind {
    let fits = |&scale: &f32| {
        let half = f16::from_f32(scale);
        half.to_f32() == scale && half >= f16::MIN_POSITIVE
    };
    if scales.iter().all(fits) {
        ScaleKind::F16
    } else {
        ScaleKind::F32
    }
}

/// The columns with each group put together, or `None` if they are already: groups must have `size`
/// columns each, and the last what is left.
fn columns_by_group(
    group_of_column: ArrayView1<'_, i32>,
    size: usize,
) -> Result<Option<Vec<usize>>> {
    let mut order: Vec<usize> = (0..group_of_column.len()).collect();
    order.sort_by_key(|&column| group_of_column[column]);
    for (place, &column) in order.iter().enumerate() {
        let got = group_of_column[column];
        if usize::try_from(got).ok() != Some(place / size) {
            return Err(Error::Mismatch {
                what: "groups of columns",
                expected: format!(
                    "{size} columns in each group from 0 on, and the rest in the last"
                ),
                got: format!("group {got} where group {} must be filled", place / size),
            });
        }
    }
    Ok((!order.is_sorted()).then_some(order))
}
