//! Scales and zero points in the types that the scheme stores them in.

use half::f16;

use crate::{
    codes::PackedCodes,
    error::Result,
    scheme::{Mapping, ScaleKind, Scheme},
};

/// Scales as they are stored; each kind holds those of [`ScaleKind`] exactly.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum StoredScales {
    F32(Vec<f32>),
    /// Bit patterns of 16-bit floats.
    F16(Vec<u16>),
    /// Biased exponents of f32.
    PowerOfTwo(Vec<u8>),
}

impl StoredScales {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a positive float's exponent has 8 bits"
    )]
    pub(super) fn new(kind: ScaleKind, scale: &[f32]) -> Self {
        match kind {
            ScaleKind::F32 => Self::F32(scale.to_vec()),
            ScaleKind::F16 => {
                Self::F16(scale.iter().map(|&s| f16::from_f32(s).to_bits()).collect())
            }
            ScaleKind::PowerOfTwo => {
                Self::PowerOfTwo(scale.iter().map(|&s| (s.to_bits() >> 23) as u8).collect())
            }
        }
    }

    pub(super) fn to_f32(&self) -> Vec<f32> {
        match self {
            Self::F32(scale) => scale.clone(),
            Self::F16(scale) => scale.iter().map(|&s| f16::from_bits(s).to_f32()).collect(),
            Self::PowerOfTwo(scale) => scale
                .iter()
                .map(|&exponent| f32::from_bits(u32::from(exponent) << 23))
                .collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::F32(scale) => scale.len(),
            Self::F16(scale) => scale.len(),
            Self::PowerOfTwo(scale) => scale.len(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::F32(scale) => 4 * scale.len(),
            Self::F16(scale) => 2 * scale.len(),
            Self::PowerOfTwo(scale) => scale.len(),
        }
    }

    pub(super) fn slice(&self, parameters: std::ops::Range<usize>) -> Self {
        match self {
            Self::F32(scale) => Self::F32(scale[parameters].to_vec()),
            Self::F16(scale) => Self::F16(scale[parameters].to_vec()),
            Self::PowerOfTwo(scale) => Self::PowerOfTwo(scale[parameters].to_vec()),
        }
    }

    #[cfg(feature = "serde")]
    pub(super) fn check(&self, kind: ScaleKind) -> Result<()> {
        let got = match self {
            Self::F32(_) => ScaleKind::F32,
            Self::F16(_) => ScaleKind::F16,
            Self::PowerOfTwo(_) => ScaleKind::PowerOfTwo,
        };
        if got == kind {
            return Ok(());
        }
        Err(crate::error::Error::Mismatch {
            what: "stored scales",
            expected: format!("{kind:?}"),
            got: format!("{got:?}"),
        })
    }
}

/// Zero points as they are stored.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(super) enum StoredZeroPoints {
    /// Those of a symmetric scheme, which are its middle code.
    Middle,
    /// Codes, packed as those of the tensor are.
    Integer(PackedCodes),
    /// Real numbers.
    Float(Vec<f32>),
}

impl StoredZeroPoints {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "checked to be codes when the parameters were built"
    )]
    pub(super) fn new(scheme: &Scheme, zero_point: &[f32]) -> Result<Self> {
        match scheme.mapping() {
            Mapping::Symmetric | Mapping::SymmetricHalfRange => Ok(Self::Middle),
            Mapping::AsymmetricFloat => Ok(Self::Float(zero_point.to_vec())),
            Mapping::Asymmetric => {
                let least = scheme.quant_min() as f32;
                let distances: Vec<u16> = zero_point.iter().map(|&z| (z - least) as u16).collect();
                let mut packed = PackedCodes::zeros(scheme.bits(), distances.len())?;
                packed.write(0, &distances);
                Ok(Self::Integer(packed))
            }
        }
    }

    /// The zero points of `len` parameters.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub(super) fn to_f32(&self, scheme: &Scheme, len: usize) -> Vec<f32> {
        match self {
            Self::Middle => vec![scheme.middle() as f32; len],
            Self::Float(zero_point) => zero_point.clone(),
            Self::Integer(packed) => {
                let mut distances = vec![0; packed.len()];
                packed.read(0, &mut distances);
                distances
                    .into_iter()
                    .map(|distance| (i32::from(distance) + scheme.quant_min()) as f32)
                    .collect()
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Middle => 0,
            Self::Integer(packed) => packed.bytes().len(),
            Self::Float(zero_point) => 4 * zero_point.len(),
        }
    }

    pub(super) fn slice(&self, parameters: std::ops::Range<usize>) -> Result<Self> {
        Ok(match self {
            Self::Middle => Self::Middle,
            Self::Integer(packed) => Self::Integer(packed.slice(parameters.start, parameters.end)?),
            Self::Float(zero_point) => Self::Float(zero_point[parameters].to_vec()),
        })
    }

    #[cfg(feature = "serde")]
    pub(super) fn check(&self, scheme: &Scheme, len: usize) -> Result<()> {
        let matches = match (self, scheme.mapping()) {
            (Self::Middle, mapping) => mapping.is_symmetric(),
            (Self::Integer(packed), Mapping::Asymmetric) => {
                packed.len() == len && packed.bits() == scheme.bits()
            }
            (Self::Float(zero_point), Mapping::AsymmetricFloat) => zero_point.len() == len,
            _ => false,
        };
        if matches {
            return Ok(());
        }
        Err(crate::error::Error::Mismatch {
            what: "stored zero points",
            expected: format!("{len} of {:?}", scheme.mapping()),
            got: format!("{self:?}").chars().take(80).collect(),
        })
    }
}
