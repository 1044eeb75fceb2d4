//! The laws of fake quantization: it is what converting gives, on any input, layout and machine.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

use lowbit::{
    Affine, Calibrator, Error, FakeQuant, FakeQuantExt, FloatFormat, Granularity, Groups, Mapping,
    Observer, Range, Ranges, Result, ScaleKind, Scheme, StraightThroughEstimator, fake_quantize,
    observe::Statistics,
    qat::{
        AffineFakeQuant, Clipped, DynamicFakeQuant, Lsq, ObservedFakeQuant, Partials, Plain, Point,
    },
};
use ndarray::{Array1, Array2, ArrayD, ArrayViewD, Axis, IxDyn, array, s};
use proptest::prelude::*;

/// An estimator of another crate, whose "gradient" is the output it was shown.
#[derive(Debug, Clone)]
struct Output;

impl StraightThroughEstimator for Output {
    fn partials(&self, at: &Point, _gradient: f32) -> Partials {
        Partials {
            input: at.output(),
            ..Partials::default()
        }
    }
}

/// An observer of another crate: the extremes of everything.
#[derive(Debug, Default)]
struct Extremes {
    count: u64,
    min: f32,
    max: f32,
}

impl Observer for Extremes {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        let ranges = Ranges::of(&batch, Granularity::PerTensor)?;
        let range = ranges.as_slice()[0];
        self.min = self.min.min(range.min());
        self.max = self.max.max(range.max());
        self.count += batch.len() as u64;
        Ok(())
    }

    fn granularity(&self) -> Granularity {
        Granularity::PerTensor
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        (self.count > 0).then_some(&[])
    }

    fn statistics(&self, _parameter: usize) -> Result<Statistics<'_>> {
        let range = Range::new(self.min, self.max)?;
        Ok(Statistics::new("Extremes", self.count, range))
    }

    fn merge(&mut self, _other: &dyn Observer) -> Result<()> {
        Err(Error::other("extremes do not merge"))
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self::default())
    }
}

/// A calibrator of another crate: a part of the range.
#[derive(Debug)]
struct Part(f32);

impl Calibrator for Part {
    fn range(&self, statistics: &Statistics<'_>, _scheme: &Scheme) -> Result<Range> {
        let range = statistics.range();
        Range::new(range.min() * self.0, range.max() * self.0)
    }
}

fn observed(scheme: Scheme) -> ObservedFakeQuant<Clipped> {
    ObservedFakeQuant::new(
        scheme,
        Box::new(Extremes::default()),
        Box::new(Part(1.0)),
        Clipped,
    )
    .unwrap()
}

fn schemes() -> impl Strategy<Value = Scheme> {
    let bits = prop_oneof![1_u32..=8, Just(16)];
    let mapping = prop_oneof![
        Just(Mapping::Symmetric),
        Just(Mapping::SymmetricHalfRange),
        Just(Mapping::Asymmetric),
        Just(Mapping::AsymmetricFloat),
    ];
    let scale_kind = prop_oneof![
        Just(ScaleKind::F32),
        Just(ScaleKind::F16),
        Just(ScaleKind::PowerOfTwo),
    ];
    let granularity = prop_oneof![
        Just(Granularity::PerTensor),
        (0..2_usize).prop_map(Granularity::PerAxis),
        (1..9_usize).prop_map(Granularity::PerGroup),
        (0..2_usize, 1..9_usize).prop_map(|(axis, size)| Granularity::PerGroupAlong { axis, size }),
        (1..5_usize, 1..5_usize)
            .prop_map(|(rows, columns)| Granularity::PerBlock { rows, columns }),
        Just(Granularity::PerRow),
    ];
    let float = prop_oneof![
        Just(FloatFormat::E4M3),
        Just(FloatFormat::E5M2),
        Just(FloatFormat::E2M1)
    ];
    (
        bits,
        any::<[bool; 3]>(),
        mapping,
        scale_kind,
        granularity,
        float,
    )
        .prop_filter_map(
            "not a scheme",
            |(bits, [is_float, unsigned, narrow], mapping, scale_kind, granularity, float)| {
                let mut builder = if is_float {
                    Scheme::float(float)
                } else {
                    Scheme::int(bits).mapping(mapping)
                };
                if unsigned {
                    builder = builder.unsigned();
                }
                if narrow {
                    builder = builder.narrow_range();
                }
                builder
                    .scale_kind(scale_kind)
                    .granularity(granularity)
                    .build()
                    .ok()
            },
        )
}

/// Ordinary numbers, halves (which are ties), and what floats have at their ends.
fn numbers() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![
        8 => -3.0_f32..3.0,
        3 => (-40..40_i32).prop_map(|x| x as f32 * 0.5),
        1 => prop::sample::select(vec![
            0.0, -0.0, 1e-45, -1e-40, f32::MIN_POSITIVE, 1e30, f32::MAX, f32::MIN,
            f32::INFINITY, f32::NEG_INFINITY,
        ]),
    ]
}

