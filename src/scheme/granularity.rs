//! Which elements of a tensor share a scale and a zero point.

use crate::error::{Error, Result};

/// Which elements of a tensor share a scale and a zero point.
///
/// | granularity | tensor | parameters |
/// |---|---|---|
/// | `PerTensor` | `[a, b, c]` | `[]` |
/// | `PerAxis(1)` | `[a, b, c]` | `[b]` |
/// | `PerGroup(g)` | `[a, b, c]` | `[a, b, ⌈c/g⌉]` |
/// | `PerGroupAlong { axis: 1, size: g }` | `[a, b, c]` | `[a, ⌈b/g⌉, c]` |
/// | `PerBlock { rows: r, columns: q }` | `[a, b, c]` | `[a, ⌈b/r⌉, ⌈c/q⌉]` |
/// | `PerRow` | `[a, b, c]` | `[a, b]` |
///
/// Groups and blocks at the end of an axis may be shorter than the others.
///
/// ```
/// use lowbit::{Granularity, Groups};
/// let blocks = Granularity::PerBlock { rows: 2, columns: 4 };
/// assert_eq!(Groups::new(&[3, 5, 9], blocks)?.parameter_shape(), [3, 3, 3]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Granularity {
    /// One for the whole tensor.
    PerTensor,
    /// One for each index along an axis.
    PerAxis(usize),
    /// One for each run of this many elements along the last axis.
    PerGroup(usize),
    /// One for each run of `size` elements along `axis`, as ONNX's blocked quantization has it.
    PerGroupAlong {
        /// The axis that is cut into groups.
        axis: usize,
        /// Elements in a group.
        size: usize,
    },
    /// One for each block of the last two axes.
    PerBlock {
        /// Rows of a block.
        rows: usize,
        /// Columns of a block.
        columns: usize,
    },
    /// One for each row along the last axis; where data choose the range at run time, this is
    /// "per token".
    PerRow,
}

impl Granularity {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Self::PerGroup(0) | Self::PerGroupAlong { size: 0, .. } => {
                Err(Error::option("group size", "at least 1", 0))
            }
            Self::PerBlock { rows, columns } if rows == 0 || columns == 0 => Err(Error::option(
                "block",
                "at least 1 row and 1 column",
                format!("{rows} rows and {columns} columns"),
            )),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Granularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::PerTensor => write!(f, "per tensor"),
            Self::PerAxis(axis) => write!(f, "per axis {axis}"),
            Self::PerGroup(size) => write!(f, "per group of {size}"),
            Self::PerGroupAlong { axis, size } => {
                write!(f, "per group of {size} along axis {axis}")
            }
            Self::PerBlock { rows, columns } => write!(f, "per block of {rows}×{columns}"),
            Self::PerRow => write!(f, "per row"),
        }
    }
}
