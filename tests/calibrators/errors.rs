//! The range of least error against an exhaustive search, and OCTAV against its equation.

use lowbit::{
    Calibrator, FloatFormat, Observer, Parameter, Range, Scheme, SchemeBuilder,
    affine::scalar,
    calibrate::{MeanSquaredError, Octav},
    observe::Statistics,
};
use proptest::prelude::*;

use super::support::{distributions, observer, schemes, values};

/// `Σ w |x − x̂|^p` in f64, element by element, relative to the magnitude of the values.
fn error(values: &[f32], weights: &[f32], range: Range, scheme: &Scheme, norm: f64) -> f64 {
    let p = Parameter::from_range(scheme, range).unwrap();
    let unit = f64::from(values.iter().fold(0.0_f32, |m, x| m.max(x.abs()))).max(1e-300);
    let pairs = values.iter().zip(weights);
    pairs
        .map(|(&x, &w)| {
            let code = scalar::quantize(x, p.scale, p.zero_point, scheme);
            let y: f32 = scalar::dequantize(code, p.scale, p.zero_point, scheme);
            f64::from(w) * ((f64::from(x) - f64::from(y)).abs() / unit).powf(norm)
        })
        .sum()
}

/// The candidates: both ends shrunk together, but no further than the data reach.
fn candidates(seen: Range, steps: u16, max_shrink: f32) -> Vec<Range> {
    let last = (f32::from(steps) * max_shrink) as u16;
    (0..=last)
        .map(|step| 1.0 - f32::from(step) / f32::from(steps))
        .map(|part| {
            let (min, max) = (seen.min(), seen.max());
            Range::new((part * min).clamp(min, max), (part * max).clamp(min, max)).unwrap()
        })
        .collect()
}

fn check_least(
    values: &[f32],
    weights: Option<&[f32]>,
    scheme: &Scheme,
    norm: f32,
    (steps, max_shrink): (u16, f32),
) -> Result<(), TestCaseError> {
    let statistics = Statistics::of_values(values).unwrap();
    let ones = vec![1.0; values.len()];
    let statistics = match weights {
        None => statistics,
        Some(weights) => statistics.with_importance(weights).unwrap(),
    };
    let calibrator = MeanSquaredError::default()
        .with_norm(norm)
        .unwrap()
        .with_grid(steps, max_shrink)
        .unwrap();
    let Ok(chosen) = calibrator.range(&statistics, scheme) else {
        // One bit spans all of f32 in one step, which is none.
        prop_assert!(scheme.bits() == 1);
        return Ok(());
    };
    let of = |range: Range| error(values, weights.unwrap_or(&ones), range, scheme, norm.into());
    let all = candidates(statistics.range(), steps, max_shrink);
    prop_assert!(all.contains(&chosen), "{:?}", chosen);
    let least = all.into_iter().map(of).fold(f64::INFINITY, f64::min);
    prop_assert!(
        of(chosen) <= least * (1.0 + 1e-4) + 1e-9,
        "{} of {:?}, least {} as {}",
        of(chosen),
        chosen,
        least,
        scheme
    );
    Ok(())
}

proptest! {
    #[test]
    fn no_range_of_the_grid_has_a_smaller_error(
        values in values(), scheme in schemes(),
        weights in prop::option::of(prop::collection::vec(0.0_f32..4.0, 60)),
        norm in prop_oneof![Just(2.0_f32), Just(2.4), 0.5_f32..4.0],
        grid in prop_oneof![Just((100_u16, 0.8_f32)), (1..40_u16, 0.0_f32..0.99)],
    ) {
        let weights = weights.as_ref().map(|weights| &weights[..values.len()]);
        check_least(&values, weights, &scheme, norm, grid)?;
    }

    #[test]
    fn the_fixed_point_is_the_one_that_the_iteration_comes_to(
        values in values(), scheme in schemes(),
    ) {
        let statistics = Statistics::of_values(&values).unwrap();
        let range = Octav.range(&statistics, &scheme).unwrap();
        let seen = statistics.range();
        let clipping = octav(&values, &scheme).unwrap_or(f64::from(seen.magnitude()));
        let (min, max) = (f64::from(seen.min()), f64::from(seen.max()));
        let low = min.max(-clipping).min(max);
        let high = max.min(clipping).max(min);
        let slack = 1e-4 * f64::from(seen.magnitude()) + 1e-44;
        prop_assert!((f64::from(range.min()) - low).abs() <= slack, "{range:?} {low}");
        prop_assert!((f64::from(range.max()) - high).abs() <= slack, "{range:?} {high}");
    }
}

