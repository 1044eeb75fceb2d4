//! Where parameters come from, and the switches.

use lowbit::{
    Affine, Error, FakeQuantExt, Observer, ScaleKind, Scheme, StraightThroughEstimator,
    fake_quantize,
    qat::{AffineFakeQuant, Clipped, DynamicFakeQuant, Lsq, ObservedFakeQuant},
};
use ndarray::{Array2, array};

use super::support::{Extremes, Part, bits, observed};

#[test]
fn latent_parameters_are_kept_and_effective_ones_are_stored() {
    let kinds = [
        (ScaleKind::F32, 0.3, 0.3),
        (ScaleKind::F32, -1.0, f32::EPSILON),
        (ScaleKind::F32, 0.0, f32::EPSILON),
        (ScaleKind::F16, 0.3, 0.300_048_83),
        (ScaleKind::F16, 1e-7, 6.103_515_6e-5),
        (ScaleKind::PowerOfTwo, 0.3, 0.5),
    ];
    for (kind, latent, effective) in kinds {
        let scheme = Scheme::int(8).scale_kind(kind).build().unwrap();
        let mut fake = AffineFakeQuant::new(Affine::per_tensor(scheme, 1.0, 0.0).unwrap(), Clipped);
        fake.set_scale(&[latent]).unwrap();
        assert_eq!(fake.scale(), [latent.max(f32::EPSILON)]);
        assert_eq!(fake.affine().scale(), [effective]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(matches!(
                fake.set_scale(&[bad]),
                Err(Error::InvalidScale { index: 0, .. })
            ));
            assert!(fake.set_zero_point(&[bad]).is_err());
        }
        assert_eq!(fake.affine().scale(), [effective]);
        // symmetric: the middle code and nothing else
        assert!(matches!(
            fake.set_zero_point(&[1.0]),
            Err(Error::InvalidZeroPoint { .. })
        ));
        fake.set_zero_point(&[0.0]).unwrap();
    }
    let scheme = Scheme::int(8).scale_kind(ScaleKind::F16).build().unwrap();
    let mut fake = AffineFakeQuant::new(Affine::per_tensor(scheme, 1.0, 0.0).unwrap(), Clipped);
    assert!(fake.set_scale(&[1e6]).is_err());
    assert_eq!(fake.scale(), [1.0]);
}

#[test]
fn switched_off_it_is_the_identity() {
    let scheme = Scheme::int(2).per_axis(0).build().unwrap();
    let mut fake = AffineFakeQuant::new(
        Affine::symmetric(scheme, &[2], vec![1.0, 1.0]).unwrap(),
        Clipped,
    );
    fake.set_enabled(false);
    assert!(!fake.is_enabled());
    let (x, g) = (
        array![[f32::NAN], [9.5]],
        array![[1.0_f32], [f32::INFINITY]],
    );
    assert_eq!(bits(&fake.forward(&x).unwrap()), bits(&x));
    let gradients = fake.backward(&x, &g).unwrap();
    assert_eq!(gradients.input, g);
    assert_eq!(
        (gradients.scale, gradients.zero_point),
        (vec![0.0; 2], vec![0.0; 2])
    );
    let mut dynamic = DynamicFakeQuant::new(scheme, Clipped);
    assert!(matches!(dynamic.forward(&x), Err(Error::NonFinite { .. })));
    dynamic.set_enabled(false);
    assert_eq!(bits(&dynamic.forward(&x).unwrap()), bits(&x));
    assert_eq!(dynamic.backward(&x, &g).unwrap().input, g);
}

