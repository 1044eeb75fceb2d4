//! ONNX MatMulInteger and QLinearMatMul.

use lowbit::{
    Activation, Activations, Affine, Code, Mapping, PackedLinear, QTensor, Requantization, Scheme,
    matmul_integer,
};
use ndarray::{Array2, ArrayD, arr0};

use super::{
    Outputs,
    broadcast::{Side, batch, matrices, matrix, stacked, zero_points},
    words,
};
use crate::case::{Case, Data};

/// The product of each pair of matrices of two batches.
fn product<A, B>([a, za]: [&ArrayD<A>; 2], [b, zb]: [&ArrayD<B>; 2]) -> Result<ArrayD<i32>, String>
where
    A: Activation + Code,
    B: Activation + Code,
{
    let (left, right) = (matrix(a, Side::Left)?, matrix(b, Side::Right)?);
    let batch = batch(left.shape(), right.shape())?;
    let operands = matrices(&left, &batch)?
        .into_iter()
        .zip(matrices(&right, &batch)?);
    let zeros = zero_points(za, &batch)?
        .into_iter()
        .zip(zero_points(zb, &batch)?);
    let products: Vec<Array2<i32>> = operands
        .zip(zeros)
        .map(|((a, b), (za, zb))| matmul_integer(&a, &za, &b, &zb).map_err(words))
        .collect::<Result<_, _>>()?;
    stacked(&products, &batch, [a.shape(), b.shape()])
}

pub(super) fn integer(case: &Case) -> Result<Outputs, String> {
    macro_rules! typed {
        ($($a:ident $b:ident),*) => {
            match (case.tensor("a")?, case.tensor("b")?) {
                $((Data::$a(a), Data::$b(b)) => {
                    let za = match case.optional("a_zero_point") {
                        None => arr0(0).into_dyn(),
                        Some(Data::$a(z)) => z.clone(),
                        Some(_) => return Err("a zero point of another type".into()),
                    };
                    let zb = match case.optional("b_zero_point") {
                        None => arr0(0).into_dyn(),
                        Some(Data::$b(z)) => z.clone(),
                        Some(_) => return Err("a zero point of another type".into()),
                    };
                    product([a, &za], [b, &zb])?
                })*
                _ => return Err("a and b must be of 8 bits".into()),
            }
        };
    }
    let y = typed!(U8 U8, U8 I8, I8 U8, I8 I8);
    Ok(vec![("y", Data::I32(y))])
}

/// The parameters of an operand, of one scale or one for each index of an axis.
fn parameters(case: &Case, name: &str, axis: usize) -> Result<Affine, String> {
    let logical = case.logical_type(name).ok_or("no element type")?;
    let scheme = super::scheme_of(logical)?.mapping(Mapping::Asymmetric);
    let operand = name.trim_start_matches("expected.");
    let scale = case.tensor(&format!("{operand}_scale"))?.to_vec_f32();
    let zero_point = case.tensor(&format!("{operand}_zero_point"))?.to_vec_f32();
    let (scheme, shape) = if scale.len() == 1 {
        (scheme.per_tensor(), vec![])
    } else {
        (scheme.per_axis(axis), vec![scale.len()])
    };
    let scheme: Scheme = scheme.build().map_err(words)?;
    Affine::new(scheme, &shape, scale, zero_point).map_err(words)
}

pub(super) fn quantized(case: &Case) -> Result<Outputs, String> {
    // Weights are `[out, in]`: the second matrix, transposed.
    let weights = parameters(case, "b", 0)?;
    let activations = Activations::Static(parameters(case, "a", 0)?);
    let output = parameters(case, "expected.y", 0)?;
    let requantization = Requantization::float(output).map_err(words)?;
    let layer = |b: Array2<i32>| {
        let weights = QTensor::from_codes(&b.t(), &weights)?;
        PackedLinear::pack(&weights, None)?.with_activations(activations.clone())
    };
    let b = match case.tensor("b")? {
        Data::I8(b) => b.mapv(i32::from),
        Data::U8(b) => b.mapv(i32::from),
        _ => return Err("b must be of 8 bits".into()),
    };
    let right = matrix(&b, Side::Right)?;
    macro_rules! typed {
        ($($a:ident $y:ident),*) => {
            match (case.tensor("a")?, case.tensor("expected.y")?) {
                $((Data::$a(a), Data::$y(_)) => {
                    let left = matrix(a, Side::Left)?;
                    let batch = batch(left.shape(), right.shape())?;
                    let pairs = matrices(&left, &batch)?.into_iter().zip(matrices(&right, &batch)?);
                    let products: Vec<_> = pairs
                        .map(|(a, b)| layer(b)?.forward_requantized(&a, &requantization))
                        .collect::<Result<_, _>>()
                        .map_err(words)?;
                    Data::$y(stacked(&products, &batch, [a.shape(), b.shape()])?)
                })*
                _ => return Err("a and y must be of 8 bits".into()),
            }
        };
    }
    let y = typed!(U8 U8, U8 I8, I8 U8, I8 I8);
    Ok(vec![("y", y)])
}
