//! Numbers, shapes and layouts of every kind.

use std::sync::Arc;

use lowbit::{
    Affine, Error, FakeQuant, FakeQuantExt, Granularity, Scheme,
    calibrate::MeanSquaredError,
    qat::{
        AffineFakeQuant, BitNet, Clipped, Dorefa, DynamicFakeQuant, Ends, Ewgs, LearnedFakeQuant,
        Lsq, ObservedFakeQuant, Parametrization, Plain, Proximal, ProximalFakeQuant, ProximalMap,
        StepAndOffset, StepSize, TrustMask,
    },
};
use ndarray::{Array1, Array2, ArrayD, Axis, IxDyn, s};
use proptest::prelude::*;

use super::support::{arrays, bits, learned, observed, schemes};

proptest! {
    #[test]
    fn hostile_numbers_and_shapes_are_answered_and_never_panic(
        scheme in schemes(),
        x in arrays(any::<f32>().prop_union(prop::num::f32::ANY)),
        g in arrays(prop::num::f32::ANY),
        scale in prop::collection::vec(prop::num::f32::ANY, 0..4),
        observing in any::<bool>(),
    ) {
        let granularity = scheme.granularity();
        let mut fakes: Vec<Box<dyn FakeQuant>> = vec![
            Box::new(DynamicFakeQuant::new(scheme, Clipped)),
            Box::new(learned(scheme, &[3, 4], &[(0.1, 2.0)], Lsq)),
        ];
        if granularity == Granularity::PerTensor {
            fakes.push(Box::new(observed(scheme)));
        }
        fakes.push(Box::new(Dorefa::new(3, granularity).unwrap()));
        fakes.push(Box::new(TrustMask::fake_quant(2, granularity).unwrap()));
        fakes.push(Box::new(BitNet::weights(granularity).unwrap()));
        let map = Proximal::new(ProximalMap::BinaryRelax, 0, 1).unwrap();
        let mut proximal = ProximalFakeQuant::new(scheme, map, MeanSquaredError::default());
        proximal.begin_step(1);
        fakes.push(Box::new(proximal));
        let start = learned(scheme, &[3, 4], &[(0.1, 2.0)], Plain).affine().clone();
        let parametrizations: [Arc<dyn Parametrization>; 3] =
            [Arc::new(StepSize), Arc::new(StepAndOffset), Arc::new(Ends)];
        for parametrization in parametrizations {
            let ewgs = Ewgs::new(0.1).unwrap();
            if let Ok(mut fake) = LearnedFakeQuant::new(start.clone(), parametrization, ewgs) {
                let before = fake.affine().clone();
                if fake.set_parameters(&scale).is_err() {
                    prop_assert_eq!(fake.affine(), &before);
                }
                fakes.push(Box::new(fake));
            }
        }
        let mut fake = learned(scheme, &[3, 4], &[(0.1, 2.0)], Plain);
        let before = fake.clone();
        let set = (fake.set_scale(&scale).is_ok(), fake.set_zero_point(&scale).is_ok());
        if set == (false, false) {
            prop_assert_eq!(before.affine(), fake.affine());
            prop_assert_eq!(before.scale(), fake.scale());
        }
        fakes.push(Box::new(fake));
        let bad = x.iter().any(|x| !x.is_finite());
        for fake in &mut fakes {
            if observing {
                let result = fake.observe(&x);
                let misfit = matches!(result, Err(Error::ShapeMismatch { .. }));
                prop_assert!(!misfit);
            }
            let fits = fake.forward(&x);
            if let Ok(y) = &fits {
                prop_assert_eq!(x.mapv(f32::is_nan), y.mapv(f32::is_nan));
            }
            if let Ok(tensor) = fake.convert(&x) {
                prop_assert!(!x.iter().any(|x| x.is_nan()));
                prop_assert_eq!(bits(&fits.unwrap()), bits(&tensor.dequantize::<f32>()));
            }
            match fake.backward(&x, &g) {
                Ok(gradients) => {
                    prop_assert_eq!(x.dim(), g.dim());
                    prop_assert_eq!(gradients.input.dim(), x.dim());
                }
                Err(Error::ShapeMismatch { .. }) => {}
                Err(error) => prop_assert!(bad || x.is_empty() || !observing || matches!(
                    error, Error::InvalidScale { .. } | Error::InvalidRange { .. } | Error::Empty { .. }
                ), "{}", error),
            }
        }
    }
}

