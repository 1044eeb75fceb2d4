//! Quantize, dequantize and fake-quantize arrays of any layout and dimension.

use std::sync::atomic::{AtomicUsize, Ordering};

use ndarray::{Array, ArrayRef, Dimension};

use super::{
    Affine,
    loops::{self, RunParameters},
    scalar::Rule,
};
use crate::{
    element::{Code, Element},
    error::{Error, Result},
    parallel::{PIECE, over_pieces},
    scheme::Scheme,
    simd::wide,
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
    let mut codes = Array::default(x.raw_dim());
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
    let rule = Rule::<A::Real>::of(affine.scheme());
    let first_nan = AtomicUsize::new(usize::MAX);
    through_slices(x, codes, |start, x: &[A], codes: &mut [C]| {
        for run in groups.runs(start..start + x.len()) {
            let range = run.start - start..run.start - start + run.len;
            let (x, codes) = (&x[range.clone()], &mut codes[range]);
            let parameters = RunParameters::of(affine, &run);
            A::in_reals(x, |at, reals| {
                let parameters = parameters.part(at, reals.len());
                if loops::quantize(reals, &mut codes[at..at + reals.len()], parameters, rule) {
                    let index = reals.iter().position(|&x| num_traits::Float::is_nan(x));
                    first_nan.fetch_min(run.start + at + index.unwrap_or(0), Ordering::Relaxed);
                }
            });
        }
    });
    match first_nan.into_inner() {
        usize::MAX => Ok(()),
        element => Err(Error::NonFinite {
            what: "tensor to quantize",
            expected: "numbers",
            position: groups.position(element),
            value: f64::NAN,
        }),
    }
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
    let mut x = Array::default(codes.raw_dim());
    dequantize_into(codes, affine, &mut x)?;
    Ok(x)
}

/// [`dequantize`] into an array that is there already, of any layout; allocates nothing for tensors
/// of up to four axes.
///
/// # Errors
/// Those of [`dequantize`], and [`Error::ShapeMismatch`] if the two shapes differ.
pub fn dequantize_into<A: Element, C: Code, D: Dimension>(
    codes: &ArrayRef<C, D>,
    affine: &Affine,
    x: &mut ArrayRef<A, D>,
) -> Result<()> {
    let groups = affine.groups(codes.shape())?;
    same_shape("output", codes.shape(), x.shape())?;
    let rule = Rule::<A::Real>::of(affine.scheme());
    through_slices(codes, x, |start, codes: &[C], x: &mut [A]| {
        for run in groups.runs(start..start + codes.len()) {
            let range = run.start - start..run.start - start + run.len;
            let (codes, x) = (&codes[range.clone()], &mut x[range]);
            let parameters = RunParameters::of(affine, &run);
            A::from_reals(x, |at, reals| {
                let codes = &codes[at..at + reals.len()];
                loops::dequantize(codes, reals, parameters.part(at, codes.len()), rule);
            });
        }
    });
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
    let mut out = Array::default(x.raw_dim());
    fake_quantize_into(x, affine, &mut out)?;
    Ok(out)
}

/// [`fake_quantize`] into an array that is there already, of any layout; allocates nothing for
/// tensors of up to four axes.
///
/// # Errors
/// Those of [`fake_quantize`], and [`Error::ShapeMismatch`] if the two shapes differ.
pub fn fake_quantize_into<A: Element, D: Dimension>(
    x: &ArrayRef<A, D>,
    affine: &Affine,
    out: &mut ArrayRef<A, D>,
) -> Result<()> {
    let groups = affine.groups(x.shape())?;
    same_shape("output", x.shape(), out.shape())?;
    let rule = Rule::<A::Real>::of(affine.scheme());
    through_slices(x, out, |start, x: &[A], out: &mut [A]| {
        for run in groups.runs(start..start + x.len()) {
            let range = run.start - start..run.start - start + run.len;
            let (x, out) = (&x[range.clone()], &mut out[range]);
            let parameters = RunParameters::of(affine, &run);
            A::in_reals(x, |at, reals| {
                let parameters = parameters.part(at, reals.len());
                A::from_reals(&mut out[at..at + reals.len()], |inner, out| {
                    let reals = &reals[inner..inner + out.len()];
                    let parameters = parameters.part(inner, out.len());
                    loops::fake_quantize(reals, out, parameters, rule);
                });
            });
        }
    });
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

/// Elements that are copied at a time where an array does not lie in row-major order.
const BUFFER: usize = 512;

/// Calls `work(start, input, output)` with slices of both arrays that hold the elements from
/// `start` on in row-major order: pieces of the arrays themselves, on several threads, where both
/// lie in that order; copies of a few hundred elements otherwise.
fn through_slices<A, B, D>(
    input: &ArrayRef<A, D>,
    output: &mut ArrayRef<B, D>,
    work: impl Fn(usize, &[A], &mut [B]) + Send + Sync,
) where
    A: Copy + Default + Send + Sync,
    B: Copy + Default + Send,
    D: Dimension,
{
    if let (Some(input), Some(output)) = (input.as_slice(), output.as_slice_mut()) {
        over_pieces(output, PIECE, |start, output| {
            wide(|| work(start, &input[start..start + output.len()], output));
        });
        return;
    }
    let mut inputs = [A::default(); BUFFER];
    let mut outputs = [B::default(); BUFFER];
    let len = input.len();
    let (mut from, mut to) = (input.iter(), output.iter_mut());
    let mut start = 0;
    while start < len {
        let size = BUFFER.min(len - start);
        for (slot, &value) in inputs[..size].iter_mut().zip(&mut from) {
            *slot = value;
        }
        wide(|| work(start, &inputs[..size], &mut outputs[..size]));
        for (&value, slot) in outputs[..size].iter().zip(&mut to) {
            *slot = value;
        }
        start += size;
    }
}

/// As [`through_slices`], for an output alone.
pub(crate) fn fill_slices<B, D>(
    output: &mut ArrayRef<B, D>,
    work: impl Fn(usize, &mut [B]) + Send + Sync,
) where
    B: Copy + Default + Send,
    D: Dimension,
{
    if let Some(output) = output.as_slice_mut() {
        over_pieces(output, PIECE, work);
        return;
    }
    let mut buffer = [B::default(); BUFFER];
    let len = output.len();
    let mut to = output.iter_mut();
    let mut start = 0;
    while start < len {
        let size = BUFFER.min(len - start);
        work(start, &mut buffer[..size]);
        for (&value, slot) in buffer[..size].iter().zip(&mut to) {
            *slot = value;
        }
        start += size;
    }
}
