//! Weights packed for a kernel: codes in panels, and the parameters of each column and group beside
//! them in the same order.

use std::ops::Range;

use super::{
    aligned::Aligned,
    arch::Kernel,
    layout::{BLOCK, Group, Layout, Stretch, to_i32, unpack, write_block},
    value::Value,
};
use crate::{
    affine::Affine,
    error::{Error, Result},
    parallel::{map_pieces, over_pieces},
    scheme::{FloatFormat, Format, Granularity, Mapping},
    tensor::QTensor,
};

/// Weights `[columns, depth]` packed for a kernel.
#[derive(Debug)]
pub(super) struct Weights<K> {
    pub(super) kernel: K,
    pub(super) layout: Layout,
    codes: Aligned<u8>,
    /// `[panel][group][column of the panel]`, as all that follows.
    scale: Vec<f32>,
    zero: Zeros,
    value: Value,
    /// What was taken from codes when they were packed.
    offset: u8,
    /// Whether what fills up groups stands for finite floats, which inputs of 0 take out of a sum.
    fills_finitely: bool,
    /// All blocks in one stretch, for few rows, and in some that stay in the nearest caches.
    whole: Vec<Stretch>,
    parts: Vec<Stretch>,
}

/// Zero points, counted from the least code where they are integers.
#[derive(Debug, Clone, PartialEq)]
enum Zeros {
    /// The same for all.
    Same(u8),
    Integer(Vec<u8>),
    /// Real ones, and the least code of the format.
    Real(Vec<f32>, i32),
}

