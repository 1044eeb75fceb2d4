//! Searches for the scale (and minimum) of a group, as ggml has them.
//!
//! Letters are ggml's: `l` a code, `w` a weight, `sumlx` `Σ w·l·x`, `suml2` `Σ w·l²`. For given codes
//! the best scale is `sumlx / suml2`, and what it leaves of the error falls with
//! `sumlx² / suml2`, which the searches compare without dividing.

/// Groups of smaller values are zeros.
pub(super) const GROUP_MAX_EPS: f32 = 1e-15;

/// The nearest integer, half to even, of numbers below 2²² in magnitude.
///
/// What ggml's gives for others, and for NaN, is some integer; codes are clamped afterwards.
#[expect(clippy::cast_possible_wrap, reason = "of 23 bits")]
pub(super) fn nearest_int(value: f32) -> i32 {
    ((value + 12_582_912.0).to_bits() & 0x007f_ffff) as i32 - 0x0040_0000
}

/// The nearest integer, clamped.
pub(super) fn nearest_within(value: f32, low: i16, high: i16) -> i16 {
    let clamped = nearest_int(value).clamp(low.into(), high.into());
    i16::try_from(clamped).unwrap_or(low)
}

/// The nearest integer from 0 to `high`.
pub(super) fn nearest_code(value: f32, high: u8) -> u8 {
    let clamped = nearest_int(value).clamp(0, high.into());
    u8::try_from(clamped).unwrap_or(0)
}

/// The low byte of the nearest integer, which is what ggml keeps where it does not clamp: of numbers
/// below 0, which rounding can lead to where importance is 0, 256 more.
pub(super) fn nearest_byte(value: f32, most: i32) -> u8 {
    low_byte(nearest_int(value).min(most))
}

fn low_byte(integer: i32) -> u8 {
    let [low, ..] = integer.to_le_bytes();
    low
}

/// `code + offset` for codes that are at least `−offset`.
fn above(code: i16, offset: i16) -> u8 {
    u8::try_from(code + offset).unwrap_or(0)
}

/// `make_qx_quants` with `rmse_type` 1: a scale for codes from `−nmax` to `nmax − 1`, which are
/// written with `nmax` added. Weights are `weights`, or the squares.
pub(super) fn make_qx(nmax: i16, x: &[f32], weights: Option<&[f32]>, codes: &mut [u8]) -> f32 {
    let max = super::of_greatest_magnitude(x);
    if max.abs() < GROUP_MAX_EPS {
        codes.fill(0);
        return 0.0;
    }
    let weight = |i: usize| weights.map_or(x[i] * x[i], |weights| weights[i]);
    let code = |iscale: f32, i: usize| nearest_within(iscale * x[i], -nmax, nmax - 1);
    let sums = |iscale: f32| {
        let (mut sumlx, mut suml2) = (0.0, 0.0);
        for (i, &x) in x.iter().enumerate() {
            let (w, l) = (weight(i), f32::from(code(iscale, i)));
            sumlx += w * x * l;
            suml2 += w * l * l;
        }
        (sumlx, suml2)
    };
    let write = |iscale: f32, codes: &mut [u8]| {
        for (i, to) in codes.iter_mut().enumerate() {
            *to = above(code(iscale, i), nmax);
        }
    };
    let mut iscale = -f32::from(nmax) / max;
    let (sumlx, suml2) = sums(iscale);
    let mut scale = if suml2 == 0.0 { 0.0 } else { sumlx / suml2 };
    let mut best = scale * sumlx;
    write(iscale, codes);
    for step in (-9_i8..=9).filter(|&step| step != 0) {
        iscale = -(f32::from(nmax) + 0.1 * f32::from(step)) / max;
        let (sumlx, suml2) = sums(iscale);
        if suml2 > 0.0 && sumlx * sumlx > best * suml2 {
            write(iscale, codes);
            scale = sumlx / suml2;
            best = scale * sumlx;
        }
    }
    scale
}

