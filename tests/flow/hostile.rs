//! Whatever is tapped, a session answers with numbers or a reason.

use lowbit::{
    Error, Granularity, Mapping, Scheme,
    calibrate::{Entropy, FullRange, HistogramSearch, MeanSquaredError, Octav, Percentile},
    flow::{Calibration, Site},
};
use ndarray::ArrayD;
use proptest::prelude::*;

fn site(scheme: Scheme, calibrator: u8) -> Site {
    let site = Site::new(scheme).unwrap();
    match calibrator {
        0 => site.with_calibrator(FullRange),
        1 => site.with_calibrator(Percentile::new(90.0).unwrap()),
        2 => site.with_calibrator(MeanSquaredError::default().with_grid(20, 0.9).unwrap()),
        3 => site.with_calibrator(Octav),
        4 => site.with_calibrator(Entropy),
        _ => site.with_calibrator(HistogramSearch),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn any_batches_are_calibrated_or_refused_with_a_reason(
        shapes in prop::collection::vec(prop::collection::vec(0..4_usize, 0..4), 1..4),
        values in prop::collection::vec(
            prop_oneof![30 => prop::num::f32::NORMAL, 1 => prop::num::f32::ANY], 1..20),
        axis in 0..3_usize, size in prop_oneof![1..4_usize, Just(usize::MAX)],
        kind in 0..4_u8, calibrator in 0..6_u8,
        bits in prop::sample::select(vec![1_u32, 2, 4, 8, 16]),
        float_zero in any::<bool>(),
    ) {
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerAxis(axis),
            2 => Granularity::PerGroup(size),
            _ => Granularity::PerBlock { rows: 2, columns: size },
        };
        let mapping = if float_zero { Mapping::AsymmetricFloat } else { Mapping::Asymmetric };
        let scheme = Scheme::int(bits).mapping(mapping).granularity(granularity).build().unwrap();
        let mut calibration = Calibration::new(site(scheme, calibrator));
        let shard = calibration.fork();
        let mut next = values.iter().copied().cycle();
        let mut taken = 0;
        for (index, shape) in shapes.iter().enumerate() {
            let x = ArrayD::from_shape_simple_fn(shape.as_slice(), || next.next().unwrap());
            let session = if index % 2 == 0 { &calibration } else { &shard };
            match session.tap("x", &x) {
                Ok(()) => {
                    prop_assert!(x.iter().all(|x| x.is_finite()));
                    taken += x.len() as u64;
                }
                Err(Error::NonFinite { .. }) => prop_assert!(x.iter().any(|x| !x.is_finite())),
                Err(Error::NoSuchAxis { .. } | Error::ShapeMismatch { .. }) => {}
                Err(error) => prop_assert!(false, "{}", error),
            }
        }
        match calibration.merge(&shard) {
            Ok(()) => {}
            Err(Error::ShapeMismatch { .. }) => return Ok(()),
            Err(error) => prop_assert!(false, "{}", error),
        }
        match calibration.finish() {
            Ok(calibrated) => {
                let report = calibrated.report("x").unwrap();
                prop_assert_eq!(report.elements, taken);
                prop_assert!((0.0..=1.0 + 1e-9).contains(&report.clipped), "{:?}", report);
                prop_assert!(!report.sqnr.is_nan(), "{:?}", report);
                prop_assert!(report.cosine.abs() <= 1.0 + 1e-9, "{:?}", report);
                prop_assert!(report.covered.0 <= report.covered.1);
                prop_assert!(calibrated.to_string().lines().count() == 2);
            }
            Err(Error::Empty { .. }) => {}
            // One bit spans all of f32 in one step, which is none.
            Err(Error::InvalidScale { .. }) => prop_assert_eq!(bits, 1),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
