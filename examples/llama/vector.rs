//! Loops over floats, for the vectors of whatever processor runs them.
//!
//! Slices have a whole number of vectors, except where it is said.

use pulp::Simd;

/// Columns that a loop over [`Lines`] takes at once.
const AT_ONCE: usize = 8;

/// A matrix `[columns, tokens]` whose columns lie `line` floats apart.
#[derive(Clone, Copy)]
pub struct Lines<'a> {
    pub floats: &'a [f32],
    pub line: usize,
}

/// Two queries that go through the same loop, so that what they meet is read once.
pub type Pair<T> = [T; 2];

impl Lines<'_> {
    /// Adds `Σ coefficients[column] · lines[column]` for each query.
    #[inline(always)]
    pub fn add_combinations<S: Simd>(
        self,
        simd: S,
        coefficients: Pair<&[f32]>,
        mut into: Pair<&mut [f32]>,
    ) {
        let columns = coefficients[0].len();
        let whole = columns - columns % AT_ONCE;
        for column in (0..whole).step_by(AT_ONCE) {
            self.combine::<S, AT_ONCE>(simd, column, coefficients, &mut into);
        }
        for column in whole..columns {
            self.combine::<S, 1>(simd, column, coefficients, &mut into);
        }
    }

    #[inline(always)]
    fn combine<S: Simd, const N: usize>(
        self,
        simd: S,
        column: usize,
        coefficients: Pair<&[f32]>,
        into: &mut Pair<&mut [f32]>,
    ) {
        let len = into[0].len();
        let lines = self.columns::<S, N>(column, len);
        let coefficients = splat::<S, N>(simd, coefficients, column);
        let [first, second] = into.each_mut().map(|into| S::as_mut_simd_f32s(into).0);
        for (j, (first, second)) in first.iter_mut().zip(second).enumerate() {
            let mut sums = [*first, *second];
            for (line, coefficients) in lines.iter().zip(coefficients) {
                for (sum, coefficient) in sums.iter_mut().zip(coefficients) {
                    *sum = simd.mul_add_e_f32s(coefficient, line[j], *sum);
                }
            }
            [*first, *second] = sums;
        }
    }

    /// `Σ lines[column] · x` for each column and query.
    #[inline(always)]
    pub fn products<S: Simd>(self, simd: S, x: Pair<&[f32]>, mut into: Pair<&mut [f32]>) {
        let columns = into[0].len();
        let whole = columns - columns % AT_ONCE;
        for column in (0..whole).step_by(AT_ONCE) {
            self.multiply::<S, AT_ONCE>(simd, column, x, &mut into);
        }
        for column in whole..columns {
            self.multiply::<S, 1>(simd, column, x, &mut into);
        }
    }

    #[inline(always)]
    fn multiply<S: Simd, const N: usize>(
        self,
        simd: S,
        column: usize,
        x: Pair<&[f32]>,
        into: &mut Pair<&mut [f32]>,
    ) {
        let lines = self.columns::<S, N>(column, x[0].len());
        let x = x.map(|x| S::as_simd_f32s(x).0);
        let mut sums = [[simd.splat_f32s(0.0); 2]; N];
        for (j, (&first, &second)) in x[0].iter().zip(x[1]).enumerate() {
            for (line, sums) in lines.iter().zip(&mut sums) {
                sums[0] = simd.mul_add_e_f32s(line[j], first, sums[0]);
                sums[1] = simd.mul_add_e_f32s(line[j], second, sums[1]);
            }
        }
        for (at, sums) in sums.into_iter().enumerate() {
            for (into, sum) in into.iter_mut().zip(sums) {
                into[column + at] = simd.reduce_sum_f32s(sum);
            }
        }
    }

    #[inline(always)]
    fn columns<S: Simd, const N: usize>(&self, column: usize, len: usize) -> [&[S::f32s]; N] {
        let vectors = len / S::F32_LANES;
        std::array::from_fn(|at| {
            let floats = &self.floats[(column + at) * self.line..][..len];
            &S::as_simd_f32s(floats).0[..vectors]
        })
    }
}

/// Adds `Σ coefficients[column] · x` over the queries to each column of lines.
#[inline(always)]
pub fn add_outer<S: Simd>(
    simd: S,
    coefficients: Pair<&[f32]>,
    x: Pair<&[f32]>,
    lines: &mut [f32],
    line: usize,
) {
    let columns = coefficients[0].len();
    let whole = columns - columns % AT_ONCE;
    for column in (0..whole).step_by(AT_ONCE) {
        add_outer_at::<S, AT_ONCE>(
            simd,
            column,
            coefficients,
            x,
            &mut lines[column * line..],
            line,
        );
    }
    for column in whole..columns {
        add_outer_at::<S, 1>(
            simd,
            column,
            coefficients,
            x,
            &mut lines[column * line..],
            line,
        );
    }
}