/// `make_q3_quants`: a scale for codes from `−nmax` to `nmax − 1`, written with `nmax` added, by
/// changing one code at a time.
pub(super) fn make_q3(nmax: i16, x: &[f32], codes: &mut [u8]) -> f32 {
    let max = super::of_greatest_magnitude(x);
    if max.abs() < GROUP_MAX_EPS {
        codes.fill(0);
        return 0.0;
    }
    let iscale = -f32::from(nmax) / max;
    let (mut sumlx, mut suml2) = (0.0_f32, 0.0_f32);
    let mut levels = [0_i16; 16];
    for (level, &x) in levels.iter_mut().zip(x) {
        *level = nearest_within(iscale * x, -nmax, nmax - 1);
        let (w, l) = (x * x, f32::from(*level));
        sumlx += w * x * l;
        suml2 += w * l * l;
    }
    for _ in 0..5 {
        let mut changed = false;
        for (level, &x) in levels.iter_mut().zip(x) {
            let (w, l) = (x * x, f32::from(*level));
            let mut slx = sumlx - w * x * l;
            if slx > 0.0 {
                let mut sl2 = suml2 - w * l * l;
                let new = nearest_within(x * sl2 / slx, -nmax, nmax - 1);
                if new != *level {
                    let l = f32::from(new);
                    slx += w * x * l;
                    sl2 += w * l * l;
                    if sl2 > 0.0 && slx * slx * suml2 > sumlx * sumlx * sl2 {
                        (*level, sumlx, suml2) = (new, slx, sl2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    for (code, level) in codes.iter_mut().zip(levels) {
        *code = above(level, nmax);
    }
    if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }
}

/// What a search for scale and minimum tries: `(rmin + rdelta·step + nmax)` steps to the range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ladder {
    pub(super) rmin: f32,
    pub(super) rdelta: f32,
    pub(super) nstep: u8,
    /// Absolute rather than squared errors.
    pub(super) use_mad: bool,
}

impl Ladder {
    /// What every type tries with importance.
    pub(super) const IMPORTANCE: Self = Self {
        rmin: -0.9,
        rdelta: 0.05,
        nstep: 36,
        use_mad: false,
    };
}

/// `make_qkx2_quants` and `make_qkx3_quants`: a scale and a minimum, at most 0, for codes from 0 to
/// `nmax`; gives the scale and the minimum's negative.
pub(super) fn make_qkx(
    nmax: u8,
    x: &[f32],
    weights: &[f32],
    codes: &mut [u8],
    ladder: Ladder,
) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = weights[0];
    let mut sum_x = sum_w * x[0];
    for (&x, &w) in x.iter().zip(weights).skip(1) {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += w;
        sum_x += w * x;
    }
    min = if min > 0.0 { 0.0 } else { min };
    if max <= min {
        codes.fill(0);
        return (0.0, -min);
    }
    let error = |scale: f32, min: f32, codes: &[u8]| {
        let mut sum = 0.0;
        for ((&code, &x), &w) in codes.iter().zip(x).zip(weights) {
            let difference = scale * f32::from(code) + min - x;
            sum += w * if ladder.use_mad {
                difference.abs()
            } else {
                difference * difference
            };
        }
        sum
    };
    let (low, range) = (min, max - min);
    let mut iscale = f32::from(nmax) / range;
    let mut scale = 1.0 / iscale;
    for (code, &x) in codes.iter_mut().zip(x) {
        *code = nearest_code(iscale * (x - low), nmax);
    }
    let mut best = error(scale, min, codes);
    let mut candidate = [0_u8; 32];
    let candidate = &mut candidate[..x.len()];
    for step in 0..=ladder.nstep {
        iscale = (ladder.rmin + ladder.rdelta * f32::from(step) + f32::from(nmax)) / (max - min);
        let (mut sum_l, mut sum_l2, mut sum_xl) = (0.0, 0.0, 0.0);
        for ((code, &x), &w) in candidate.iter_mut().zip(x).zip(weights) {
            *code = nearest_code(iscale * (x - min), nmax);
            let l = f32::from(*code);
            sum_l += w * l;
            sum_l2 += w * l * l;
            sum_xl += w * l * x;
        }
        let determinant = sum_w * sum_l2 - sum_l * sum_l;
        if determinant > 0.0 {
            let mut this_scale = (sum_w * sum_xl - sum_x * sum_l) / determinant;
            let mut this_min = (sum_l2 * sum_x - sum_l * sum_xl) / determinant;
            if this_min > 0.0 {
                this_min = 0.0;
                this_scale = sum_xl / sum_l2;
            }
            let this_error = error(this_scale, this_min, candidate);
            if this_error < best {
                codes.copy_from_slice(candidate);
                (best, scale, min) = (this_error, this_scale, this_min);
            }
        }
    }
    (scale, -min)
}

/// `make_qp_quants`: a scale for numbers that are hardly ever negative, in codes from 0 to `nmax`; see
/// [`nearest_byte`] for those that are.
pub(super) fn make_qp(nmax: u8, x: &[f32], weights: &[f32], codes: &mut [u8]) -> f32 {
    let max = x
        .iter()
        .fold(0.0, |max: f32, &x| if max > x { max } else { x });
    if max < GROUP_MAX_EPS {
        codes.fill(0);
        return 0.0;
    }
    let most = i32::from(nmax);
    #[expect(clippy::cast_precision_loss, reason = "of 23 bits")]
    let error = |iscale: f32, code: &dyn Fn(f32) -> i32| {
        let scale = 1.0 / iscale;
        let mut sum = 0.0;
        for (&x, &w) in x.iter().zip(weights) {
            let difference = x - scale * code(iscale * x) as f32;
            sum += w * difference * difference;
        }
        sum
    };
    let mut iscale = f32::from(nmax) / max;
    let mut best = error(iscale, &|value| low_byte(nearest_int(value)).into());
    for step in (-4_i8..=4).filter(|&step| step != 0) {
        let candidate = (0.1 * f32::from(step) + f32::from(nmax)) / max;
        let candidate_error = error(candidate, &|value| nearest_int(value).min(most));
        if candidate_error < best {
            (best, iscale) = (candidate_error, candidate);
        }
    }
    let (mut sumlx, mut suml2) = (0.0_f32, 0.0_f32);
    let sums = |x: f32, w: f32, l: i32| {
        #[expect(clippy::cast_precision_loss, reason = "of 23 bits")]
        let l = l as f32;
        (w * x * l, w * l * l)
    };
    for ((code, &x), &w) in codes.iter_mut().zip(x).zip(weights) {
        let l = nearest_int(iscale * x).min(most);
        *code = low_byte(l);
        let (lx, l2) = sums(x, w, l);
        sumlx += lx;
        suml2 += l2;
    }
    for _ in 0..5 {
        let mut changed = false;
        for ((code, &x), &w) in codes.iter_mut().zip(x).zip(weights) {
            let (lx, l2) = sums(x, w, (*code).into());
            let (mut slx, mut sl2) = (sumlx - lx, suml2 - l2);
            if slx > 0.0 && sl2 > 0.0 {
                let new = nearest_int(x * sl2 / slx).min(most);
                if new != i32::from(*code) {
                    let (lx, l2) = sums(x, w, new);
                    slx += lx;
                    sl2 += l2;
                    if slx * slx * suml2 > sumlx * sumlx * sl2 {
                        (*code, sumlx, suml2) = (low_byte(new), slx, sl2);
                        changed = true;
                    }
                }
            }
        }
        if !changed {
            break;
        }
    }
    if suml2 > 0.0 { sumlx / suml2 } else { 0.0 }
}
