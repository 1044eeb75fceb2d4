//! Reductions in an order that vectors of every instruction set can follow.

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
        lanes = std::array::from_fn(|at| step(lanes[at], chunk[at]));
    }
    if !rest.is_empty() {
        let mut last = [fill; LANES];
        last[..rest.len()].copy_from_slice(rest);
        lanes = std::array::from_fn(|at| step(lanes[at], last[at]));
    }
    let lanes: [T; 16] = halved(lanes, &join);
    let lanes: [T; 8] = halved(lanes, &join);
    let lanes: [T; 4] = halved(lanes, &join);
    let lanes: [T; 2] = halved(lanes, &join);
    join(lanes[0], lanes[1])
}

#[inline(always)]
fn halved<T: Copy, const ALL: usize, const HALF: usize>(
    lanes: [T; ALL],
    join: impl Fn(T, T) -> T,
) -> [T; HALF] {
    std::array::from_fn(|at| join(lanes[at], lanes[at + HALF]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_counts_once() {
        for len in [0_u8, 1, 31, 32, 33, 64, 100, 255] {
            let values: Vec<f32> = (0..len).map(f32::from).collect();
            let sum = reduce(&values, 0.0, 0.0, |sum, x| sum + x, |a, b| a + b);
            assert_eq!(sum, values.iter().sum::<f32>());
            let greatest = reduce(&values, -1.0, -1.0, f32::max, f32::max);
            assert_eq!(greatest, f32::from(len) - 1.0);
        }
    }
}