#[inline(always)]
fn add_outer_at<S: Simd, const N: usize>(
    simd: S,
    column: usize,
    coefficients: Pair<&[f32]>,
    x: Pair<&[f32]>,
    lines: &mut [f32],
    line: usize,
) {
    let len = x[0].len();
    let coefficients = splat::<S, N>(simd, coefficients, column);
    let [first, second] = x.map(|x| S::as_simd_f32s(x).0);
    let mut lines = lines.chunks_exact_mut(line);
    let mut lines: [&mut [S::f32s]; N] = std::array::from_fn(|_| match lines.next() {
        Some(line) => &mut S::as_mut_simd_f32s(&mut line[..len]).0[..first.len()],
        None => &mut [],
    });
    for (j, (&first, &second)) in first.iter().zip(second).enumerate() {
        for (line, [to_first, to_second]) in lines.iter_mut().zip(coefficients) {
            let sum = simd.mul_add_e_f32s(to_first, first, line[j]);
            line[j] = simd.mul_add_e_f32s(to_second, second, sum);
        }
    }
}

#[inline(always)]
fn splat<S: Simd, const N: usize>(
    simd: S,
    coefficients: Pair<&[f32]>,
    column: usize,
) -> [Pair<S::f32s>; N] {
    std::array::from_fn(|at| coefficients.map(|c| simd.splat_f32s(c[column + at])))
}

/// The sum.
#[inline(always)]
pub fn total<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (x, _) = S::as_simd_f32s(x);
    let add = |sum, &x| simd.add_f32s(sum, x);
    simd.reduce_sum_f32s(x.iter().fold(simd.splat_f32s(0.0), add))
}

/// The greatest.
#[inline(always)]
pub fn most<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let (x, _) = S::as_simd_f32s(x);
    let max = |most, &x| simd.max_f32s(most, x);
    simd.reduce_max_f32s(x.iter().fold(simd.splat_f32s(f32::NEG_INFINITY), max))
}

/// `e^(x − shift)` in place of each x; any length.
#[inline(always)]
pub fn exp<S: Simd>(simd: S, x: &mut [f32], shift: f32) {
    let (vectors, rest) = S::as_mut_simd_f32s(x);
    let shifts = simd.splat_f32s(shift);
    for x in vectors {
        *x = exp_vector(simd, simd.sub_f32s(*x, shifts));
    }
    for x in rest {
        *x = (*x - shift).exp();
    }
}

/// `eˣ` to about one unit in the last place, 0 below −87.
///
/// `x = n · ln 2 + r` with `|r| <= ln 2 / 2`, and a polynomial for `e^r` (Cephes, `expf`).
#[inline(always)]
pub fn exp_vector<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    /// 1.5 · 2²³ + 127: adding it rounds to an integer, which is then, with the bias of exponents, in
    /// the last bits.
    const ROUND: f32 = 12_583_039.0;
    let splat = |x: f32| simd.splat_f32s(x);
    let tiny = simd.less_than_f32s(x, splat(-87.0));
    let x = simd.min_f32s(splat(88.0), x);
    let shifted = simd.mul_add_e_f32s(x, splat(std::f32::consts::LOG2_E), splat(ROUND));
    let n = simd.sub_f32s(shifted, splat(ROUND));
    let r = simd.mul_add_e_f32s(n, splat(-0.693_359_4), x);
    let r = simd.mul_add_e_f32s(n, splat(2.121_944_4e-4), r);
    let mut p = splat(1.987_569_1e-4);
    for c in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = simd.mul_add_e_f32s(p, r, splat(c));
    }
    let p = simd.mul_add_e_f32s(p, simd.mul_f32s(r, r), simd.add_f32s(r, splat(1.0)));
    let power = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(shifted), simd.splat_u32s(23));
    let y = simd.mul_f32s(p, simd.transmute_f32s_u32s(power));
    simd.select_f32s(tiny, splat(0.0), y)
}

/// `1 / (1 + e^(−x))`.
#[inline(always)]
pub fn sigmoid_vector<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let one = simd.splat_f32s(1.0);
    let exp = exp_vector(simd, simd.neg_f32s(x));
    simd.div_f32s(one, simd.add_f32s(one, exp))
}
