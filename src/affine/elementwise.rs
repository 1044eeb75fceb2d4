//! Quantize, dequantize and fake-quantize arrays of any layout and dimension.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array, ArrayRef, Dimension};
use num_traits::Float;

use super::{
    Affine,
    blocks::{Map, map_blocks},
    loops::{self, SpanParameters},
    scalar::Rule,
};
use crate::{
    element::{BLOCK, Code, Element},
    error::{Error, Result},
    groups::{Groups, Span},
    scheme::Scheme,
    simd::Ahead,
};

/// The codes of a tensor: `saturate(round(x / scale) + zero_point)`, as [`scalar::quantize`] for
/// each element.
///
/// Infinities saturate. The codes lie in row-major order whatever the layout of the input.
///
/// # Errors
/// [`Error::ShapeMismatch`] or [`Error::NoSuchAxis`] if the tensor has other parameters;
/// [`Error::CodeType`] if `C` does not hold the codes; [`Error::NonFinite`] for a NaN.
///
/// [`scalar::quantize`]: super::scalar::quantize
///
/// ```
/// use lowbit::{Affine, Scheme, quantize};
/// use ndarray::array;
///
/// let scheme = Scheme::int(8).asymmetric().build()?;
/// let affine = Affine::per_tensor(scheme, 0.5, 3.0)?;
/// let codes = quantize::<_, i8, _>(&array![[-1.0_f32, 0.0], [0.25, 1e9]], &affine)?;
/// assert_eq!(codes, array![[1, 3], [3, 127]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn quantize<A: Element, C: Code, D: Dimension>(
    x: &ArrayRef<A, D>,
    affine: &Affine,
) -> Result<Array<C, D>> {
    let mut codes = Array::from_elem(x.raw_dim(), C::default());
    quantize_into(x, affine, &mut codes)?;
    Ok(codes)
}

/// [`quantize`] into an array that is there already, of any layout; allocates nothing for tensors
/// of up to four axes.
///
/// # Errors
/// Those of [`quantize`], and [`Error::ShapeMismatch`] if the two shapes differ. After an error the
/// codes are unspecified.
///
/// ```
/// use lowbit::{Affine, Scheme, quantize_into};
/// use ndarray::{Array2, array};
///
/// let affine = Affine::per_tensor(Scheme::int(4).build()?, 1.0, 0.0)?;
/// let mut codes = Array2::<i8>::zeros((2, 1));
/// quantize_into(&array![[2.5_f32], [3.5]], &affine, &mut codes)?;
/// assert_eq!(codes, array![[2], [4]]); // half to even
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn quantize_into<A: Element, C: Code, D: Dimension>(
    x: &ArrayRef<A, D>,
    affine: &Affine,
    codes: &mut ArrayRef<C, D>,
) -> Result<()> {
    let groups = affine.groups(x.shape())?;
    same_shape("codes", x.shape(), codes.shape())?;
    fits::<C>(affine.scheme())?;
    let quantize = Quantize::of(affine);
    map_blocks(x, codes, &groups, &quantize);
    quantize.found_no_nan(&groups)
}

/// The numbers that codes stand for: `(q − zero_point) · scale` for each element, rounded once to
/// the output type.
///
/// Codes outside the format stand for what the formula gives.
///
/// # Errors
/// [`Error::ShapeMismatch`] or [`Error::NoSuchAxis`] if the tensor has other parameters.
///
/// ```
/// use lowbit::{Affine, Scheme, dequantize};
/// use ndarray::array;
///
/// let scheme = Scheme::int(8).per_axis(0).build()?;
/// let affine = Affine::symmetric(scheme, &[2], vec![0.5, 2.0])?;
/// let x = dequantize::<f32, _, _>(&array![[1_i8, -2], [3, 4]], &affine)?;
/// assert_eq!(x, array![[0.5, -1.0], [6.0, 8.0]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn dequantize<A: Element, C: Code, D: Dimension>(
    codes: &ArrayRef<C, D>,
    affine: &Affine,
) -> Result<Array<A, D>> {
    let mut x = Array::from_elem(codes.raw_dim(), A::default());
    dequantize_into(codes, affine, &mut x)?;
    Ok(x)
}

/// [`dequantize`] into an array that is there already, of any layout; allocates nothing for tensors
/// of up to four axes.
///
/// # Errors
/// Those of [`dequantize`], and [`Error::ShapeMismatch`] if the two shapes differ.
///
/// ```
/// use lowbit::{Affine, Scheme, dequantize_into};
/// use ndarray::{Array2, array};
///
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let affine = Affine::per_tensor(scheme, 0.5, 128.0)?;
/// let mut x = Array2::<f32>::zeros((2, 2));
/// dequantize_into(&array![[128_u8, 0], [130, 255]], &affine, &mut x)?;
/// assert_eq!(x, array![[0.0, -64.0], [1.0, 63.5]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn dequantize_into<A: Element, C: Code, D: Dimension>(
    codes: &ArrayRef<C, D>,
    affine: &Affine,
    x: &mut ArrayRef<A, D>,
) -> Result<()> {
    let groups = affine.groups(codes.shape())?;
    same_shape("output", codes.shape(), x.shape())?;
    let rule = Rule::of(affine.scheme());
    map_blocks(codes, x, &groups, &Dequantize::<A> { affine, rule });
    Ok(())
}

