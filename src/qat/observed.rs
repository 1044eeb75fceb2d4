//! Fake quantization with the range that an observer has seen.

use ndarray::{ArrayD, ArrayViewD};

use super::{
    AffineFakeQuant, FakeQuant, Gradients, StraightThroughEstimator,
    backward::{Wanted, backward},
    dynamic::passed,
};
use crate::{
    affine::{Affine, fake_quantize},
    calibrate::{self, Calibrator},
    error::{Error, Result},
    observe::Observer,
    scheme::Scheme,
    tensor::QTensor,
};

/// Fake quantization with parameters that a calibrator chooses from an observer's statistics, anew
/// at each [`observe`](super::FakeQuantExt::observe).
///
/// Observing and fake-quantizing are switched apart: collect statistics first and fake-quantize
/// later, or freeze the range after some steps. Both start switched on. Nothing is learned here, so
/// the gradients of scales and zero points are empty;
/// [`into_learnable`](Self::into_learnable) goes on from the observed range with learned parameters.
///
/// Any observer and calibrator serve, those of other crates too:
///
/// ```
/// use lowbit::{Calibrator, Error, FakeQuantExt, Granularity, Observer, Range, Scheme};
/// use lowbit::observe::Statistics;
/// use lowbit::qat::{Clipped, ObservedFakeQuant};
/// use ndarray::{ArrayViewD, array};
/// # /// The extremes of all batches.
/// # #[derive(Debug, Default)]
/// # struct Extremes { count: u64, min: f32, max: f32 }
/// # impl Observer for Extremes {
/// #     fn observe_view(&mut self, batch: ArrayViewD<'_, f32>) -> Result<(), Error> {
/// #         if let Some(&bad) = batch.iter().find(|x| !x.is_finite()) {
/// #             return Err(Error::other(format!("got {bad}")));
/// #         }
/// #         for &x in &batch { self.min = self.min.min(x); self.max = self.max.max(x); }
/// #         self.count += batch.len() as u64;
/// #         Ok(())
/// #     }
/// #     fn granularity(&self) -> Granularity { Granularity::PerTensor }
/// #     fn parameter_shape(&self) -> Option<&[usize]> { (self.count > 0).then_some(&[]) }
/// #     fn statistics(&self, _: usize) -> Result<Statistics<'_>, Error> {
/// #         Ok(Statistics::new("Extremes", self.count, Range::new(self.min, self.max)?))
/// #     }
/// #     fn merge(&mut self, _: &dyn Observer) -> Result<(), Error> { Err(Error::other("no merging")) }
/// #     fn reset(&mut self) { *self = Self::default(); }
/// #     fn fork(&self) -> Box<dyn Observer> { Box::new(Self::default()) }
/// # }
/// # /// All of it.
/// # #[derive(Debug)]
/// # struct Everything;
/// # impl Calibrator for Everything {
/// #     fn range(&self, statistics: &Statistics<'_>, _: &Scheme) -> Result<Range, Error> {
/// #         Ok(statistics.range())
/// #     }
/// # }
///
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let observer = Box::new(Extremes::default()); // an `Observer`
/// let mut fake = ObservedFakeQuant::new(scheme, observer, Box::new(Everything), Clipped)?;
///
/// // statistics only, at first
/// fake.set_fake_quantizing(false);
/// let batch = array![[0.0_f32, 10.2], [25.5, 12.34]];
/// fake.observe(&batch)?;
/// assert_eq!(fake.forward(&batch)?, batch);
///
/// // then fake quantization, with the range frozen
/// fake.set_fake_quantizing(true);
/// fake.set_observing(false);
/// fake.observe(&array![99.0_f32])?;
/// assert!((fake.forward(&batch)?[[1, 1]] - 12.3).abs() < 1e-5);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct ObservedFakeQuant<E> {
    scheme: Scheme,
    observer: Box<dyn Observer>,
    calibrator: Box<dyn Calibrator>,
    estimator: E,
    /// From the statistics as they are; `None` before the first batch.
    affine: Option<Affine>,
    observing: bool,
    fake_quantizing: bool,
}