/// The zero points of the columns of a panel, in one group or in all.
#[derive(Debug, Clone, Copy)]
pub(super) enum GroupZeros<'a> {
    Same(i32),
    Integer(&'a [u8]),
    Real(&'a [f32], i32),
}

impl<K: Kernel> Weights<K> {
    /// Packs a quantized matrix `[out, in]`.
    ///
    /// # Errors
    /// See `PackedLinear::pack`.
    pub(super) fn pack(kernel: K, tensor: &QTensor) -> Result<Self> {
        let &[columns, depth] = tensor.shape() else {
            return Err(Error::Unsupported {
                operation: "packing",
                expected: "weights of two axes, [out, in]",
                got: format!("a tensor of shape {:?}", tensor.shape()),
            });
        };
        let scheme = tensor.scheme();
        if scheme.bits() > 8 {
            return Err(Error::Unsupported {
                operation: "packing",
                expected: "codes of at most 8 bits",
                got: scheme.to_string(),
            });
        }
        let group = depth_of_a_group(scheme.granularity(), depth).ok_or(Error::Unsupported {
            operation: "packing",
            expected: "a scale per tensor, per output (axis 0) or row, per group or block along the inputs",
            got: scheme.to_string(),
        })?;
        let layout = Layout::new(columns, depth, group, scheme.bits())?;
        let value = Value::of(scheme.format());
        let offset = match value {
            Value::Distance => K::offset(scheme.bits()),
            Value::Float(_) => 0,
        };
        let codes = pack_codes::<K>(layout, offset, |column, codes| {
            tensor.packed().read(column * depth, codes);
        })?;
        let affine = tensor.affine();
        let groups = affine.groups(tensor.shape())?;
        let parameter =
            |column: usize, group: Group| groups.parameter_of(column * depth + group.start);
        let scale = beside::<K, f32>(layout, 1.0, |c, g| affine.scale()[parameter(c, g)]);
        let zero = Zeros::new::<K>(layout, &affine, parameter);
        let weights = Self {
            kernel,
            layout,
            codes,
            fills_finitely: layout.padded_depth() == depth || zero.least_is_finite(&scale),
            scale,
            zero,
            value,
            offset,
            whole: layout.stretches(usize::MAX),
            parts: layout.stretches(K::BLOCKS_AT_A_TIME),
        };
        weights.refuse_special_floats(scheme.format())?;
        Ok(weights)
    }

    /// Packs 8-bit codes, distances from the least one, with a zero point for each column:
    /// `read(column, codes)` gives those of a column.
    pub(super) fn of_distances(
        kernel: K,
        [columns, depth]: [usize; 2],
        read: impl Fn(usize, &mut [u16]) + Send + Sync,
        zero: impl Fn(usize) -> u8,
    ) -> Result<Self> {
        let layout = Layout::new(columns, depth, depth, 8)?;
        let offset = K::offset(8);
        Ok(Self {
            kernel,
            layout,
            codes: pack_codes::<K>(layout, offset, read)?,
            scale: vec![],
            zero: Zeros::Integer(beside::<K, u8>(layout, 0, |column, _| zero(column))),
            value: Value::Distance,
            offset,
            fills_finitely: true,
            whole: layout.stretches(usize::MAX),
            parts: layout.stretches(K::BLOCKS_AT_A_TIME),
        })
    }

    /// Codes of small floats that are infinite or NaN have no place in a layer.
    fn refuse_special_floats(&self, format: Format) -> Result<()> {
        let greatest = match format {
            Format::Float(FloatFormat::E4M3) => 0x7e,
            Format::Float(FloatFormat::E5M2) => 0x7b,
            _ => return Ok(()),
        };
        // Padding is 0, and every code is in there once.
        match self
            .codes
            .as_slice()
            .iter()
            .find(|&&code| code & 0x7f > greatest)
        {
            None => Ok(()),
            Some(&code) => Err(Error::Unsupported {
                operation: "packing",
                expected: "finite small floats",
                got: format!("the code {code:#04x} of {format}"),
            }),
        }
    }

    pub(super) fn panels(&self) -> usize {
        self.layout.columns.div_ceil(K::COLUMNS)
    }

    pub(super) fn value(&self) -> Value {
        self.value
    }

    /// What was taken from codes when they were packed; packed bytes are `code − offset`, which of
    /// 0 and 128 is `code ^ offset`.
    #[inline(always)]
    pub(super) fn offset(&self) -> u8 {
        self.offset
    }

    /// All blocks, for many rows in parts that stay in the nearest caches while the rows pass by.
    #[inline(always)]
    pub(super) fn stretches(&self, many_rows: bool) -> &[Stretch] {
        if many_rows { &self.parts } else { &self.whole }
    }

    /// The scales of a panel, `[group][column]`; none where weights are codes alone.
    #[inline(always)]
    pub(super) fn scales(&self, panel: usize) -> &[f32] {
        self.scale.get(self.of_panel(panel)).unwrap_or_default()
    }

    /// The zero points of a panel, `[group][column]`.
    #[inline(always)]
    pub(super) fn zeros(&self, panel: usize) -> GroupZeros<'_> {
        self.zero.of(self.of_panel(panel))
    }

    #[inline(always)]
    fn of_panel(&self, panel: usize) -> Range<usize> {
        self.at(panel, 0)..self.at(panel + 1, 0)
    }

    /// The packed codes of some blocks of a panel.
    #[inline(always)]
    pub(super) fn blocks(&self, panel: usize, blocks: Range<usize>) -> &[u8] {
        let block = self.layout.block_bytes(K::COLUMNS);
        let panel = panel * self.layout.blocks() * block;
        &self.codes.as_slice()[panel + blocks.start * block..panel + blocks.end * block]
    }

    /// Where the parameters of a panel and group begin.
    #[inline(always)]
    fn at(&self, panel: usize, group: usize) -> usize {
        (panel * self.layout.groups() + group) * K::COLUMNS
    }

    /// The scale of each column of a panel in a group; none where weights are codes alone.
    #[inline(always)]
    pub(super) fn scale(&self, panel: usize, group: usize) -> &[f32] {
        let at = self.at(panel, group);
        self.scale.get(at..at + K::COLUMNS).unwrap_or_default()
    }

    /// The zero point of each column of a panel in a group.
    #[inline(always)]
    pub(super) fn zero(&self, panel: usize, group: usize) -> GroupZeros<'_> {
        let at = self.at(panel, group);
        self.zero.of(at..at + K::COLUMNS)
    }

    /// The greatest distance of a code from a zero point; `None` for real zero points and floats,
    /// which integer sums do not serve.
    pub(super) fn reach(&self) -> Option<u32> {
        let greatest = u8::MAX >> (8 - self.layout.bits);
        let reach = |zero: u8| u32::from(zero.max(greatest.saturating_sub(zero)));
        match (&self.zero, self.value) {
            (Zeros::Same(zero), Value::Distance) => Some(reach(*zero)),
            (Zeros::Integer(zero), Value::Distance) => {
                Some(zero.iter().map(|&zero| reach(zero)).max().unwrap_or(0))
            }
            _ => None,
        }
    }

    /// What sums of activations are multiplied by ahead: minus the zero point of the packed codes,
    /// where it is the same for all; otherwise 1.
    pub(super) fn x_factor(&self) -> i32 {
        match self.zero {
            Zeros::Same(zero) => i32::from(self.offset) - i32::from(zero),
            Zeros::Integer(_) | Zeros::Real(..) => 1,
        }
    }

    /// Whether a row of floats may be multiplied by whole blocks, what fills them up included.
    pub(super) fn fills_finitely(&self) -> bool {
        self.fills_finitely
    }

    /// Whether integer sums with activations of 8 bits serve, scaled group by group.
    pub(super) fn has_integer_codes(&self) -> bool {
        self.value == Value::Distance
    }

    /// The sum of the packed codes of each column and group, `[panel][group][column of the panel]`.
    pub(super) fn sums_of_codes(&self) -> Vec<i32> {
        let layout = self.layout;
        let panels = map_pieces(self.panels(), 1, |panel| {
            let panel = panel.start;
            let mut sums = vec![0; layout.groups() * K::COLUMNS];
            let mut codes = vec![0_u8; BLOCK * K::COLUMNS];
            for (group, sums) in layout.all_groups().zip(sums.chunks_exact_mut(K::COLUMNS)) {
                let filled = i32::from(self.offset).wrapping_mul(to_i32(group.len));
                sums.fill(filled.wrapping_neg());
                for block in group.block..group.block + group.blocks {
                    let packed = self.blocks(panel, block..block + 1);
                    unpack(layout.bits, K::LANES, packed, &mut codes, |code| {
                        code ^ self.offset
                    });
                    let vectors = codes.chunks_exact(BLOCK * K::LANES);
                    for (codes, sums) in vectors.zip(sums.chunks_exact_mut(K::LANES)) {
                        for quad in codes.chunks_exact(4 * K::LANES) {
                            for (four, sum) in quad.chunks_exact(4).zip(&mut *sums) {
                                let four = four.iter().map(|&code| i32::from(code)).sum();
                                *sum = sum.wrapping_add(four);
                            }
                        }
                    }
                }
            }
            sums
        });
        panels.concat()
    }

    /// Bytes that codes and parameters take.
    pub(super) fn memory_bytes(&self) -> usize {
        let zero = match &self.zero {
            Zeros::Same(_) => 0,
            Zeros::Integer(zero) => zero.len(),
            Zeros::Real(zero, _) => 4 * zero.len(),
        };
        self.codes.as_slice().len() + 4 * self.scale.len() + zero
    }
}