/// The tensor moved onto the grid: `dequantize(quantize(x))`, bit for bit, without the codes.
///
/// NaN stays NaN, so that a diverging training is seen; infinities saturate.
///
/// # Errors
/// [`Error::ShapeMismatch`] or [`Error::NoSuchAxis`] if the tensor has other parameters.
///
/// ```
/// use lowbit::{Affine, Scheme, fake_quantize};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(2).build()?, 0.5, 0.0)?;
/// let x = fake_quantize(&array![-9.0_f32, -0.3, 0.3, 9.0], &affine)?;
/// assert_eq!(x, array![-1.0, -0.5, 0.5, 0.5]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn fake_quantize<A: Element, D: Dimension>(
    x: &ArrayRef<A, D>,
    affine: &Affine,
) -> Result<Array<A, D>> {
    let mut out = Array::from_elem(x.raw_dim(), A::default());
    fake_quantize_into(x, affine, &mut out)?;
    Ok(out)
}

/// [`fake_quantize`] into an array that is there already, of any layout; allocates nothing for
/// tensors of up to four axes.
///
/// # Errors
/// Those of [`fake_quantize`], and [`Error::ShapeMismatch`] if the two shapes differ.
///
/// ```
/// use lowbit::{Affine, Scheme, fake_quantize_into};
/// use ndarray::{Array2, array};
///
/// let affine = Affine::symmetric(Scheme::int(3).per_axis(0).build()?, &[2], vec![1.0, 0.25])?;
/// let mut out = Array2::zeros((2, 2));
/// fake_quantize_into(&array![[0.6_f32, 9.0], [0.6, f32::NAN]], &affine, &mut out)?;
/// assert_eq!(out.row(0), array![1.0, 3.0]);
/// assert!(out[[1, 0]] == 0.5 && out[[1, 1]].is_nan());
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn fake_quantize_into<A: Element, D: Dimension>(
    x: &ArrayRef<A, D>,
    affine: &Affine,
    out: &mut ArrayRef<A, D>,
) -> Result<()> {
    let groups = affine.groups(x.shape())?;
    same_shape("output", x.shape(), out.shape())?;
    let rule = Rule::of(affine.scheme());
    map_blocks(x, out, &groups, &FakeQuantize::<A> { affine, rule });
    Ok(())
}

/// Checks that an integer type holds the codes of a scheme.
pub(crate) fn fits<C: Code>(scheme: &Scheme) -> Result<()> {
    let (min, max) = (scheme.quant_min(), scheme.quant_max());
    if C::from_i32(min).is_some() && C::from_i32(max).is_some() {
        Ok(())
    } else {
        Err(Error::CodeType {
            min,
            max,
            got: C::NAME,
        })
    }
}

pub(crate) fn same_shape(what: &'static str, expected: &[usize], got: &[usize]) -> Result<()> {
    if expected == got {
        Ok(())
    } else {
        Err(Error::ShapeMismatch {
            what,
            expected: expected.to_vec(),
            got: got.to_vec(),
        })
    }
}

/// Quantizing, with the position of the first NaN that came by.
pub(crate) struct Quantize<'a, A: Element> {
    affine: &'a Affine,
    rule: Rule<A::Real>,
    /// The first element that is NaN; the greatest number where there is none.
    first_nan: AtomicUsize,
}

impl<'a, A: Element> Quantize<'a, A> {
    pub(crate) fn of(affine: &'a Affine) -> Self {
        Self {
            affine,
            rule: Rule::of(affine.scheme()),
            first_nan: AtomicUsize::new(usize::MAX),
        }
    }

    /// # Errors
    /// [`Error::NonFinite`] if there was a NaN in the tensor of these groups.
    pub(crate) fn found_no_nan(self, groups: &Groups) -> Result<()> {
        match self.first_nan.into_inner() {
            usize::MAX => Ok(()),
            element => Err(Error::NonFinite {
                what: "tensor to quantize",
                expected: "numbers",
                position: groups.position(element),
                value: f64::NAN,
            }),
        }
    }
}

impl<A: Element, C: Code> Map<A, C> for Quantize<'_, A> {
    #[inline(always)]
    fn map(&self, span: &Span, x: &[A], codes: &mut [C]) {
        let parameters = SpanParameters::of(self.affine, span);
        let mut buffer = [A::Real::default(); BLOCK];
        let reals = A::widen(x, &mut buffer);
        if loops::quantize(reals, codes, parameters, self.rule, parameters.ahead(x)) {
            let index = x.iter().position(|x| x.to_real().is_nan());
            self.first_nan
                .fetch_min(span.start + index.unwrap_or(0), Ordering::Relaxed);
        }
    }
}

struct Dequantize<'a, A: Element> {
    affine: &'a Affine,
    rule: Rule<A::Real>,
}

impl<A: Element, C: Code> Map<C, A> for Dequantize<'_, A> {
    #[inline(always)]
    fn map(&self, span: &Span, codes: &[C], x: &mut [A]) {
        let parameters = SpanParameters::of(self.affine, span);
        let mut buffer = [A::Real::default(); BLOCK];
        let reals = A::wide(x, &mut buffer);
        loops::dequantize(codes, 0, reals, parameters, self.rule, Ahead::of(codes, 1));
        A::narrow(x, &buffer);
    }
}

struct FakeQuantize<'a, A: Element> {
    affine: &'a Affine,
    rule: Rule<A::Real>,
}

impl<A: Element> Map<A, A> for FakeQuantize<'_, A> {
    #[inline(always)]
    fn map(&self, span: &Span, x: &[A], out: &mut [A]) {
        let parameters = SpanParameters::of(self.affine, span);
        let mut buffer = [A::Real::default(); BLOCK];
        let mut out_buffer = buffer;
        let reals = A::widen(x, &mut buffer);
        let out_reals = A::wide(out, &mut out_buffer);
        loops::fake_quantize(reals, out_reals, parameters, self.rule, parameters.ahead(x));
        A::narrow(out, &out_buffer);
    }
}
