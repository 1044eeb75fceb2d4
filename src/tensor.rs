//! Quantized tensors: packed codes, parameters, scheme and shape in one value.

mod packing;
mod rows;
mod stored;
mod unpacking;

use crate::{affine::Affine, codes::PackedCodes, scheme::Scheme};
#[cfg(feature = "serde")]
use crate::{
    element::BLOCK,
    error::{Error, Result},
};
use stored::{StoredScales, StoredZeroPoints};

/// A tensor of codes, packed densely, with what is needed to read them.
///
/// Codes of `b` bits take `b / 8` bytes an element; scales take the bytes of the scheme's
/// [`ScaleKind`](crate::ScaleKind), integer zero points the bits of a code, and those of symmetric
/// schemes nothing.
///
/// ```
/// use lowbit::{Affine, QTensor, Scheme};
/// use ndarray::array;
///
/// let scheme = Scheme::int(4).per_axis(0).build()?;
/// let affine = Affine::symmetric(scheme, &[2], vec![0.5, 0.25])?;
/// let tensor = QTensor::quantize(&array![[1.0_f32, -2.0, 0.1], [0.5, 1.0, 0.3]], &affine)?;
/// assert_eq!(tensor.memory_bytes(), 3 + 2 * 4); // six 4-bit codes and two f32 scales
/// assert_eq!(
///     tensor.dequantize::<f32>(),
///     array![[1.0, -2.0, 0.0], [0.5, 1.0, 0.25]].into_dyn()
/// );
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct QTensor {
    shape: Vec<usize>,
    scheme: Scheme,
    parameter_shape: Vec<usize>,
    scale: StoredScales,
    zero_point: StoredZeroPoints,
    codes: PackedCodes,
}

impl QTensor {
    /// The shape.
    #[must_use]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.codes.len()
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The parameters.
    #[must_use]
    pub fn affine(&self) -> Affine {
        Affine::trusted(
            self.scheme,
            &self.parameter_shape,
            self.scale.to_f32(),
            self.zero_point.to_f32(&self.scheme, self.scale.len()),
        )
    }

    /// The codes as they are packed: distances from the least code of the format.
    #[must_use]
    pub fn packed(&self) -> &PackedCodes {
        &self.codes
    }

    /// Bytes that codes, scales and zero points take, exactly.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.codes.bytes().len() + self.scale.bytes() + self.zero_point.bytes()
    }

    /// Bits an element, scales and zero points included; 0 for an empty tensor.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio for people to read")]
    pub fn effective_bits(&self) -> f64 {
        if self.is_empty() {
            return 0.0;
        }
        8.0 * self.memory_bytes() as f64 / self.len() as f64
    }
}

impl std::fmt::Debug for QTensor {
    /// Shape, scheme and size, not the codes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QTensor")
            .field("shape", &self.shape)
            .field("scheme", &format_args!("{}", self.scheme))
            .field("parameters", &self.scale.len())
            .field("memory_bytes", &self.memory_bytes())
            .finish_non_exhaustive()
    }
}

/// What a stored tensor says of itself, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "QTensor")]
struct Unchecked {
    shape: Vec<usize>,
    scheme: Scheme,
    parameter_shape: Vec<usize>,
    scale: StoredScales,
    zero_point: StoredZeroPoints,
    codes: PackedCodes,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for QTensor {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let scheme = stored.scheme;
        stored.scale.check(scheme.scale_kind())?;
        stored.zero_point.check(&scheme, stored.scale.len())?;
        let affine = Affine::new(
            scheme,
            &stored.parameter_shape,
            stored.scale.to_f32(),
            stored.zero_point.to_f32(&scheme, stored.scale.len()),
        )?;
        let groups = affine.groups(&stored.shape)?;
        if stored.codes.len() != groups.len() || stored.codes.bits() != scheme.bits() {
            return Err(Error::Mismatch {
                what: "packed codes",
                expected: format!("{} codes of {} bits", groups.len(), scheme.bits()),
                got: format!(
                    "{} codes of {} bits",
                    stored.codes.len(),
                    stored.codes.bits()
                ),
            });
        }
        let tensor = Self {
            shape: stored.shape,
            scheme,
            parameter_shape: stored.parameter_shape,
            scale: stored.scale,
            zero_point: stored.zero_point,
            codes: stored.codes,
        };
        // A narrow range leaves one pattern without a meaning.
        let (min, max) = (scheme.quant_min(), scheme.quant_max());
        let mut bad = None;
        let mut buffer = [0_i32; BLOCK];
        for start in (0..tensor.len()).step_by(BLOCK) {
            let codes = &mut buffer[..BLOCK.min(tensor.len() - start)];
            tensor.codes.unpack(start, codes, min);
            let found = codes.iter().position(|&code| code > max);
            bad = bad.or(found.map(|index| (start + index, codes[index])));
        }
        match bad {
            None => Ok(tensor),
            Some((index, got)) => Err(Error::InvalidCode {
                index,
                min,
                max,
                got,
            }),
        }
    }
}
