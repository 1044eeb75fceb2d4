//! The stretched sigmoid between rounding down and rounding up.

const ZETA: f32 = 1.1;
const GAMMA: f32 = -0.1;

/// The integer below, and how far above it.
pub(super) fn parts(exact: f32) -> (f32, f32) {
    let floor = exact.floor();
    (floor, (exact - floor).clamp(0.0, 1.0))
}

/// `h(V)`, and its slope.
#[inline(always)]
pub(super) fn openness(gate: f32) -> (f32, f32) {
    let sigmoid = 1.0 / (1.0 + (-gate).exp());
    let stretched = sigmoid * (ZETA - GAMMA) + GAMMA;
    let inside = (0.0..=1.0).contains(&stretched);
    let along = if inside {
        (ZETA - GAMMA) * sigmoid * (1.0 - sigmoid)
    } else {
        0.0
    };
    (stretched.clamp(0.0, 1.0), along)
}

/// The `V` at which `h(V)` is this fraction.
pub(super) fn gate_at(fraction: f32) -> f32 {
    -((ZETA - GAMMA) / (fraction - GAMMA) - 1.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_of_the_gate_is_that_of_differences() {
        for step in -60..=60_i8 {
            let gate = f32::from(step) / 10.0;
            let (open, along) = openness(gate);
            assert!((0.0..=1.0).contains(&open));
            let ends = [gate - 1e-2, gate + 1e-2].map(openness);
            // Not across the ends of the clip, where there is no slope.
            if (ends[0].1 == 0.0) == (ends[1].1 == 0.0) {
                let difference = (ends[1].0 - ends[0].0) / 2e-2;
                approx::assert_abs_diff_eq!(along, difference, epsilon = 2e-3);
            }
        }
        // The gate that is learned from begins at the fraction.
        for fraction in [0.0_f32, 0.1, 0.5, 0.93, 1.0] {
            approx::assert_abs_diff_eq!(openness(gate_at(fraction)).0, fraction, epsilon = 1e-6);
        }
    }
}