/// The noise of rounding within a clipping of 1: a third of a quarter to the bits, or a twelfth.
fn noise(values: &[f32], scheme: &Scheme) -> f64 {
    let positive = values.iter().all(|&x| x >= 0.0);
    let divisor = if positive && !scheme.mapping().is_symmetric() {
        12.0
    } else {
        3.0
    };
    4.0_f64.powf(-f64::from(scheme.bits())) / divisor
}

/// The right side of OCTAV's equation; nothing where nothing is clipped.
fn next_clipping(magnitudes: &[f64], s: f64, noise: f64) -> Option<f64> {
    let beyond: Vec<f64> = magnitudes.iter().copied().filter(|&x| x > s).collect();
    let within = (magnitudes.len() - beyond.len()) as f64;
    let clipped = beyond.len() as f64;
    (clipped > 0.0).then(|| beyond.iter().sum::<f64>() / (noise * within + clipped))
}

/// The iteration as the paper has it, from the mean magnitude of what is not zero.
fn octav(values: &[f32], scheme: &Scheme) -> Option<f64> {
    let magnitudes: Vec<f64> = values.iter().map(|&x| f64::from(x).abs()).collect();
    let noise = noise(values, scheme);
    let filled = magnitudes.iter().filter(|&&x| x > 0.0).count();
    let mut s = (filled > 0).then(|| magnitudes.iter().sum::<f64>() / filled as f64)?;
    for _ in 0..50 {
        match next_clipping(&magnitudes, s, noise) {
            Some(next) => s = next,
            None => break,
        }
    }
    Some(s)
}

#[test]
fn the_clipping_of_octav_solves_its_equation() {
    for values in distributions() {
        for bits in [2, 3, 4, 6, 8] {
            for scheme in [Scheme::int(bits), Scheme::int(bits).asymmetric()] {
                let scheme = scheme.build().unwrap();
                let statistics = Statistics::of_values(&values).unwrap();
                let seen = statistics.range();
                let range = Octav.range(&statistics, &scheme).unwrap();
                let s = f64::from(range.magnitude());
                if range.magnitude() == seen.magnitude() {
                    continue; // nothing is clipped
                }
                let magnitudes: Vec<f64> = values.iter().map(|&x| f64::from(x).abs()).collect();
                let image = next_clipping(&magnitudes, s, noise(&values, &scheme)).unwrap();
                approx::assert_relative_eq!(image, s, max_relative = 5e-3);
            }
        }
    }
}

#[test]
fn histograms_give_about_the_least_error_too() {
    let builders: [SchemeBuilder; 5] = [
        Scheme::int(4),
        Scheme::int(3).narrow_range(),
        Scheme::int(2).unsigned().asymmetric(),
        Scheme::int(8),
        Scheme::float(FloatFormat::E2M1),
    ];
    for values in distributions() {
        let observer = observer(&values, 4096);
        for builder in builders {
            let scheme = builder.build().unwrap();
            let statistics = observer.statistics(0).unwrap();
            let chosen = MeanSquaredError::default()
                .range(&statistics, &scheme)
                .unwrap();
            let ones = vec![1.0; values.len()];
            let of = |range: Range| error(&values, &ones, range, &scheme, 2.0);
            let all = candidates(statistics.range(), 100, 0.8);
            assert!(all.contains(&chosen));
            let least = all.into_iter().map(of).fold(f64::INFINITY, f64::min);
            assert!(
                of(chosen) <= 1.02 * least,
                "{} {least} as {scheme}",
                of(chosen)
            );
        }
    }
}

#[test]
fn settings_outside_what_they_may_be_are_refused() {
    let default = MeanSquaredError::default;
    for bad in [0.0, -1.0, 16.1, f32::NAN, f32::INFINITY] {
        assert!(default().with_norm(bad).is_err());
    }
    for (steps, shrink) in [(0, 0.5), (100, 1.0), (100, -0.1), (100, f32::NAN)] {
        assert!(default().with_grid(steps, shrink).is_err());
    }
    assert!(default().with_grid(u16::MAX, 0.0).is_ok());
}