impl<E: StraightThroughEstimator> ObservedFakeQuant<E> {
    /// With an observer, which may have seen batches already, and a calibrator.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the observer's granularity is not the scheme's; those of the
    /// calibrator for what the observer has seen.
    pub fn new(
        scheme: Scheme,
        observer: Box<dyn Observer>,
        calibrator: Box<dyn Calibrator>,
        estimator: E,
    ) -> Result<Self> {
        if observer.granularity() != scheme.granularity() {
            return Err(Error::Mismatch {
                what: "granularity",
                expected: scheme.granularity().to_string(),
                got: format!("an observer {}", observer.granularity()),
            });
        }
        let mut fake = Self {
            scheme,
            observer,
            calibrator,
            estimator,
            affine: None,
            observing: true,
            fake_quantizing: true,
        };
        if fake.observer.parameter_shape().is_some() {
            fake.affine = Some(fake.calibrated()?);
        }
        Ok(fake)
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The observer, to look at its statistics.
    #[must_use]
    pub fn observer(&self) -> &dyn Observer {
        &*self.observer
    }

    /// The parameters that the passes compute with; `None` before the first batch.
    #[must_use]
    pub fn affine(&self) -> Option<&Affine> {
        self.affine.as_ref()
    }

    /// Whether [`observe`](super::FakeQuantExt::observe) takes batches into account.
    #[must_use]
    pub fn is_observing(&self) -> bool {
        self.observing
    }

    /// Switches observing on or off. Off, [`observe`](super::FakeQuantExt::observe) does nothing,
    /// and the parameters stay as they are.
    pub fn set_observing(&mut self, observing: bool) {
        self.observing = observing;
    }

    /// Whether it fake-quantizes.
    #[must_use]
    pub fn is_fake_quantizing(&self) -> bool {
        self.fake_quantizing
    }

    /// Switches fake quantization on or off. Off, the forward pass returns its input and the
    /// backward pass the gradient; converting quantizes all the same.
    pub fn set_fake_quantizing(&mut self, fake_quantizing: bool) {
        self.fake_quantizing = fake_quantizing;
    }

    /// The same with parameters to learn, which start from the observed range; fake quantization
    /// stays on or off.
    ///
    /// # Errors
    /// [`Error::Empty`] before the first batch.
    pub fn into_learnable(self) -> Result<AffineFakeQuant<E>> {
        let affine = self.affine.ok_or_else(unobserved)?;
        let mut fake = AffineFakeQuant::new(affine, self.estimator);
        fake.set_enabled(self.fake_quantizing);
        Ok(fake)
    }

    fn calibrated(&self) -> Result<Affine> {
        let ranges = calibrate::ranges(&*self.calibrator, &*self.observer, &self.scheme)?;
        Affine::from_ranges(&self.scheme, &ranges)
    }

    fn chosen(&self) -> Result<&Affine> {
        self.affine.as_ref().ok_or_else(unobserved)
    }
}

fn unobserved() -> Error {
    Error::Empty {
        what: "observer of the fake quantization".into(),
    }
}

/// # Errors
/// Besides those of the trait: [`Error::Empty`] for a forward or backward pass that shall
/// fake-quantize, or a conversion, before anything was observed.
impl<E: StraightThroughEstimator> FakeQuant for ObservedFakeQuant<E> {
    /// Takes the input into account and chooses the parameters anew, where observing is on.
    ///
    /// # Errors
    /// Those of the observer, [`Error::NonFinite`] among them, and those of the calibrator. The
    /// parameters are then as before.
    fn observe_view(&mut self, input: ArrayViewD<'_, f32>) -> Result<()> {
        if self.observing {
            self.observer.observe_view(input)?;
            self.affine = Some(self.calibrated()?);
        }
        Ok(())
    }

    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        if !self.fake_quantizing {
            return Ok(input.to_owned());
        }
        fake_quantize(&input, self.chosen()?)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        if !self.fake_quantizing {
            return passed(&input, &gradient);
        }
        let affine = self.chosen()?;
        backward(&input, &gradient, affine, &self.estimator, Wanted::Input)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        QTensor::quantize(&input, self.chosen()?)
    }

    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        let affine = self.chosen()?;
        affine.groups(input.shape())?;
        Ok(affine.clone())
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        self.fake_quantizing = enabled;
        Ok(())
    }

    fn freeze(&mut self, frozen: bool) {
        self.observing = !frozen;
    }

    /// Under the scheme of these parameters, which a next batch replaces unless the range is frozen.
    fn restart(&mut self, affine: &Affine) -> Result<()> {
        if affine.scheme().granularity() != self.scheme.granularity() {
            return Err(Error::Mismatch {
                what: "granularity",
                expected: self.scheme.granularity().to_string(),
                got: affine.scheme().granularity().to_string(),
            });
        }
        self.scheme = *affine.scheme();
        self.affine = Some(affine.clone());
        Ok(())
    }
}
