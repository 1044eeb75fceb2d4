//! Schemes, numbers, and parts as another crate would write them.

use lowbit::{
    Affine, Calibrator, Error, FloatFormat, Granularity, Groups, Mapping, Observer, Range, Ranges,
    Result, ScaleKind, Scheme, StraightThroughEstimator,
    observe::Statistics,
    qat::{AffineFakeQuant, Clipped, ObservedFakeQuant},
};
use ndarray::{Array2, ArrayViewD};
use proptest::prelude::*;

/// An observer of another crate: the extremes of everything.
#[derive(Debug, Default)]
pub(super) struct Extremes {
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
pub(super) struct Part(pub(super) f32);

impl Calibrator for Part {
    fn range(&self, statistics: &Statistics<'_>, _scheme: &Scheme) -> Result<Range> {
        let range = statistics.range();
        Range::new(range.min() * self.0, range.max() * self.0)
    }
}

pub(super) fn observed(scheme: Scheme) -> ObservedFakeQuant<Clipped> {
    ObservedFakeQuant::new(
        scheme,
        Box::new(Extremes::default()),
        Box::new(Part(1.0)),
        Clipped,
    )
    .unwrap()
}

pub(super) fn schemes() -> impl Strategy<Value = Scheme> {
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
pub(super) fn numbers() -> impl Strategy<Value = f32> + Clone {
    prop_oneof![
        8 => -3.0_f32..3.0,
        3 => (-40..40_i32).prop_map(|x| x as f32 * 0.5),
        1 => prop::sample::select(vec![
            0.0, -0.0, 1e-45, -1e-40, f32::MIN_POSITIVE, 1e30, f32::MAX, f32::MIN,
            f32::INFINITY, f32::NEG_INFINITY,
        ]),
    ]
}

pub(super) fn arrays(
    numbers: impl Strategy<Value = f32> + Clone,
) -> impl Strategy<Value = Array2<f32>> {
    (0..6_usize, 0..10_usize).prop_flat_map(move |(rows, columns)| {
        prop::collection::vec(numbers.clone(), rows * columns)
            .prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    })
}

/// A fake-quant whose parameters an optimizer has moved: each from a list of numbers, over and over.
pub(super) fn learned<E: StraightThroughEstimator>(
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

pub(super) fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    values.into_iter().map(|value| value.to_bits()).collect()
}

/// Numbers that look random, the same ones each time, in −1 to 1.
pub(super) struct Noise(pub(super) u64);

impl Noise {
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    }

    pub(super) fn array(&mut self, size: f32) -> Array2<f32> {
        Array2::from_shape_simple_fn((5, 10), || size * self.next())
    }
}

/// For arrays of 5 × 10, ragged groups and blocks among them.
pub(super) fn granularities() -> [Granularity; 7] {
    [
        Granularity::PerTensor,
        Granularity::PerAxis(0),
        Granularity::PerAxis(1),
        Granularity::PerGroup(4),
        Granularity::PerGroupAlong { axis: 0, size: 2 },
        Granularity::PerBlock {
            rows: 2,
            columns: 3,
        },
        Granularity::PerRow,
    ]
}
