//! Codes and floats from tensors.

use ndarray::{ArrayD, ArrayRef, Dimension};

use super::QTensor;
use crate::{
    affine::{
        Affine, Fill, fill_blocks, fits,
        loops::{self, SpanParameters},
        same_shape,
        scalar::Rule,
    },
    element::{BLOCK, Code, Element},
    error::Result,
    groups::{Groups, Span},
    scheme::Granularity,
    simd::NOTHING,
};

impl QTensor {
    /// The codes, one a value.
    ///
    /// # Errors
    /// [`Error::CodeType`](crate::Error::CodeType) if `C` does not hold the codes of the format.
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
    /// [`Error::ShapeMismatch`](crate::Error::ShapeMismatch) if the array has another shape.
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
}

struct Unpack<'a>(&'a QTensor);

impl<C: Code> Fill<C> for Unpack<'_> {
    #[inline(always)]
    fn fill(&self, span: &Span, codes: &mut [C]) {
        let QTensor {
            scheme,
            codes: packed,
            ..
        } = self.0;
        packed.unpack(span.start, codes, scheme.quant_min());
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
        let QTensor { scheme, codes, .. } = self.tensor;
        let parameters = SpanParameters::of(self.affine, span);
        let mut buffer = [A::Real::default(); BLOCK];
        let reals = A::wide(x, &mut buffer);
        let least = scheme.quant_min();
        if scheme.bits() == 16 {
            let mut words = [0; BLOCK];
            let words = &mut words[..reals.len()];
            codes.read(span.start, words);
            loops::dequantize(words, least, reals, parameters, self.rule, NOTHING);
        } else {
            let mut octets = [0; BLOCK + 8];
            let octets = codes.octets(span.start, reals.len(), &mut octets);
            loops::dequantize(octets, least, reals, parameters, self.rule, NOTHING);
        }
        A::narrow(x, &buffer);
    }
}
