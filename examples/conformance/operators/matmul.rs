//! ONNX MatMulInteger and QLinearMatMul.

use lowbit::{
    Activations, Affine, Mapping, PackedLinear, QTensor, Requantization, Scheme, matmul_integer,
};
use ndarray::{Array2, ArrayD, ArrayView2, Axis, IxDyn};

use super::{Outputs, words};
use crate::case::{Case, Data};

/// A matrix `[rows, columns]`, or a batch of them with the axes before flattened into one.
fn matrices<T: Clone>(x: &ArrayD<T>) -> Result<ndarray::Array3<T>, String> {
    let &[ref batch @ .., rows, columns] = x.shape() else {
        return Err(format!("a matrix of shape {:?}", x.shape()));
    };
    let shape = (batch.iter().product::<usize>(), rows, columns);
    let x = x.as_standard_layout().into_owned();
    x.into_shape_with_order(shape)
        .map_err(|error| error.to_string())
}

pub(super) fn integer(case: &Case) -> Result<Outputs, String> {
    /// The product of each pair of matrices of two batches.
    fn product<A, B>(
        a: &ArrayD<A>,
        za: &[A],
        b: &ArrayD<B>,
        zb: &[B],
    ) -> Result<ArrayD<i32>, String>
    where
        A: lowbit::Activation + lowbit::Code,
        B: lowbit::Activation + lowbit::Code,
    {
        let (left, right) = (matrices(a)?, matrices(b)?);
        let products = left.outer_iter().zip(right.outer_iter());
        let products: Vec<Array2<i32>> = products
            .map(|(a, b)| matmul_integer(&a, za, &b, zb).map_err(words))
            .collect::<Result<_, _>>()?;
        let mut shape = a.shape().to_vec();
        shape[a.ndim() - 1] = right.dim().2;
        stacked(&shape, &products)
    }
    let zeros = |name: &str| case.optional(name).cloned();
    macro_rules! typed {
        ($($a:ident $b:ident),*) => {
            match (case.tensor("a")?, case.tensor("b")?) {
                $((Data::$a(a), Data::$b(b)) => {
                    let za = match zeros("a_zero_point") {
                        None => vec![0],
                        Some(Data::$a(z)) => z.into_iter().collect(),
                        Some(_) => return Err("a zero point of another type".into()),
                    };
                    let zb = match zeros("b_zero_point") {
                        None => vec![0],
                        Some(Data::$b(z)) => z.into_iter().collect(),
                        Some(_) => return Err("a zero point of another type".into()),
                    };
                    product(a, &za, b, &zb)?
                })*
                _ => return Err("a and b must be of 8 bits".into()),
            }
        };
    }
    let y = typed!(U8 U8, U8 I8, I8 U8, I8 I8);
    Ok(vec![("y", Data::I32(y))])
}

fn stacked<T: Clone>(shape: &[usize], products: &[Array2<T>]) -> Result<ArrayD<T>, String> {
    let flat: Vec<T> = products.iter().flatten().cloned().collect();
    ArrayD::from_shape_vec(IxDyn(shape), flat).map_err(|error| error.to_string())
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
    let (a, b) = (case.tensor("a")?, case.tensor("b")?);
    // Weights are `[out, in]`: the second matrix, transposed.
    let weights = parameters(case, "b", 0)?;
    let activations = Activations::Static(parameters(case, "a", 0)?);
    let output = parameters(case, "expected.y", 0)?;
    let requantization = Requantization::float(output).map_err(words)?;
    let layer = |b: ArrayView2<'_, i32>| {
        let weights = QTensor::from_codes(&b.t(), &weights)?;
        PackedLinear::pack(&weights, None)?.with_activations(activations.clone())
    };
    let b = match b {
        Data::I8(b) => matrices(&b.mapv(i32::from))?,
        Data::U8(b) => matrices(&b.mapv(i32::from))?,
        _ => return Err("b must be of 8 bits".into()),
    };
    let mut shape = a.shape().to_vec();
    shape[a.shape().len() - 1] = b.dim().2;
    macro_rules! typed {
        ($($kind:ident),*) => {
            match a {
                $(Data::$kind(a) => {
                    let a = matrices(a)?;
                    let products = a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0)));
                    let products: Vec<_> = products
                        .map(|(a, b)| layer(b)?.forward_requantized(&a, &requantization))
                        .collect::<Result<_, _>>()
                        .map_err(words)?;
                    Data::$kind(stacked(&shape, &products)?)
                })*
                _ => return Err("a must be of 8 bits".into()),
            }
        };
    }
    Ok(vec![("y", typed!(U8, I8))])
}
