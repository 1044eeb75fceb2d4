//! Calibrating tensors at hand, and the quantizer that does.

use lowbit::{
    Affine, Error, Granularity, Groups, QTensor, QuantizerExt, RoundToNearest, Scheme,
    calibrate::{FullRange, MeanSquaredError, Percentile, ranges_of},
    observe::Statistics,
};
use ndarray::{Array1, Array2, ArrayD, arr1};
use proptest::prelude::*;

use super::support::{bell, calibrators};

const GRANULARITIES: [Granularity; 8] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerAxis(2),
    Granularity::PerRow,
    Granularity::PerGroup(4),
    Granularity::PerGroupAlong { axis: 1, size: 2 },
    Granularity::PerBlock {
        rows: 2,
        columns: 3,
    },
];

#[test]
fn each_group_has_the_range_of_its_own_elements_and_their_importance() {
    let shape = [3, 5, 7];
    let x = ArrayD::from_shape_vec(shape.to_vec(), bell(105, 4.0, 1)).unwrap();
    let importance = x.mapv(|x| (x * 7.0).sin().abs());
    for granularity in GRANULARITIES {
        let scheme = Scheme::int(3).granularity(granularity).build().unwrap();
        let groups = Groups::new(&shape, granularity).unwrap();
        let mut members = vec![(vec![], vec![]); groups.parameters()];
        for (element, (&x, &w)) in x.iter().zip(&importance).enumerate() {
            let (values, weights) = &mut members[groups.parameter_of(element)];
            values.push(x);
            weights.push(w);
        }
        for calibrator in calibrators() {
            let chosen = ranges_of(&*calibrator, &x, &scheme, Some(importance.view())).unwrap();
            let turned = x.t().as_standard_layout().into_owned();
            let weights = Some(importance.view());
            assert_eq!(
                ranges_of(&*calibrator, &turned.t(), &scheme, weights).unwrap(),
                chosen
            );
            assert_eq!(chosen.shape(), groups.parameter_shape());
            for (range, (values, weights)) in chosen.as_slice().iter().zip(&members) {
                let statistics = Statistics::of_values(values).unwrap();
                let statistics = statistics.with_importance(weights).unwrap();
                assert_eq!(*range, calibrator.range(&statistics, &scheme).unwrap());
            }
        }
    }
}

#[test]
fn rounding_to_nearest_is_quantizing_over_the_calibrated_ranges() {
    let w = Array2::from_shape_vec((16, 40), bell(640, 6.0, 2)).unwrap();
    let columns = Array1::from_shape_fn(40, |i| (i % 7) as f32);
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerAxis(0),
        Granularity::PerGroup(16),
    ] {
        let scheme = Scheme::int(4)
            .asymmetric()
            .granularity(granularity)
            .build()
            .unwrap();
        let plain = RoundToNearest::new(scheme);
        let full = Affine::of(&scheme, &w).unwrap();
        assert_eq!(
            plain.quantize(&w).unwrap(),
            QTensor::quantize(&w, &full).unwrap()
        );
        let calibrator = MeanSquaredError::default();
        let weights = columns.view().into_dyn();
        let ranges = ranges_of(&calibrator, &w, &scheme, Some(weights)).unwrap();
        let affine = Affine::from_ranges(&scheme, &ranges).unwrap();
        let method = plain.with_calibrator(calibrator).with_importance(&columns);
        assert_eq!(
            method.quantize(&w).unwrap(),
            QTensor::quantize(&w, &affine).unwrap()
        );
    }
}

#[test]
fn weights_of_the_wrong_kind_are_refused() {
    let method = RoundToNearest::new(Scheme::int(4).per_axis(0).build().unwrap());
    let mut w = Array2::<f32>::ones((3, 4));
    w[[1, 2]] = f32::INFINITY;
    let error = method.quantize(&w).unwrap_err();
    assert!(matches!(error, Error::NonFinite { position, .. } if position == [1, 2]));
    assert!(matches!(
        method.quantize(&ndarray::arr0(1.0)),
        Err(Error::NoSuchAxis { .. })
    ));
    let method = method.with_importance(&arr1(&[1.0_f32; 3]));
    let error = method.quantize(&Array2::<f32>::ones((3, 4))).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }), "{error}");
}

#[test]
fn an_absurd_number_of_empty_channels_is_refused() {
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let nothing = Array2::<f32>::zeros((1 << 30, 0));
    let refused = |error: Error| matches!(error, Error::TooLarge { .. });
    assert!(refused(
        ranges_of(&FullRange, &nothing, &scheme, None).unwrap_err()
    ));
    assert!(refused(
        RoundToNearest::new(scheme).quantize(&nothing).unwrap_err()
    ));
}

proptest! {
    #[test]
    fn any_tensor_is_quantized_or_refused_with_a_reason(
        shape in prop::collection::vec(0..5_usize, 0..4),
        values in prop::collection::vec(
            prop_oneof![9 => (-3.0_f32..3.0).boxed(), 1 => prop::num::f32::ANY.boxed()], 1..20),
        axis in 0..4_usize, size in prop_oneof![1..4_usize, Just(usize::MAX)],
        kind in 0..5_u8, bits in 2..9_u32,
    ) {
        let mut next = values.iter().copied().cycle();
        let x = ArrayD::from_shape_simple_fn(shape, || next.next().unwrap());
        let granularity = match kind {
            0 => Granularity::PerTensor,
            1 => Granularity::PerAxis(axis),
            2 => Granularity::PerGroup(size),
            3 => Granularity::PerBlock { rows: size, columns: 2 },
            _ => Granularity::PerGroupAlong { axis, size },
        };
        let scheme = Scheme::int(bits).asymmetric().granularity(granularity).build().unwrap();
        let method = RoundToNearest::new(scheme)
            .with_calibrator(Percentile::new(99.0).unwrap());
        match method.quantize(&x) {
            Ok(tensor) => {
                prop_assert_eq!(tensor.shape(), x.shape());
                prop_assert!(x.iter().all(|x| x.is_finite()));
            }
            Err(Error::NonFinite { .. }) => prop_assert!(x.iter().any(|x| !x.is_finite())),
            Err(Error::NoSuchAxis { .. }) => prop_assert!(x.ndim() <= axis.max(1)),
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
