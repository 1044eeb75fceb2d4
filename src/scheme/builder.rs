//! Building schemes, and refusing those that cannot be.

use super::{FloatFormat, Format, Granularity, IntFormat, Mapping, ScaleKind, Scheme};
use crate::error::{Error, Result};

/// A scheme being described; [`build`](Self::build) checks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use = "a builder does nothing until `build`"]
pub struct SchemeBuilder {
    format: Draft,
    mapping: Mapping,
    granularity: Granularity,
    scale_kind: ScaleKind,
}

/// A number format not yet checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
enum Draft {
    Int {
        bits: u32,
        signed: bool,
        narrow: bool,
    },
    Float(FloatFormat),
}

impl SchemeBuilder {
    /// See [`Scheme::int`].
    pub(super) fn int(bits: u32) -> Self {
        Self {
            format: Draft::Int {
                bits,
                signed: true,
                narrow: false,
            },
            mapping: Mapping::Symmetric,
            granularity: Granularity::PerTensor,
            scale_kind: ScaleKind::F32,
        }
    }

    /// See [`Scheme::float`].
    pub(super) fn float(format: FloatFormat) -> Self {
        Self {
            format: Draft::Float(format),
            ..Self::int(8)
        }
    }

    fn integer(mut self, change: impl FnOnce(&mut bool, &mut bool)) -> Self {
        if let Draft::Int { signed, narrow, .. } = &mut self.format {
            change(signed, narrow);
        }
        self
    }

    /// Other bits, 1 to 8 or 16. No effect on small floats.
    ///
    /// ```
    /// use lowbit::{Scheme, SchemeBuilder};
    /// let scheme = Scheme::int(3).narrow_range().per_group(32).build()?;
    /// let wider = SchemeBuilder::from(scheme).bits(8).build()?;
    /// assert_eq!((wider.quant_min(), wider.quant_max()), (-127, 127));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn bits(mut self, bits: u32) -> Self {
        if let Draft::Int { bits: old, .. } = &mut self.format {
            *old = bits;
        }
        self
    }

    /// Codes from `−2^(b−1)`: the default. Small floats are always signed.
    pub fn signed(self) -> Self {
        self.integer(|signed, _| *signed = true)
    }

    /// Codes from 0. No effect on small floats.
    pub fn unsigned(self) -> Self {
        self.integer(|signed, _| *signed = false)
    }

    /// All `2^b` codes: the default.
    pub fn full_range(self) -> Self {
        self.integer(|_, narrow| *narrow = false)
    }

    /// One code less, so that the codes lie evenly about the middle: `−127..=127`, or `1..=255`
    /// where unsigned.
    pub fn narrow_range(self) -> Self {
        self.integer(|_, narrow| *narrow = true)
    }

    /// The zero point fixed at the middle code: the default.
    pub fn symmetric(mut self) -> Self {
        self.mapping = Mapping::Symmetric;
        self
    }

    /// An integer zero point; ranges contain 0.
    pub fn asymmetric(mut self) -> Self {
        self.mapping = Mapping::Asymmetric;
        self
    }

    /// A real zero point; ranges as they are.
    pub fn asymmetric_float(mut self) -> Self {
        self.mapping = Mapping::AsymmetricFloat;
        self
    }

    /// Any mapping, as a value.
    pub fn mapping(mut self, mapping: Mapping) -> Self {
        self.mapping = mapping;
        self
    }

    /// One scale for the whole tensor: the default.
    pub fn per_tensor(self) -> Self {
        self.granularity(Granularity::PerTensor)
    }

    /// A scale for each index along `axis` ("per channel": axis 0 of a weight `[out, in]`).
    pub fn per_axis(self, axis: usize) -> Self {
        self.granularity(Granularity::PerAxis(axis))
    }

    /// A scale for each `size` elements along the last axis; the last group may be shorter.
    pub fn per_group(self, size: usize) -> Self {
        self.granularity(Granularity::PerGroup(size))
    }

    /// A scale for each block of `rows × columns` of the last two axes.
    pub fn per_block(self, rows: usize, columns: usize) -> Self {
        self.granularity(Granularity::PerBlock { rows, columns })
    }

    /// A scale for each row along the last axis, chosen at run time ("per token", dynamic).
    pub fn per_row(self) -> Self {
        self.granularity(Granularity::PerRow)
    }

    /// Any granularity, as a value.
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// The storage type of scales; the default is [`ScaleKind::F32`].
    pub fn scale_kind(mut self, scale_kind: ScaleKind) -> Self {
        self.scale_kind = scale_kind;
        self
    }

    /// The scheme.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for bits other than 1 to 8 and 16, a narrow range of 1 bit (which
    /// has one code), a symmetric scheme of 1 bit (which has no code on one side of the middle),
    /// small floats with a zero point, and groups or blocks of size 0.
    pub fn build(self) -> Result<Scheme> {
        let format = match self.format {
            Draft::Int {
                bits,
                signed,
                narrow,
            } => Format::Int(IntFormat::new(bits, signed, narrow)?),
            Draft::Float(float) => Format::Float(float),
        };
        match format {
            Format::Int(int) if int.bits() == 1 && self.mapping.is_symmetric() => {
                return Err(Error::option(
                    "mapping of 1-bit codes",
                    "asymmetric (integer or float zero point)",
                    "symmetric, which leaves no code above the middle",
                ));
            }
            Format::Float(_) if self.mapping != Mapping::Symmetric => {
                return Err(Error::option(
                    "mapping of small floats",
                    "Symmetric",
                    format!("{:?}", self.mapping),
                ));
            }
            _ => {}
        }
        self.granularity.validate()?;
        Ok(Scheme {
            format,
            mapping: self.mapping,
            granularity: self.granularity,
            scale_kind: self.scale_kind,
        })
    }
}

impl TryFrom<SchemeBuilder> for Scheme {
    type Error = Error;

    fn try_from(builder: SchemeBuilder) -> Result<Self> {
        builder.build()
    }
}

impl From<Scheme> for SchemeBuilder {
    fn from(scheme: Scheme) -> Self {
        Self {
            format: match scheme.format {
                Format::Int(int) => Draft::Int {
                    bits: int.bits(),
                    signed: int.is_signed(),
                    narrow: int.is_narrow(),
                },
                Format::Float(float) => Draft::Float(float),
            },
            mapping: scheme.mapping,
            granularity: scheme.granularity,
            scale_kind: scheme.scale_kind,
        }
    }
}
