//! Reductions in an order that vectors of every instruction set can follow.

use super::Ahead;

/// Values that are taken at a time: some vectors, so that none waits for the one before.
const LANES: usize = 32;

/// All values in one: `step` takes those of a lane one after the other, from `start` on; `join` takes
/// lanes together, by halves. The last chunk is filled up with `fill`.
#[inline(always)]
pub(crate) fn reduce<T: Copy>(
    values: &[f32],
    start: T,
    fill: f32,
    step: impl Fn(T, f32) -> T,
    join: impl Fn(T, T) -> T,
) -> T {
    let mut lanes = [start; LANES];
    let (chunks, rest) = values.as_chunks::<LANES>();
    for chunk in chunks {
        step_each(&mut lanes, chunk, &step);
    }
    if !rest.is_empty() {
        let mut last = [fill; LANES];
        last[..rest.len()].copy_from_slice(rest);
        step_each(&mut lanes, &last, &step);
    }
    joined(lanes, join)
}

/// The least and the greatest value, by what says which one of two it is, and whether all are
/// finite: all in one pass, which asks for what lies ahead. NaN is neither, unless it is the first
/// value, and comes of no values.
#[inline(always)]
pub(crate) fn extremes<A: Copy>(
    values: &[f32],
    ahead: Ahead<'_, A>,
    lesser: impl Fn(f32, f32) -> f32,
    greater: impl Fn(f32, f32) -> f32,
) -> (f32, f32, bool) {
    let first = values.first().copied().unwrap_or(f32::NAN);
    let (mut least, mut greatest, mut wrong) = ([first; LANES], [first; LANES], [0.0; LANES]);
    let (chunks, rest) = values.as_chunks::<LANES>();
    for (index, chunk) in chunks.iter().enumerate() {
        ahead.ask::<LANES>(index * LANES);
        widen(
            &mut least,
            &mut greatest,
            &mut wrong,
            chunk,
            &lesser,
            &greater,
        );
    }
    if !rest.is_empty() {
        let mut last = [first; LANES];
        last[..rest.len()].copy_from_slice(rest);
        widen(
            &mut least,
            &mut greatest,
            &mut wrong,
            &last,
            &lesser,
            &greater,
        );
    }
    let sum: f32 = joined(wrong, |a, b| a + b);
    (joined(least, lesser), joined(greatest, greater), sum == 0.0)
}

/// Takes a value into each lane. What is wrong with values stays 0 where they are finite, and
/// becomes NaN where one is not.
#[inline(always)]
pub(crate) fn widen<const N: usize>(
    least: &mut [f32; N],
    greatest: &mut [f32; N],
    wrong: &mut [f32; N],
    values: &[f32; N],
    lesser: impl Fn(f32, f32) -> f32,
    greater: impl Fn(f32, f32) -> f32,
) {
    for lane in 0..N {
        let value = values[lane];
        least[lane] = lesser(least[lane], value);
        greatest[lane] = greater(greatest[lane], value);
        wrong[lane] += value * 0.0;
    }
}

/// All lanes in one, by halves.
#[inline(always)]
fn joined<T: Copy>(lanes: [T; LANES], join: impl Fn(T, T) -> T) -> T {
    let lanes: [T; 16] = halved(lanes, &join);
    let lanes: [T; 8] = halved(lanes, &join);
    let lanes: [T; 4] = halved(lanes, &join);
    let lanes: [T; 2] = halved(lanes, &join);
    join(lanes[0], lanes[1])
}

#[inline(always)]
fn step_each<T: Copy>(lanes: &mut [T; LANES], values: &[f32; LANES], step: impl Fn(T, f32) -> T) {
    for (lane, &value) in lanes.iter_mut().zip(values) {
        *lane = step(*lane, value);
    }
}

#[inline(always)]
fn halved<T: Copy, const ALL: usize, const HALF: usize>(
    lanes: [T; ALL],
    join: impl Fn(T, T) -> T,
) -> [T; HALF] {
    let mut joined = [lanes[0]; HALF];
    let (front, back) = lanes.split_at(HALF);
    for ((joined, &a), &b) in joined.iter_mut().zip(front).zip(back) {
        *joined = join(a, b);
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::NOTHING;

    #[test]
    fn every_value_counts_once() {
        for len in [0_u8, 1, 31, 32, 33, 64, 100, 255] {
            let values: Vec<f32> = (0..len).map(f32::from).collect();
            let sum = reduce(&values, 0.0, 0.0, |sum, x| sum + x, |a, b| a + b);
            assert_eq!(sum, values.iter().sum::<f32>());
            let greatest = reduce(&values, -1.0, -1.0, f32::max, f32::max);
            assert_eq!(greatest, f32::from(len) - 1.0);
            let (least, greatest, finite) = extremes(&values, NOTHING, f32::min, f32::max);
            if len > 0 {
                assert_eq!((least, greatest, finite), (0.0, f32::from(len) - 1.0, true));
            }
            for at in 0..values.len() {
                for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = values.clone();
                    values[at] = wrong;
                    assert!(!extremes(&values, NOTHING, f32::min, f32::max).2);
                }
            }
        }
    }
}