impl Zeros {
    #[inline(always)]
    fn of(&self, columns: Range<usize>) -> GroupZeros<'_> {
        match self {
            Self::Same(zero) => GroupZeros::Same((*zero).into()),
            Self::Integer(zero) => GroupZeros::Integer(&zero[columns]),
            Self::Real(zero, least) => GroupZeros::Real(&zero[columns], *least),
        }
    }

    /// Whether the least code stands for a finite float in every column and group.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 8 bits")]
    fn least_is_finite(&self, scale: &[f32]) -> bool {
        let mut scales = scale.iter();
        match self {
            Self::Same(zero) => scales.all(|scale| (f32::from(*zero) * scale).is_finite()),
            Self::Integer(zeros) => scales
                .zip(zeros)
                .all(|(scale, &zero)| (f32::from(zero) * scale).is_finite()),
            Self::Real(zeros, least) => scales
                .zip(zeros)
                .all(|(scale, zero)| ((*least as f32 - zero) * scale).is_finite()),
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "integer zero points are codes of at most 8 bits"
    )]
    fn new<K: Kernel>(
        layout: Layout,
        affine: &Affine,
        parameter: impl Fn(usize, Group) -> usize,
    ) -> Self {
        let scheme = affine.scheme();
        let least = scheme.quant_min();
        let zero = |column, group| affine.zero_point()[parameter(column, group)];
        // Columns that fill up a panel have the zero point from which codes reach least far, so that
        // they never limit the depth.
        let middle = 1 << (layout.bits - 1);
        match scheme.mapping() {
            Mapping::AsymmetricFloat => Self::Real(beside::<K, f32>(layout, 0.0, zero), least),
            Mapping::Asymmetric => {
                Self::Integer(beside::<K, u8>(layout, middle, |column, group| {
                    (zero(column, group) - least as f32) as u8
                }))
            }
            Mapping::Symmetric | Mapping::SymmetricHalfRange => {
                Self::Same((scheme.middle() - least) as u8)
            }
        }
    }
}