#[test]
fn observing_and_fake_quantizing_are_switched_apart() {
    let scheme = Scheme::int(8).unsigned().asymmetric().build().unwrap();
    let mut fake = observed(scheme);
    let x = array![-1.0_f32, 1.55, 0.304];
    // nothing seen yet
    assert!(matches!(fake.forward(&x), Err(Error::Empty { .. })));
    assert!(matches!(fake.backward(&x, &x), Err(Error::Empty { .. })));
    assert!(matches!(fake.convert(&x), Err(Error::Empty { .. })));
    assert!(matches!(
        observed(scheme).into_learnable(),
        Err(Error::Empty { .. })
    ));
    // delayed: statistics only
    fake.set_fake_quantizing(false);
    fake.observe(&x).unwrap();
    assert_eq!(fake.forward(&x).unwrap(), x);
    assert_eq!(fake.backward(&x, &x).unwrap().input, x);
    fake.set_fake_quantizing(true);
    let affine = Affine::per_tensor(scheme, 0.01, 100.0).unwrap();
    assert_eq!(fake.affine(), Some(&affine));
    let y = fake.forward(&x).unwrap();
    assert_eq!(y, fake_quantize(&x, &affine).unwrap());
    assert_eq!(fake.convert(&x).unwrap().dequantize::<f32>(), y.into_dyn());
    let gradients = fake
        .backward(&array![0.5_f32, 9.0], &array![1.0, 1.0])
        .unwrap();
    assert_eq!(gradients.input, array![1.0, 0.0]);
    assert!(gradients.scale.is_empty() && gradients.zero_point.is_empty());
    // frozen
    fake.set_observing(false);
    fake.observe(&array![f32::NAN]).unwrap();
    fake.observe(&array![99.0_f32]).unwrap();
    assert_eq!(fake.affine(), Some(&affine));
    // and on again; a batch that is refused changes nothing
    fake.set_observing(true);
    assert!(fake.observe(&array![f32::NAN]).is_err());
    assert_eq!(fake.affine(), Some(&affine));
    fake.observe(&array![4.1_f32]).unwrap();
    assert_eq!(fake.affine().unwrap().scale(), [0.02]);
    // learned from there on
    let mut learnable = fake.into_learnable().unwrap();
    assert_eq!(learnable.scale(), [0.02]);
    assert_eq!(learnable.backward(&x, &x).unwrap().scale.len(), 1);
    learnable.set_scale(&[0.5]).unwrap();
    assert_eq!(learnable.forward(&array![0.7_f32]).unwrap(), array![0.5]);
}

#[test]
fn an_observer_of_another_granularity_is_refused_and_one_that_has_seen_batches_is_used() {
    let rows = Scheme::int(8).per_row().build().unwrap();
    let error = ObservedFakeQuant::new(
        rows,
        Box::new(Extremes::default()),
        Box::new(Part(1.0)),
        Clipped,
    );
    assert!(matches!(error, Err(Error::Mismatch { .. })));
    let scheme = Scheme::int(8).build().unwrap();
    let mut observer: Box<dyn Observer> = Box::new(Extremes::default());
    observer
        .observe_view(array![-254.0_f32].view().into_dyn())
        .unwrap();
    let estimator: Box<dyn StraightThroughEstimator> = Box::new(Lsq);
    let fake = ObservedFakeQuant::new(scheme, observer, Box::new(Part(0.5)), estimator).unwrap();
    assert_eq!(fake.affine().unwrap().scale(), [1.0]);
    assert_eq!(fake.observer().statistics(0).unwrap().count(), 1);
}

#[test]
fn nan_reaches_the_gradient_of_its_scale_and_no_other() {
    let scheme = Scheme::int(4).per_axis(0).build().unwrap();
    let affine = Affine::symmetric(scheme, &[2], vec![1.0, 1.0]).unwrap();
    let x = array![[0.5_f32, f32::NAN], [0.25, 1.0]];
    for estimator in [
        Box::new(Clipped) as Box<dyn StraightThroughEstimator>,
        Box::new(Lsq),
    ] {
        let fake = AffineFakeQuant::new(affine.clone(), estimator);
        let gradients = fake.backward(&x, &Array2::ones((2, 2))).unwrap();
        assert!(gradients.scale[0].is_nan() && gradients.scale[1].is_finite());
    }
}
