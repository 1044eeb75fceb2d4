//! Quantized tensors: packed codes, parameters, scheme and shape in one value.

mod rows;
mod stored;

use ndarray::{ArrayD, ArrayRef, Dimension};

use crate::{
    affine::{
        Affine, Fill, fill_blocks, fits,
        loops::{self, SpanParameters},
        quantize, same_shape,
        scalar::Rule,
    },
    codes::{PackedCodes, write_stream},
    element::{BLOCK, Code, Element},
    error::{Error, Result},
    groups::{Groups, Span},
    parallel::{PIECE, over_pieces},
    scheme::{Granularity, Scheme},
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
    /// Quantizes a tensor of any layout with parameters that are there already.
    ///
    /// # Errors
    /// Those of [`quantize`](crate::quantize).
    ///
    /// ```
    /// use lowbit::{Affine, QTensor, Scheme};
    /// use ndarray::array;
    /// let x = array![[0.3_f32, -1.27], [0.0, 1.0]];
    /// let affine = Affine::of(&Scheme::int(8).build()?, &x)?;
    /// let tensor = QTensor::quantize(&x, &affine)?;
    /// assert_eq!(tensor.codes::<i8>()?, array![[30, -127], [0, 100]].into_dyn());
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn quantize<A: Element, D: Dimension>(x: &ArrayRef<A, D>, affine: &Affine) -> Result<Self> {
        let signed = affine.scheme().quant_min() < 0;
        match (affine.scheme().bits(), signed) {
            (16, true) => Self::from_codes(&quantize::<A, i16, D>(x, affine)?, affine),
            (16, false) => Self::from_codes(&quantize::<A, u16, D>(x, affine)?, affine),
            (_, true) => Self::from_codes(&quantize::<A, i8, D>(x, affine)?, affine),
            (_, false) => Self::from_codes(&quantize::<A, u8, D>(x, affine)?, affine),
        }
    }

    /// Packs codes of any layout.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] or [`Error::NoSuchAxis`] if the tensor has other parameters;
    /// [`Error::InvalidCode`] for a code that the format does not have.
    ///
    /// ```
    /// use lowbit::{Affine, Error, QTensor, Scheme};
    /// use ndarray::array;
    ///
    /// let affine = Affine::per_tensor(Scheme::int(3).build()?, 0.5, 0.0)?;
    /// let tensor = QTensor::from_codes(&array![[-4_i8, 3], [0, 1]], &affine)?;
    /// assert_eq!(tensor.packed().bytes().len(), 2); // four codes of 3 bits
    /// assert_eq!(tensor.dequantize::<f32>(), array![[-2.0, 1.5], [0.0, 0.5]].into_dyn());
    ///
    /// let refused = QTensor::from_codes(&array![4_i8], &affine);
    /// assert!(matches!(refused, Err(Error::InvalidCode { index: 0, got: 4, .. })));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn from_codes<C: Code, D: Dimension>(
        codes: &ArrayRef<C, D>,
        affine: &Affine,
    ) -> Result<Self> {
        affine.groups(codes.shape())?;
        let scheme = affine.scheme();
        let (min, max) = (scheme.quant_min(), scheme.quant_max());
        let is_code = |&code: &C| (min..=max).contains(&code.into());
        if let Some((index, &code)) = codes.iter().enumerate().find(|(_, code)| !is_code(code)) {
            return Err(Error::InvalidCode {
                index,
                min,
                max,
                got: code.into(),
            });
        }
        let mut packed = PackedCodes::zeros(scheme.bits(), codes.len())?;
        let standard = codes.as_standard_layout();
        let codes: &[C] = standard.as_slice().unwrap_or_default();
        over_pieces(
            packed.bytes_mut(),
            PIECE / 8 * scheme.bits() as usize,
            |at, bytes| {
                let start = at / scheme.bits() as usize * 8;
                let end = codes.len().min(start + PIECE);
                pack(&codes[start..end], min, scheme.bits(), bytes);
            },
        );
        Ok(Self {
            shape: standard.shape().to_vec(),
            scheme: *scheme,
            parameter_shape: affine.shape().to_vec(),
            scale: StoredScales::new(scheme.scale_kind(), affine.scale()),
            zero_point: StoredZeroPoints::new(scheme, affine.zero_point())?,
            codes: packed,
        })
    }

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

    /// The codes, one a value.
    ///
    /// # Errors
    /// [`Error::CodeType`] if `C` does not hold the codes of the format.
    pub fn codes<C: Code>(&self) -> Result<ArrayD<C>> {
        fits::<C>(&self.scheme)?;
        let mut codes = ArrayD::default(self.shape.as_slice());
        let bytes = self.codes.bytes().len() + size_of::<C>() * self.len();
        let groups = Groups::new(&self.shape, Granularity::PerTensor)?;
        fill_blocks(&mut codes, bytes, &groups, &Unpack(self));
        Ok(codes)
    }

    /// The tensor in floats.
    #[must_use]
    pub fn dequantize<A: Element>(&self) -> ArrayD<A> {
        let mut x = ArrayD::default(self.shape.as_slice());
        self.write_floats(&mut x);
        x
    }

    /// The tensor in floats, into an array that is there already, of any layout.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the array has another shape.
    ///
    /// ```
    /// use lowbit::{Affine, QTensor, Scheme};
    /// use ndarray::{Array2, array};
    /// let affine = Affine::per_tensor(Scheme::int(4).build()?, 0.5, 0.0)?;
    /// let tensor = QTensor::quantize(&array![[1.6_f32, -9.0]], &affine)?;
    /// let mut x = Array2::<f64>::zeros((1, 2));
    /// tensor.dequantize_into(&mut x)?;
    /// assert_eq!(x, array![[1.5, -4.0]]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn dequantize_into<A: Element, D: Dimension>(&self, x: &mut ArrayRef<A, D>) -> Result<()> {
        same_shape("output", &self.shape, x.shape())?;
        self.write_floats(x);
        Ok(())
    }

    fn write_floats<A: Element, D: Dimension>(&self, x: &mut ArrayRef<A, D>) {
        let affine = self.affine();
        let rule = Rule::<A::Real>::of(&self.scheme);
        let Ok(groups) = affine.groups(&self.shape) else {
            return;
        };
        let bytes = self.codes.bytes().len() + size_of::<A>() * self.len();
        let unpack = Dequantize {
            tensor: self,
            affine: &affine,
            rule,
        };
        fill_blocks(x, bytes, &groups, &unpack);
    }

    /// Calls `work(at, codes)` with the codes from `start + at` on, a few hundred at a time.
    fn for_codes(&self, start: usize, len: usize, mut work: impl FnMut(usize, &[i32])) {
        const BUFFER: usize = 512;
        let least = self.scheme.quant_min();
        let (mut distances, mut codes) = ([0_u16; BUFFER], [0_i32; BUFFER]);
        let mut at = 0;
        while at < len {
            let size = BUFFER.min(len - at);
            self.codes.read(start + at, &mut distances[..size]);
            for (code, &distance) in codes.iter_mut().zip(&distances[..size]) {
                *code = i32::from(distance) + least;
            }
            work(at, &codes[..size]);
            at += size;
        }
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

struct Unpack<'a>(&'a QTensor);