/// The depth that shares a scale, if scales follow the depth no finer than in groups.
fn depth_of_a_group(granularity: Granularity, depth: usize) -> Option<usize> {
    match granularity {
        Granularity::PerTensor | Granularity::PerRow | Granularity::PerAxis(0) => Some(depth),
        Granularity::PerGroup(size) | Granularity::PerGroupAlong { axis: 1, size } => Some(size),
        Granularity::PerBlock { columns, .. } => Some(columns),
        Granularity::PerAxis(_) | Granularity::PerGroupAlong { .. } => None,
    }
}

/// A value for each column and group in the order of the panels, `padding` where a panel has more
/// columns than there are.
fn beside<K: Kernel, T: Copy>(
    layout: Layout,
    padding: T,
    value: impl Fn(usize, Group) -> T,
) -> Vec<T> {
    let panels = layout.columns.div_ceil(K::COLUMNS);
    let mut values = Vec::with_capacity(panels * layout.groups() * K::COLUMNS);
    for panel in 0..panels {
        for group in layout.all_groups() {
            for column in panel * K::COLUMNS..(panel + 1) * K::COLUMNS {
                let inside = column < layout.columns;
                values.push(if inside {
                    value(column, group)
                } else {
                    padding
                });
            }
        }
    }
    values
}

fn pack_codes<K: Kernel>(
    layout: Layout,
    offset: u8,
    read: impl Fn(usize, &mut [u16]) + Send + Sync,
) -> Result<Aligned<u8>> {
    let panels = layout.columns.div_ceil(K::COLUMNS);
    let panel_bytes = layout.blocks() * layout.block_bytes(K::COLUMNS);
    let mut bytes = Aligned::zeros("packed weights", panels * panel_bytes)?;
    if panel_bytes == 0 {
        return Ok(bytes);
    }
    over_pieces(bytes.as_mut_slice(), panel_bytes, |start, bytes| {
        let first = start / panel_bytes * K::COLUMNS;
        // The codes of the panel's columns, every group filled up with distances of 0.
        let (mut row, width) = (vec![0_u16; layout.depth], layout.padded_depth());
        let mut codes = vec![offset; K::COLUMNS * width];
        for (column, codes) in codes.chunks_exact_mut(width).enumerate() {
            if first + column >= layout.columns {
                break;
            }
            read(first + column, &mut row);
            for group in layout.all_groups() {
                let from = &row[group.start..group.start + group.len];
                for (to, &code) in codes[group.block * BLOCK..].iter_mut().zip(from) {
                    *to = code.to_le_bytes()[0] ^ offset;
                }
            }
        }
        let vector_bytes = layout.block_bytes(K::LANES);
        let vectors = K::COLUMNS / K::LANES;
        for (index, out) in bytes.chunks_exact_mut(vector_bytes).enumerate() {
            let (block, vector) = (index / vectors, index % vectors);
            write_block(layout.bits, K::LANES, out, |lane, depth| {
                codes[(vector * K::LANES + lane) * width + block * BLOCK + depth]
            });
        }
    });
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use ndarray::Array2;

    use super::*;
    use crate::{
        kernel::arch::portable::Portable,
        scheme::{Scheme, SchemeBuilder},
    };

    fn pack(builder: SchemeBuilder, zero: &[f32]) -> Weights<Portable> {
        let scheme = builder.build().unwrap();
        let affine = Affine::new(scheme, &[zero.len()], vec![1.0; zero.len()], zero.to_vec());
        let codes = Array2::from_elem((zero.len(), 4), scheme.quant_max());
        let tensor = QTensor::from_codes(&codes, &affine.unwrap()).unwrap();
        Weights::pack(Portable, &tensor).unwrap()
    }

    #[test]
    fn the_reach_is_that_of_the_column_whose_codes_reach_farthest() {
        let reach = |builder, zero: &[f32]| pack(builder, zero).reach();
        assert_eq!(reach(Scheme::int(8).per_axis(0), &[0.0; 3]), Some(128));
        let bits = |bits| Scheme::int(bits).asymmetric().per_axis(0);
        assert_eq!(reach(bits(8), &[0.0, 20.0, -10.0]), Some(148));
        assert_eq!(reach(bits(8), &[0.0, -100.0, 1.0]), Some(227));
        assert_eq!(reach(bits(4), &[7.0]), Some(15));
        assert_eq!(reach(bits(4), &[-8.0]), Some(15));
        assert_eq!(reach(bits(1), &[0.0, -1.0]), Some(1));
        let real = Scheme::int(4).asymmetric_float().per_axis(0);
        assert_eq!(reach(real, &[0.5]), None);
    }
}