#[test]
fn any_layout_and_dimension_gives_the_same_gradients() {
    let scheme = Scheme::int(4).asymmetric().per_axis(1).build().unwrap();
    let affine = Affine::new(scheme, &[3], vec![0.1, 0.2, 0.3], vec![1.0, -2.0, 3.0]).unwrap();
    let fake = AffineFakeQuant::new(affine, Lsq);
    let wide = Array2::from_shape_fn((8, 6), |(i, j)| ((i * 6 + j) as f32 * 0.7).sin());
    let x = wide.slice(s![..;-2, 1..;2]);
    let g = wide.slice(s![4.., ..3]);
    let (plain_x, plain_g) = (x.to_owned(), g.to_owned());
    let expected = fake.backward(&plain_x, &plain_g).unwrap();
    assert_eq!(fake.backward(&x, &g).unwrap(), expected);
    let columns = x.t().as_standard_layout().to_owned();
    assert_eq!(fake.backward(&columns.t(), &g).unwrap(), expected);

    let mut into = fake.backward(&plain_g, &plain_x).unwrap();
    into.input = Array2::zeros((3, 4)).reversed_axes();
    fake.backward_into(&x, &g, &mut into).unwrap();
    assert_eq!(into, expected);
    let mut y = Array2::zeros((3, 4)).reversed_axes();
    fake.forward_into(&x, &mut y).unwrap();
    assert_eq!(y, fake.forward(&plain_x).unwrap());

    let deep = plain_x.clone().into_shape_with_order((4, 3, 1, 1)).unwrap();
    let deep_g = plain_g.into_shape_with_order((4, 3, 1, 1)).unwrap();
    let gradients = fake.backward(&deep, &deep_g).unwrap();
    assert_eq!(gradients.scale, expected.scale);
    let scalar = AffineFakeQuant::new(
        Affine::per_tensor(Scheme::int(4).build().unwrap(), 1.0, 0.0).unwrap(),
        Clipped,
    );
    assert_eq!(
        scalar.forward(&ndarray::arr0(2.5)).unwrap(),
        ndarray::arr0(2.0)
    );
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let mut fake = AffineFakeQuant::new(
        Affine::symmetric(scheme, &[2], vec![1.0, 1.0]).unwrap(),
        Clipped,
    );
    let (two, three) = (Array2::<f32>::zeros((2, 3)), Array2::<f32>::zeros((3, 2)));
    let is_shape = |error: Error| matches!(error, Error::ShapeMismatch { .. });
    for enabled in [true, false] {
        fake.set_enabled(enabled);
        assert!(is_shape(fake.forward(&three).unwrap_err()));
        assert!(is_shape(fake.backward(&three, &three).unwrap_err()));
        assert!(is_shape(fake.backward(&two, &three).unwrap_err()));
        assert!(is_shape(fake.convert(&three).unwrap_err()));
        assert!(is_shape(
            fake.forward_into(&two, &mut three.clone()).unwrap_err()
        ));
        let mut other = fake.backward(&two, &two).unwrap();
        other.input = three.clone();
        assert!(is_shape(
            fake.backward_into(&two, &two, &mut other).unwrap_err()
        ));
        assert!(fake.forward(&ndarray::arr0(1.0)).is_err());
    }
    assert!(is_shape(fake.set_scale(&[1.0]).unwrap_err()));
    assert!(is_shape(fake.set_zero_point(&[]).unwrap_err()));
    assert!(is_shape(observed_off().backward(&two, &three).unwrap_err()));
}

fn observed_off() -> ObservedFakeQuant<Clipped> {
    let mut fake = observed(Scheme::int(4).build().unwrap());
    fake.set_fake_quantizing(false);
    fake
}

#[test]
fn empty_tensors_have_empty_gradients() {
    for shape in [vec![0], vec![0, 3], vec![3, 0]] {
        let x = ArrayD::<f32>::zeros(IxDyn(&shape));
        let scheme = Scheme::int(4).per_row().build().unwrap();
        let affine = Lsq::initial(&x, &scheme).unwrap();
        let rows = affine.scale().len();
        let gradients = AffineFakeQuant::new(affine, Lsq).backward(&x, &x).unwrap();
        assert_eq!(gradients.input, x);
        assert_eq!(gradients.scale, vec![0.0; rows]);
    }
    let x = Array1::<f32>::zeros(4).insert_axis(Axis(0));
    assert!(
        DynamicFakeQuant::new(Scheme::int(4).build().unwrap(), Clipped)
            .forward(&x)
            .is_ok()
    );
}