impl<C: Code> Fill<C> for Unpack<'_> {
    #[inline(always)]
    fn fill(&self, span: &Span, codes: &mut [C]) {
        self.0.for_codes(span.start, codes.len(), |at, piece| {
            for (code, &wide) in codes[at..].iter_mut().zip(piece) {
                *code = C::truncate(wide);
            }
        });
    }
}

struct Dequantize<'a, A: Element> {
    tensor: &'a QTensor,
    affine: &'a Affine,
    rule: Rule<A::Real>,
}

impl<A: Element> Fill<A> for Dequantize<'_, A> {
    #[inline(always)]
    fn fill(&self, span: &Span, x: &mut [A]) {
        let parameters = SpanParameters::of(self.affine, span);
        let mut buffer = [A::Real::default(); BLOCK];
        let reals = A::wide(x, &mut buffer);
        self.tensor.for_codes(span.start, reals.len(), |_, codes| {
            loops::dequantize(codes, reals, parameters, self.rule);
        });
        A::narrow(x, &buffer);
    }
}

/// Packs a multiple of 8 codes, or the last ones, as distances from the least code.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a code's distance from the least one is between 0 and 2^16 − 1"
)]
fn pack<C: Code>(codes: &[C], least: i32, bits: u32, bytes: &mut [u8]) {
    const BUFFER: usize = 512;
    let mut distances = [0_u16; BUFFER];
    let piece_bytes = BUFFER / 8 * bits as usize;
    for (codes, bytes) in codes.chunks(BUFFER).zip(bytes.chunks_mut(piece_bytes)) {
        for (distance, &code) in distances.iter_mut().zip(codes) {
            *distance = (code.into() - least) as u16;
        }
        write_stream(bytes, bits, &distances[..codes.len()]);
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
        tensor.for_codes(0, tensor.len(), |at, codes| {
            let found = codes.iter().position(|&code| code > max);
            bad = bad.or(found.map(|index| (at + index, codes[index])));
        });
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
