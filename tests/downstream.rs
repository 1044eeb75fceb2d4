//! What a downstream crate does: its own observer, calibrator, quantizer, fake quantization and
//! estimator, composed with the ones of this crate, through public items alone.
#![expect(
    clippy::cast_possible_truncation,
    reason = "helpers of tests, with small numbers"
)]

use lowbit::{
    Affine, Error, Granularity, Groups, PackedLinear, QTensor, Range, Ranges, Result,
    RoundToNearest, Scheme,
    calibrate::{FullRange, MeanSquaredError, ranges},
    flow::{Calibration, Site},
    observe::{MinMax, Statistics},
    prelude::*,
    qat::{AffineFakeQuant, Gradients, Lsq, ObservedFakeQuant, Partials, Point},
};
use ndarray::{Array1, Array2, ArrayD, ArrayViewD, IxDyn, array};

/// An observer of the largest magnitude of each group.
#[derive(Debug, Clone)]
struct Magnitude {
    granularity: Granularity,
    seen: Option<(Vec<usize>, Vec<f32>, u64)>,
}

impl Magnitude {
    fn new(granularity: Granularity) -> Self {
        Self {
            granularity,
            seen: None,
        }
    }
}

impl Observer for Magnitude {
    fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<()> {
        let groups = Groups::new(batch.shape(), self.granularity)?;
        let shape = groups.parameter_shape();
        let (known, magnitudes, count) = self
            .seen
            .get_or_insert_with(|| (shape.clone(), vec![0.0; groups.parameters()], 0));
        if *known != shape {
            return Err(Error::ShapeMismatch {
                what: "batch",
                expected: known.clone(),
                got: shape,
            });
        }
        for (element, &x) in batch.iter().enumerate() {
            if !x.is_finite() {
                return Err(Error::other(format!("{x} came by")));
            }
            let magnitude = &mut magnitudes[groups.parameter_of(element)];
            *magnitude = magnitude.max(x.abs());
        }
        *count += batch.len() as u64;
        Ok(())
    }

    fn granularity(&self) -> Granularity {
        self.granularity
    }

    fn parameter_shape(&self) -> Option<&[usize]> {
        self.seen.as_ref().map(|(shape, ..)| shape.as_slice())
    }

    fn statistics(&self, parameter: usize) -> Result<Statistics<'_>> {
        let (_, magnitudes, count) = self.seen.as_ref().ok_or_else(|| Error::Empty {
            what: "magnitudes".into(),
        })?;
        let range = Range::new(-magnitudes[parameter], magnitudes[parameter])?;
        Ok(Statistics::new("magnitude", *count, range))
    }

    fn merge(&mut self, other: &dyn Observer) -> Result<()> {
        let other: &dyn std::any::Any = other;
        match (&mut self.seen, other.downcast_ref::<Self>()) {
            (_, None) => Err(Error::other("not a magnitude")),
            (None, Some(other)) => {
                self.seen.clone_from(&other.seen);
                Ok(())
            }
            (Some((_, ours, count)), Some(other)) => {
                if let Some((_, theirs, more)) = &other.seen {
                    for (ours, theirs) in ours.iter_mut().zip(theirs) {
                        *ours = ours.max(*theirs);
                    }
                    *count += more;
                }
                Ok(())
            }
        }
    }

    fn reset(&mut self) {
        self.seen = None;
    }

    fn fork(&self) -> Box<dyn Observer> {
        Box::new(Self::new(self.granularity))
    }
}

/// Half of the range that another calibrator chooses.
#[derive(Debug)]
struct Half<C>(C);

impl<C: Calibrator> Calibrator for Half<C> {
    fn range(&self, statistics: &Statistics<'_>, scheme: &Scheme) -> Result<Range> {
        let range = self.0.range(statistics, scheme)?;
        Range::new(range.min() / 2.0, range.max() / 2.0)
    }
}

/// Rounding toward zero, onto the grid that the full range gives.
#[derive(Debug)]
struct TowardZero(Scheme);

impl Quantizer for TowardZero {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let affine = Affine::of(&self.0, &weights)?;
        let groups = affine.groups(weights.shape())?;
        let codes: Vec<i32> = weights
            .iter()
            .enumerate()
            .map(|(element, x)| (x / affine.scale()[groups.parameter_of(element)]) as i32)
            .collect();
        let codes = ArrayD::from_shape_vec(weights.raw_dim(), codes).map_err(Error::other)?;
        QTensor::from_codes(&codes, &affine)
    }
}

/// A fake quantization that leaves small values alone.
#[derive(Debug)]
struct OnlyLarge<F> {
    inner: F,
    threshold: f32,
}

impl<F: FakeQuant> FakeQuant for OnlyLarge<F> {
    fn observe_view(&mut self, input: ArrayViewD<'_, f32>) -> Result<()> {
        self.inner.observe_view(input)
    }

    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        let mut output = self.inner.forward_view(input.view())?;
        output.zip_mut_with(&input, |y, &x| {
            if x.abs() < self.threshold {
                *y = x;
            }
        });
        Ok(output)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients<IxDyn>> {
        self.inner.backward_view(input, gradient)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        self.inner.convert_view(input)
    }
}

/// A gradient that fades with the distance from the code.
#[derive(Debug)]
struct Fading;

impl StraightThroughEstimator for Fading {
    fn partials(&self, at: &Point, gradient: f32) -> Partials {
        let distance = (at.position - at.level).abs();
        Partials {
            input: gradient * (1.0 - distance),
            ..Partials::default()
        }
    }
}

