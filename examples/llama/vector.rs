//! Loops over floats, for the vectors of whatever processor runs them.
//!
//! Slices have a whole number of vectors, except where it is said.

use pulp::Simd;

/// Adds `Σ coefficients[d] · lines[d]`, with `line` floats between one line and the next.
#[inline(always)]
pub fn add_products<S: Simd>(
    simd: S,
    coefficients: &[f32],
    lines: &[f32],
    line: usize,
    into: &mut [f32],
) {
    let len = into.len();
    let (into, _) = S::as_mut_simd_f32s(into);
    let (eights, rest) = coefficients.as_chunks::<8>();
    for (chunk, coefficients) in eights.iter().enumerate() {
        let lines: [&[S::f32s]; 8] = std::array::from_fn(|d| {
            let start = (8 * chunk + d) * line;
            &S::as_simd_f32s(&lines[start..start + len]).0[..into.len()]
        });
        let coefficients = coefficients.map(|c| simd.splat_f32s(c));
        for (j, into) in into.iter_mut().enumerate() {
            let mut sum = *into;
            for d in 0..8 {
                sum = simd.mul_add_e_f32s(coefficients[d], lines[d][j], sum);
            }
            *into = sum;
        }
    }
    for (&c, line) in rest
        .iter()
        .zip(lines.chunks_exact(line).skip(8 * eights.len()))
    {
        let (line, _) = S::as_simd_f32s(&line[..len]);
        let c = simd.splat_f32s(c);
        for (into, &x) in into.iter_mut().zip(line) {
            *into = simd.mul_add_e_f32s(c, x, *into);
        }
    }
}

/// Adds `coefficients[d] · x` to `lines[d]`, with `line` floats between one line and the next.
#[inline(always)]
pub fn add_outer<S: Simd>(
    simd: S,
    coefficients: &[f32],
    x: &[f32],
    line: usize,
    lines: &mut [f32],
) {
    let (vectors, _) = S::as_simd_f32s(x);
    for (&c, line) in coefficients.iter().zip(lines.chunks_exact_mut(line)) {
        let (line, _) = S::as_mut_simd_f32s(&mut line[..x.len()]);
        let c = simd.splat_f32s(c);
        for (to, &x) in line.iter_mut().zip(vectors) {
            *to = simd.mul_add_e_f32s(c, x, *to);
        }
    }
}

/// `Σ a · b`.
#[inline(always)]
pub fn product<S: Simd>(simd: S, a: &[f32], b: &[f32]) -> f32 {
    let ((a, _), (b, _)) = (S::as_simd_f32s(a), S::as_simd_f32s(b));
    let mut sum = simd.splat_f32s(0.0);
    for (&a, &b) in a.iter().zip(b) {
        sum = simd.mul_add_e_f32s(a, b, sum);
    }
    simd.reduce_sum_f32s(sum)
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