fn arrays(numbers: impl Strategy<Value = f32> + Clone) -> impl Strategy<Value = Array2<f32>> {
    (0..6_usize, 0..10_usize).prop_flat_map(move |(rows, columns)| {
        prop::collection::vec(numbers.clone(), rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    })
}

/// A fake-quant whose parameters an optimizer has moved: each from a list of numbers, over and over.
fn learned<E: StraightThroughEstimator>(
    scheme: Scheme,
    shape: &[usize],
    moved: &[(f32, f32)],
    estimator: E,
) -> AffineFakeQuant<E> {
    let groups = Groups::new(shape, scheme.granularity()).unwrap();
    let ranges = vec![Range::new(-1.0, 1.0).unwrap(); groups.parameters()];
    let ranges = Ranges::new(&groups.parameter_shape(), ranges).unwrap();
    let affine = Affine::from_ranges(&scheme, &ranges).unwrap();
    let mut fake = AffineFakeQuant::new(affine, estimator);
    let moved = moved.iter().cycle().take(groups.parameters());
    let (scale, zero): (Vec<f32>, Vec<f32>) = moved.copied().unzip();
    fake.set_scale(&scale).unwrap();
    if !scheme.mapping().is_symmetric() {
        fake.set_zero_point(&zero).unwrap();
    }
    fake
}

fn moves() -> impl Strategy<Value = Vec<(f32, f32)>> {
    let scale = prop_oneof![1e-3_f32..2.0, -1.0_f32..1e-6, 1.0_f32..60_000.0];
    prop::collection::vec((scale, -300.0_f32..300.0), 1..5)
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

proptest! {
    #[test]
    fn converting_gives_what_the_forward_pass_gave(
        scheme in schemes(), x in arrays(numbers()), moved in moves(),
    ) {
        let fake = learned(scheme, x.shape(), &moved, Lsq);
        let y = fake.forward(&x).unwrap();
        let converted = fake.convert(&x).unwrap().dequantize::<f32>();
        prop_assert_eq!(converted.shape(), x.shape());
        prop_assert_eq!(bits(&y), bits(&converted));
        prop_assert_eq!(bits(&y), bits(&fake_quantize(&x, fake.affine()).unwrap()));
    }

    #[test]
    fn the_backward_pass_sees_what_the_forward_pass_gave(
        scheme in schemes(), x in arrays(prop_oneof![20 => numbers(), 1 => Just(f32::NAN)]),
        moved in moves(),
    ) {
        let fake = learned(scheme, x.shape(), &moved, Output);
        let seen = fake.backward(&x, &x).unwrap().input;
        let y = fake.forward(&x).unwrap();
        for (&seen, &y) in seen.iter().zip(&y) {
            prop_assert!(seen.to_bits() == y.to_bits() || seen.is_nan() && y.is_nan());
        }
        prop_assert_eq!(x.mapv(f32::is_nan), y.mapv(f32::is_nan));
    }

    #[test]
    fn dynamic_ranges_are_those_of_the_input(
        scheme in schemes(), x in arrays(-1e3_f32..1e3),
    ) {
        let fake: Box<dyn FakeQuant> = Box::new(DynamicFakeQuant::new(scheme, Plain));
        let ranges = Ranges::of(&x, scheme.granularity()).unwrap();
        let affine = Affine::from_ranges(&scheme, &ranges).unwrap();
        let y = fake.forward(&x).unwrap();
        prop_assert_eq!(bits(&y), bits(&fake_quantize(&x, &affine).unwrap()));
        prop_assert_eq!(bits(&y), bits(&fake.convert(&x).unwrap().dequantize::<f32>()));
        let gradients = fake.backward(&x, &x).unwrap();
        prop_assert_eq!(gradients.input, x);
        prop_assert!(gradients.scale.is_empty() && gradients.zero_point.is_empty());
    }

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
                    error, Error::InvalidScale { .. } | Error::Empty { .. }
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

/// Gradients of a large tensor with uneven values, as one number.
fn fingerprint(granularity: Granularity) -> u64 {
    let shape = (257, 1001);
    let wave = |k: usize| (k as u64 * 2_654_435_761 % 100_003) as f32 / 20_000.0 - 2.5;
    let x = Array2::from_shape_fn(shape, |(i, j)| wave(i * 1001 + j));
    let g = Array2::from_shape_fn(shape, |(i, j)| wave(j * 257 + i));
    let scheme = Scheme::int(4)
        .asymmetric()
        .granularity(granularity)
        .build()
        .unwrap();
    let fake = AffineFakeQuant::new(Lsq::initial(&x, &scheme).unwrap(), Lsq);
    let gradients = fake.backward(&x, &g).unwrap();
    let all = gradients
        .input
        .iter()
        .chain(&gradients.scale)
        .chain(&gradients.zero_point);
    all.fold(0xcbf2_9ce4_8422_2325, |hash, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}

const GRANULARITIES: [Granularity; 5] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerGroup(7),
    Granularity::PerBlock {
        rows: 3,
        columns: 5,
    },
];

/// The same numbers with rayon and without, since both builds run this.
#[test]
fn gradients_have_the_same_bits_in_every_build() {
    let fingerprints = GRANULARITIES.map(fingerprint);
    let expected = [
        0xd64d_e11c_5938_b9b0,
        0x5eea_9713_98bc_0774,
        0x8cf0_fc07_0d71_a1da,
        0x0b84_e848_01d4_b643,
        0x6d40_6362_7085_86d5,
    ];
    assert_eq!(fingerprints, expected, "{fingerprints:#x?}");
}

#[cfg(feature = "rayon")]
#[test]
fn gradients_have_the_same_bits_with_any_number_of_threads() {
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| GRANULARITIES.map(fingerprint))
    };
    let alone = in_pool(1);
    for threads in [2, 5] {
        assert_eq!(in_pool(threads), alone);
    }
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
