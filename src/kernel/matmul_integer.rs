//! The integer product by itself, of two matrices of codes.

use std::sync::Arc;

use ndarray::{Array2, ArrayRef, Dim, Ix2};

use super::{
    Activation,
    arch::Kernel,
    checks::{check_depth, output_of},
    dispatch::{Visit, with_kernel},
    input::Input,
    integer::Target,
    layer::{Layer, fill},
    operand::Operand,
    output::Exact,
    rows::CodeRows,
    tasks::over_parts,
    weights::Weights,
};
use crate::{
    element::Code,
    error::{Error, Result},
    simd::Isa,
};

/// `Σ (a − a zero) (b − b zero)` of `a [m, k]` and `b [k, n]`, exactly, as ONNX `MatMulInteger` has it:
/// `[m, n]`.
///
/// The matrices hold `i8` or `u8`, each whichever it is (what is both an [`Activation`] and a [`Code`]).
/// There is a zero point for each row of `a` or one for all, and one for each column of `b` or one
/// for all. To multiply by the same matrix again and again, pack it once in a
/// [`PackedLinear`](super::PackedLinear).
///
/// # Errors
/// [`Error::ShapeMismatch`] if the depths differ or for another number of zero points;
/// [`Error::DepthOverflow`] if a sum could exceed 32 bits; [`Error::TooLarge`] if no memory holds the
/// output.
///
/// ```
/// use lowbit::matmul_integer;
/// use ndarray::array;
/// let a = array![[11_u8, 7, 3]];
/// let b = array![[1_i8, 4], [2, 5], [3, 6]];
/// assert_eq!(matmul_integer(&a, &[12], &b, &[0])?, array![[-38, -83]]);
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn matmul_integer<A: Activation + Code, B: Activation + Code>(
    a: &ArrayRef<A, Ix2>,
    a_zero_point: &[A],
    b: &ArrayRef<B, Ix2>,
    b_zero_point: &[B],
) -> Result<Array2<i32>> {
    let ((rows, depth), (b_depth, columns)) = (a.dim(), b.dim());
    if depth != b_depth {
        return Err(Error::ShapeMismatch {
            what: "second matrix",
            expected: vec![depth, columns],
            got: vec![b_depth, columns],
        });
    }
    for (what, got, many) in [
        ("zero points of the first matrix", a_zero_point.len(), rows),
        (
            "zero points of the second matrix",
            b_zero_point.len(),
            columns,
        ),
    ] {
        if got != 1 && got != many {
            return Err(Error::ShapeMismatch {
                what,
                expected: vec![many],
                got: vec![got],
            });
        }
    }
    check_depth(depth, reach(b_zero_point), reach(a_zero_point))?;
    let mut out = output_of(Dim([rows, columns]))?;
    // Without depth, rows and columns take no memory, and there may be any number of them.
    if depth == 0 || out.is_empty() {
        return Ok(out);
    }
    let weights = with_kernel(
        Isa::selected()?,
        8,
        Pack {
            b,
            zero: b_zero_point,
        },
    )?;
    let zero: Vec<i32> = a_zero_point.iter().map(|&zero| zero.into()).collect();
    let code_sums = weights.sums_of_codes();
    let a = a.as_standard_layout();
    let a = a.as_slice().unwrap_or_default();
    let mut operand = Operand::default();
    let filled = match A::input(a) {
        Input::Signed(codes) => {
            let source = CodeRows {
                codes,
                depth,
                zero: &zero,
                scale: 1.0,
                offset: 0,
            };
            fill(&*weights, &mut operand, &source, rows, usize::MAX)
        }
        Input::Unsigned(codes) => {
            let source = CodeRows {
                codes,
                depth,
                zero: &zero,
                scale: 1.0,
                offset: 128,
            };
            fill(&*weights, &mut operand, &source, rows, usize::MAX)
        }
        // No float is a code.
        Input::F32(_) | Input::F16(_) | Input::Bf16(_) => return Ok(out),
    };
    filled.map_err(|fault| fault.error(&[rows, depth]))?;
    over_parts(
        out.as_slice_mut().unwrap_or_default(),
        [rows, columns, depth],
        weights.pass(),
        usize::MAX,
        &mut vec![],
        &|task, scratch| {
            let part = task.part.clone();
            let target = &mut Exact(task);
            weights.integer(&operand, &code_sums, part, scratch, Target::Exact(target));
        },
    );
    Ok(out)
}

struct Pack<'a, B> {
    b: &'a ArrayRef<B, Ix2>,
    zero: &'a [B],
}

impl<B: Code> Visit for Pack<'_, B> {
    type Output = Arc<dyn Layer>;

    fn visit<K: Kernel>(self, kernel: K) -> Result<Self::Output> {
        let (depth, columns) = self.b.dim();
        let read = |column: usize, codes: &mut [u16]| {
            for (to, &code) in codes.iter_mut().zip(self.b.column(column)) {
                *to = distance(code).into();
            }
        };
        let zero = |column: usize| {
            let each = if self.zero.len() == 1 { 0 } else { column };
            distance(self.zero[each])
        };
        let weights = Weights::of_distances(kernel, [columns, depth], read, zero)?;
        Ok(Arc::new(weights))
    }
}

/// The distance of a code from the least one of its type.
fn distance<B: Code>(code: B) -> u8 {
    let least: i32 = B::min_value().into();
    let code: i32 = code.into();
    (code - least).to_le_bytes()[0]
}

/// The greatest distance of a code from one of the zero points.
fn reach<B: Code>(zero_points: &[B]) -> u32 {
    let of = |&zero: &B| u32::from(distance(zero).max(u8::MAX - distance(zero)));
    zero_points.iter().map(of).max().unwrap_or(0)
}