fn weights() -> Array2<f32> {
    Array2::from_shape_fn((6, 40), |(o, i)| {
        ((o * 13 + i * 29) % 31) as f32 / 7.0 - 2.0
    })
}

#[test]
fn an_observer_and_a_calibrator_of_ones_own_compose_with_ours() {
    let scheme = Scheme::int(8).per_axis(1).build().unwrap();
    let mut own = Magnitude::new(Granularity::PerAxis(1));
    own.observe(&array![[1.0_f32, -2.0], [0.5, 1.0]]).unwrap();
    let mut shard = own.fork();
    shard.observe(&array![[-4.0_f32, 0.0]]).unwrap();
    own.merge(&*shard).unwrap();
    let own_observer = ranges(&FullRange, &own, &scheme).unwrap();
    assert_eq!(own_observer.as_slice()[0], Range::new(-4.0, 4.0).unwrap());
    assert_eq!(own_observer.as_slice()[1], Range::new(-2.0, 2.0).unwrap());

    let mut ours = MinMax::new(Granularity::PerAxis(1));
    ours.observe(&array![[1.0_f32, -2.0]]).unwrap();
    let own_calibrator = ranges(&Half(FullRange), &ours, &scheme).unwrap();
    assert_eq!(
        own_calibrator.as_slice()[1],
        Range::new(-1.0, -1.0).unwrap()
    );
    assert!(
        ours.merge(&own).is_err(),
        "observers of two kinds must not merge"
    );

    // A calibrator that reads a histogram says that there is none.
    let error = ranges(&MeanSquaredError::default(), &own, &scheme).unwrap_err();
    assert!(matches!(error, Error::MissingStatistic { .. }), "{error}");
}

#[test]
fn a_calibration_session_takes_them() {
    let scheme = Scheme::int(8).build().unwrap();
    let site = Site::new(scheme)
        .unwrap()
        .with_observer(Magnitude::new(Granularity::PerTensor))
        .unwrap()
        .with_calibrator(Half(FullRange));
    let calibration = Calibration::new(site);
    calibration.tap("x", &array![1.0_f32, -254.0]).unwrap();
    let calibrated = calibration.finish().unwrap();
    assert_eq!(calibrated.affine("x").unwrap().scale(), [1.0]);
    assert!(calibrated.report("x").unwrap().clipped > 0.2);
}

#[test]
fn a_quantizer_of_ones_own_feeds_a_packed_layer() {
    let scheme = Scheme::int(4).per_group(16).build().unwrap();
    let methods: [Box<dyn Quantizer>; 3] = [
        Box::new(TowardZero(scheme)),
        Box::new(RoundToNearest::new(scheme)),
        Box::new(RoundToNearest::new(scheme).with_calibrator(Half(MeanSquaredError::default()))),
    ];
    let x = Array2::from_elem((1, 40), 1.0_f32);
    for method in &methods {
        let quantized = method.quantize(&weights()).unwrap();
        let layer = PackedLinear::pack(&quantized, None).unwrap();
        let y = layer.forward(&x).unwrap();
        let expected: Array1<f32> = quantized
            .dequantize::<f32>()
            .into_dimensionality::<ndarray::Ix2>()
            .unwrap()
            .sum_axis(ndarray::Axis(1));
        for (y, expected) in y.iter().zip(&expected) {
            approx::assert_relative_eq!(y, expected, max_relative = 1e-5, epsilon = 1e-5);
        }
    }
}

#[test]
fn an_estimator_and_a_fake_quantization_of_ones_own_compose_with_ours() {
    let scheme = Scheme::int(3).per_axis(0).build().unwrap();
    let affine = Affine::of(&scheme, &weights()).unwrap();
    let fakes: [Box<dyn FakeQuant>; 3] = [
        Box::new(AffineFakeQuant::new(affine.clone(), Fading)),
        Box::new(OnlyLarge {
            inner: AffineFakeQuant::new(affine, Lsq),
            threshold: 0.0,
        }),
        Box::new(
            ObservedFakeQuant::new(
                scheme,
                Box::new(Magnitude::new(Granularity::PerAxis(0))),
                Box::new(Half(FullRange)),
                Fading,
            )
            .unwrap(),
        ),
    ];
    // Scales are learned by the first two, observed by the third.
    for (mut fake, scales) in fakes.into_iter().zip([6, 6, 0]) {
        fake.observe(&weights()).unwrap();
        let y = fake.forward(&weights()).unwrap();
        let gradients = fake.backward(&weights(), &Array2::ones((6, 40))).unwrap();
        assert_eq!(gradients.input.dim(), (6, 40));
        assert_eq!(gradients.scale.len(), scales);
        let converted = fake.convert(&weights()).unwrap();
        assert_eq!(converted.dequantize::<f32>(), y.into_dyn());
    }
}

#[test]
fn ranges_made_elsewhere_make_parameters() {
    let scheme = Scheme::int(8)
        .unsigned()
        .asymmetric()
        .per_axis(0)
        .build()
        .unwrap();
    let elsewhere = vec![
        Range::new(0.0, 25.5).unwrap(),
        Range::new(-1.0, 1.55).unwrap(),
    ];
    let affine = Affine::from_ranges(&scheme, &Ranges::new(&[2], elsewhere).unwrap()).unwrap();
    assert_eq!(affine.scale(), [0.1, 0.01]);
    assert_eq!(affine.zero_point(), [0.0, 100.0]);
}
