//! Tensors from floats and from codes.

use std::sync::atomic::{AtomicBool, Ordering};

use ndarray::{ArrayRef, Dimension};

use super::{
    QTensor,
    stored::{StoredScales, StoredZeroPoints},
};
use crate::{
    affine::{Affine, Fill, Mapped, Quantize, fill_block},
    codes::{PackedCodes, pack},
    element::{BLOCK, Code, Element},
    error::{Error, Result},
    groups::{Groups, Span},
    parallel::{PIECE, over_pieces},
    simd::{Loops, prefetch, wide},
};

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
            (16, true) => Self::quantize_to::<A, i16, D>(x, affine),
            (16, false) => Self::quantize_to::<A, u16, D>(x, affine),
            (_, true) => Self::quantize_to::<A, i8, D>(x, affine),
            (_, false) => Self::quantize_to::<A, u8, D>(x, affine),
        }
    }

    /// [`quantize`](Self::quantize) by way of codes of a type, a block of them at a time.
    fn quantize_to<A: Element, C: Code, D: Dimension>(
        x: &ArrayRef<A, D>,
        affine: &Affine,
    ) -> Result<Self> {
        let groups = affine.groups(x.shape())?;
        let standard = x.as_standard_layout();
        let quantize = Quantize::of(affine);
        let codes = Mapped {
            start: 0,
            input: standard.as_slice().unwrap_or_default(),
            map: &quantize,
        };
        let (packed, _) = pack_all::<C>(affine, &groups, &codes)?;
        quantize.found_no_nan(&groups)?;
        Self::of_packed(packed, affine, x.shape())
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
        let groups = affine.groups(codes.shape())?;
        let standard = codes.as_standard_layout();
        let codes = Given(standard.as_slice().unwrap_or_default());
        let (packed, valid) = pack_all(affine, &groups, &codes)?;
        if !valid {
            let (min, max) = (affine.scheme().quant_min(), affine.scheme().quant_max());
            let is_bad = |code: &&C| !(min..=max).contains(&(**code).into());
            let index = codes.0.iter().position(|code| is_bad(&code)).unwrap_or(0);
            return Err(Error::InvalidCode {
                index,
                min,
                max,
                got: codes.0[index].into(),
            });
        }
        Self::of_packed(packed, affine, standard.shape())
    }

    fn of_packed(codes: PackedCodes, affine: &Affine, shape: &[usize]) -> Result<Self> {
        let scheme = *affine.scheme();
        Ok(Self {
            shape: shape.to_vec(),
            scheme,
            parameter_shape: affine.shape().to_vec(),
            scale: StoredScales::new(scheme.scale_kind(), affine.scale()),
            zero_point: StoredZeroPoints::new(&scheme, affine.zero_point())?,
            codes,
        })
    }
}

/// Codes that are there.
struct Given<'a, C>(&'a [C]);

impl<C: Code> Fill<C> for Given<'_, C> {
    #[inline(always)]
    fn fill(&self, span: &Span, codes: &mut [C]) {
        let given = &self.0[span.start..span.start + span.len];
        prefetch(given);
        codes.copy_from_slice(given);
    }
}

/// The codes of a tensor packed, and whether all are codes of the format.
fn pack_all<C: Code>(
    affine: &Affine,
    groups: &Groups,
    codes: &impl Fill<C>,
) -> Result<(PackedCodes, bool)> {
    let scheme = affine.scheme();
    let bits = scheme.bits();
    let mut packed = PackedCodes::zeros(bits, groups.len())?;
    let valid = AtomicBool::new(true);
    over_pieces(
        packed.bytes_mut(),
        PIECE / 8 * bits as usize,
        |at, bytes| {
            let start = at / bits as usize * 8;
            let all_codes = wide(Pack {
                start,
                end: groups.len().min(start + PIECE),
                groups,
                codes,
                range: (scheme.quant_min(), scheme.quant_max()),
                bits,
                bytes,
                code: std::marker::PhantomData::<C>,
            });
            if !all_codes {
                valid.store(false, Ordering::Relaxed);
            }
        },
    );
    Ok((packed, valid.into_inner()))
}

/// The codes from `start` to `end`, to be packed; says whether all are codes.
struct Pack<'a, C, F> {
    start: usize,
    end: usize,
    groups: &'a Groups,
    codes: &'a F,
    range: (i32, i32),
    bits: u32,
    bytes: &'a mut [u8],
    code: std::marker::PhantomData<C>,
}

impl<C: Code, F: Fill<C>> Loops for Pack<'_, C, F> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        let (min, max) = self.range;
        let mut spans = self.groups.spans(self.start..self.end);
        let mut buffer = [C::default(); BLOCK];
        let mut left = self.end - self.start;
        let mut valid = true;
        for bytes in self.bytes.chunks_mut(BLOCK / 8 * self.bits as usize) {
            let codes = &mut buffer[..BLOCK.min(left)];
            fill_block(&mut spans, self.codes, codes);
            let among = |code: i32| (min <= code) & (code <= max);
            valid &= codes
                .iter()
                .fold(true, |all, &code| all & among(code.into()));
            pack(bytes, self.bits, codes, min);
            left -= codes.len();
        }
        valid
    }
}
