//! The three matrix products of a linear layer `y = x · wᵀ`.

use ndarray::{Array2, linalg::general_mat_mul};
use pulp::{Arch, Simd, WithSimd};

/// Elements of the greatest weights for which the loop of this file is faster than a product that
/// cuts and packs its operands: those that stay in the cache of a core.
const SMALL: usize = 1 << 16;

/// `x · wᵀ`: `[m, in] · [out, in] → [m, out]`.
pub fn outputs(x: &Array2<f32>, weights: &Array2<f32>) -> Array2<f32> {
    if weights.len() > SMALL {
        return x.dot(&weights.t());
    }
    let mut into = Array2::zeros((x.nrows(), weights.nrows()));
    let turned = weights.t().as_standard_layout().into_owned();
    add(x, [x.ncols(), 1], &turned, &mut into);
    into
}

/// Adds the gradient of the inputs: `[m, out] · [out, in] → [m, in]`.
pub fn add_to_inputs(gradient: &Array2<f32>, weights: &Array2<f32>, into: &mut Array2<f32>) {
    if weights.len() > SMALL {
        return general_mat_mul(1.0, gradient, weights, 1.0, into);
    }
    add(gradient, [gradient.ncols(), 1], weights, into);
}

/// Adds the gradient of the weights: `[m, out]ᵀ · [m, in] → [out, in]`.
pub fn add_to_weights(gradient: &Array2<f32>, x: &Array2<f32>, into: &mut Array2<f32>) {
    if into.len() > SMALL {
        return general_mat_mul(1.0, &gradient.t(), x, 1.0, into);
    }
    add(gradient, [1, gradient.ncols()], x, into);
}

/// `c += a · b`, where the elements of `a` lie `strides` apart, by rows and by columns.
fn add(a: &Array2<f32>, strides: [usize; 2], b: &Array2<f32>, c: &mut Array2<f32>) {
    let rows = c.nrows();
    Arch::new().dispatch(Product {
        a: a.as_slice().expect("row-major"),
        strides,
        b: b.as_slice().expect("row-major"),
        columns: b.ncols(),
        rows,
        c: c.as_slice_mut().expect("row-major"),
    });
}

struct Product<'a> {
    a: &'a [f32],
    strides: [usize; 2],
    /// `[steps, columns]`.
    b: &'a [f32],
    columns: usize,
    rows: usize,
    /// `[rows, columns]`.
    c: &'a mut [f32],
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let mut row = 0;
        // As many sums as there are registers for.
        if S::F32_LANES >= 16 {
            while row + 8 <= self.rows {
                self.rows::<S, 8>(simd, row);
                row += 8;
            }
        }
        while row + 4 <= self.rows {
            self.rows::<S, 4>(simd, row);
            row += 4;
        }
        while row < self.rows {
            self.rows::<S, 1>(simd, row);
            row += 1;
        }
    }
}

impl Product<'_> {
    #[inline(always)]
    fn rows<S: Simd, const R: usize>(&mut self, simd: S, row: usize) {
        let mut column = 0;
        while column < self.columns {
            let left = self.columns - column;
            if left >= 2 * S::F32_LANES {
                self.block::<S, R, 2, false>(simd, row, column);
                column += 2 * S::F32_LANES;
            } else if left > S::F32_LANES {
                self.block::<S, R, 2, true>(simd, row, column);
                break;
            } else {
                self.block::<S, R, 1, true>(simd, row, column);
                break;
            }
        }
    }

    /// `R` rows by `V` vectors of columns, the last of them perhaps cut short.
    #[inline(always)]
    fn block<S: Simd, const R: usize, const V: usize, const SHORT: bool>(
        &mut self,
        simd: S,
        row: usize,
        column: usize,
    ) {
        // Loops and no closures: what is called here must be compiled for the vectors it works with.
        let width = (V * S::F32_LANES).min(self.columns - column);
        let mut sums = [[simd.splat_f32s(0.0); V]; R];
        let steps = self.b.chunks_exact(self.columns);
        if self.strides[0] == 1 {
            for (a, b) in self.a.chunks_exact(self.strides[1]).zip(steps) {
                let (a, _) = a[row..].as_chunks::<R>();
                let b = load::<S, V, SHORT>(simd, &b[column..][..width]);
                add_multiples(simd, &a[0], &b, &mut sums);
            }
        } else {
            let count = self.strides[0];
            let mut a: [&[f32]; R] = [&[]; R];
            for (r, a) in a.iter_mut().enumerate() {
                *a = &self.a[(row + r) * count..][..count];
            }
            for (step, b) in steps.enumerate().take(count) {
                let mut now = [0.0; R];
                for (now, a) in now.iter_mut().zip(&a) {
                    *now = a[step];
                }
                let b = load::<S, V, SHORT>(simd, &b[column..][..width]);
                add_multiples(simd, &now, &b, &mut sums);
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            let c = &mut self.c[(row + r) * self.columns + column..][..width];
            let before = load::<S, V, SHORT>(simd, c);
            for v in 0..V {
                let sum = simd.add_f32s(before[v], sums[v]);
                let c = &mut c[v * S::F32_LANES..];
                if SHORT && v + 1 == V {
                    simd.partial_store_f32s(c, sum);
                } else {
                    S::as_mut_simd_f32s(c).0[0] = sum;
                }
            }
        }
    }
}

/// `V` vectors, the last of them perhaps cut short.
#[inline(always)]
fn load<S: Simd, const V: usize, const SHORT: bool>(simd: S, x: &[f32]) -> [S::f32s; V] {
    let mut vectors = [simd.splat_f32s(0.0); V];
    for (v, vector) in vectors.iter_mut().enumerate() {
        let x = &x[v * S::F32_LANES..];
        *vector = if SHORT && v + 1 == V {
            simd.partial_load_f32s(x)
        } else {
            S::as_simd_f32s(x).0[0]
        };
    }
    vectors
}

#[inline(always)]
fn add_multiples<S: Simd, const R: usize, const V: usize>(
    simd: S,
    a: &[f32; R],
    b: &[S::f32s; V],
    sums: &mut [[S::f32s; V]; R],
) {
    for r in 0..R {
        let a = simd.splat_f32s(a[r]);
        for v in 0..V {
            sums[r][v] = simd.mul_add_e_f32s(a, b[v], sums[r][v]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_those_of_the_definition() {
        for (m, out, inputs) in [
            (1, 1, 1),
            (3, 5, 7),
            (8, 16, 32),
            (13, 33, 17),
            (21, 44, 100),
            (9, 300, 301),
        ] {
            let wave = |shape: (usize, usize), k: f32| {
                Array2::from_shape_fn(shape, |(i, j)| ((i * 31 + j * 7) as f32 * k).sin())
            };
            let (x, w, g) = (
                wave((m, inputs), 0.7),
                wave((out, inputs), 1.1),
                wave((m, out), 0.3),
            );
            let close =
                |a: &Array2<f32>, b: &Array2<f32>| assert!((a - b).iter().all(|e| e.abs() < 1e-3));
            close(&outputs(&x, &w), &x.dot(&w.t()));
            let mut to_x = wave((m, inputs), 0.2);
            let expected = &to_x + &g.dot(&w);
            add_to_inputs(&g, &w, &mut to_x);
            close(&to_x, &expected);
            let mut to_w = wave((out, inputs), 0.9);
            let expected = &to_w + &g.t().dot(&x);
            add_to_weights(&g, &x, &mut to_w);
            close(&to_w, &expected);
        }
    }
}
