//! The products by their definition, a number at a time.

use lowbit::{Affine, QTensor, affine::scalar};
use ndarray::{Array2, ArrayView2, Ix2};

/// A matrix of codes with the scale and zero point of each.
pub(crate) struct Explicit {
    pub(crate) codes: Array2<i32>,
    pub(crate) scale: Array2<f32>,
    pub(crate) zero: Array2<f32>,
}

impl Explicit {
    pub(crate) fn of(tensor: &QTensor) -> Self {
        let codes = tensor.codes::<i32>().unwrap();
        Self::with(
            codes.into_dimensionality::<Ix2>().unwrap(),
            &tensor.affine(),
        )
    }

    pub(crate) fn with(codes: Array2<i32>, affine: &Affine) -> Self {
        let groups = affine.groups(codes.shape()).unwrap();
        let columns = codes.ncols();
        let each = |values: &[f32]| {
            Array2::from_shape_fn(codes.dim(), |(row, column)| {
                values[groups.parameter_of(row * columns + column)]
            })
        };
        Self {
            scale: each(affine.scale()),
            zero: each(affine.zero_point()),
            codes,
        }
    }
}

/// `Σ (x − zx) (w − zw)` over all of the depth.
pub(crate) fn exact(x: &Explicit, w: &Explicit) -> Array2<i64> {
    Array2::from_shape_fn((x.codes.nrows(), w.codes.nrows()), |(m, n)| {
        let term = |k: usize| {
            let x = i64::from(x.codes[[m, k]]) - x.zero[[m, k]] as i64;
            x * (i64::from(w.codes[[n, k]]) - w.zero[[n, k]] as i64)
        };
        (0..x.codes.ncols()).map(term).sum()
    })
}

/// The integer product with scales: exact in each group, groups added in order.
pub(crate) fn scaled(
    x: &Explicit,
    w: &Explicit,
    group: usize,
    bias: Option<&[f32]>,
) -> Array2<f32> {
    Array2::from_shape_fn((x.codes.nrows(), w.codes.nrows()), |(m, n)| {
        let depth = x.codes.ncols();
        let mut sum = 0.0_f32;
        for start in (0..depth).step_by(group.max(1)) {
            let (mut codes, mut steps) = (0_i64, 0_i64);
            for k in start..depth.min(start + group) {
                let x = i64::from(x.codes[[m, k]]) - x.zero[[m, k]] as i64;
                codes += x * i64::from(w.codes[[n, k]]);
                steps += x;
            }
            let (zero, scale) = (w.zero[[n, start]], w.scale[[n, start]]);
            let term = if zero.fract() == 0.0 {
                (codes - zero as i64 * steps) as f32
            } else {
                codes as f32 - zero * steps as f32
            };
            sum += term * scale;
        }
        let x_scale = if depth == 0 { 1.0 } else { x.scale[[m, 0]] };
        sum * x_scale + bias.map_or(0.0, |bias| bias[n])
    })
}

/// The product of floats with dequantized weights, in f64, with the sum of the magnitudes beside it.
pub(crate) fn float(x: ArrayView2<'_, f32>, tensor: &QTensor) -> Array2<(f64, f64)> {
    let w = Explicit::of(tensor);
    Array2::from_shape_fn((x.nrows(), w.codes.nrows()), |(m, n)| {
        (0..x.ncols()).fold((0.0, 0.0), |(sum, magnitude), k| {
            let (code, scale, zero) = (w.codes[[n, k]], w.scale[[n, k]], w.zero[[n, k]]);
            let weight: f32 = scalar::dequantize(code, scale, zero, tensor.scheme());
            let product = f64::from(x[[m, k]]) * f64::from(weight);
            (sum + product, magnitude + product.abs())
        })
    })
}
