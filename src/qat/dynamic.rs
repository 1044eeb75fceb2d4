//! Fake quantization with the range of each input.

use std::sync::Arc;

use ndarray::{ArrayD, ArrayViewD};

use super::{
    FakeQuant, Gradients, StraightThroughEstimator,
    backward::{Wanted, backward},
};
use crate::{
    affine::{Affine, Ranges, fake_quantize, same_shape},
    calibrate::{Calibrator, ranges_of},
    error::Result,
    scheme::Scheme,
    tensor::QTensor,
};

/// Fake quantization with parameters from each input itself, group by group, its least and greatest
/// element unless a calibrator chooses otherwise: dynamic activations "per token" with
/// [`Granularity::PerRow`](crate::Granularity::PerRow), but any granularity serves.
///
/// Nothing is learned: the gradients of scales and zero points are empty, and that of the input
/// takes the scales as constants.
///
/// A NaN or an infinity has no range: every method answers it with
/// [`Error::NonFinite`](crate::Error::NonFinite) and its position, where fake quantization with
/// given parameters lets it pass.
///
/// ```
/// use lowbit::{FakeQuantExt, Scheme};
/// use lowbit::qat::{DynamicFakeQuant, Plain};
/// use ndarray::array;
///
/// let scheme = Scheme::int(8).asymmetric().per_row().build()?;
/// let fake = DynamicFakeQuant::new(scheme, Plain);
/// let tokens = array![[0.0_f32, 25.5, 12.34], [-2.55, 0.0, -1.0]];
/// let y = fake.forward(&tokens)?;
/// assert!((y[[0, 2]] - 12.3).abs() < 1e-5); // a step of 0.1
/// assert_eq!(fake.convert(&tokens)?.affine().shape(), [2]);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct DynamicFakeQuant<E> {
    scheme: Scheme,
    /// Chooses the range of each group; the full one without.
    calibrator: Option<Arc<dyn Calibrator>>,
    estimator: E,
    enabled: bool,
}

impl<E: StraightThroughEstimator> DynamicFakeQuant<E> {
    /// For a scheme, switched on.
    #[must_use]
    pub fn new(scheme: Scheme, estimator: E) -> Self {
        Self {
            scheme,
            calibrator: None,
            estimator,
            enabled: true,
        }
    }

    /// With ranges that a calibrator chooses from the elements of each group.
    ///
    /// ```
    /// # use lowbit::{FakeQuantExt, Scheme, calibrate::MeanSquaredError};
    /// # use lowbit::qat::{Clipped, DynamicFakeQuant};
    /// # use ndarray::Array1;
    /// let weights = Array1::from_iter((0..100).map(|i| ((i * i % 97) as f32 / 50.0 - 1.0).powi(3)));
    /// let full = DynamicFakeQuant::new(Scheme::int(2).build()?, Clipped);
    /// let clipped = full.clone().with_calibrator(MeanSquaredError::default());
    /// let error = |y: Array1<f32>| (&y - &weights).mapv(|e| e * e).sum();
    /// assert!(error(clipped.forward(&weights)?) < error(full.forward(&weights)?));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[must_use]
    pub fn with_calibrator(mut self, calibrator: impl Calibrator + 'static) -> Self {
        self.calibrator = Some(Arc::new(calibrator));
        self
    }

    /// The scheme.
    #[must_use]
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// Whether it fake-quantizes.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Switches fake quantization on or off. Off, the forward pass returns its input, whatever it
    /// is, and the backward pass the gradient; converting quantizes all the same.
    ///
    /// ```
    /// # use lowbit::{FakeQuantExt, Scheme, qat::{Clipped, DynamicFakeQuant}};
    /// # use ndarray::array;
    /// let mut fake = DynamicFakeQuant::new(Scheme::int(2).build()?, Clipped);
    /// assert_eq!(fake.forward(&array![0.3_f32, 1.0])?, array![0.0, 1.0]);
    /// fake.set_enabled(false);
    /// assert_eq!(fake.forward(&array![0.3_f32, 1.0])?, array![0.3, 1.0]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn set_enabled(&mut self, enabled: bool) {
        self.enabled = enabled;
    }

    fn affine(&self, input: &ArrayViewD<'_, f32>) -> Result<Affine> {
        let ranges = match &self.calibrator {
            None => Ranges::of(input, self.scheme.granularity())?,
            Some(calibrator) => ranges_of(&**calibrator, input, &self.scheme, None)?,
        };
        Affine::from_ranges(&self.scheme, &ranges)
    }
}

impl<E: StraightThroughEstimator> FakeQuant for DynamicFakeQuant<E> {
    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        if !self.enabled {
            return Ok(input.to_owned());
        }
        fake_quantize(&input, &self.affine(&input)?)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        if !self.enabled {
            return passed(&input, &gradient);
        }
        let affine = self.affine(&input)?;
        backward(&input, &gradient, &affine, &self.estimator, Wanted::Input)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        QTensor::quantize(&input, &self.affine(&input)?)
    }

    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        self.affine(&input)
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        self.enabled = enabled;
        Ok(())
    }

    /// Under the scheme of these parameters; the parameters themselves come from each input.
    fn restart(&mut self, affine: &Affine) -> Result<()> {
        self.scheme = *affine.scheme();
        Ok(())
    }
}

/// The gradients of the identity, which has no parameters.
pub(super) fn passed(
    input: &ArrayViewD<'_, f32>,
    gradient: &ArrayViewD<'_, f32>,
) -> Result<Gradients> {
    same_shape("gradient", input.shape(), gradient.shape())?;
    Ok(Gradients {
        input: gradient.to_owned(),
        scale: vec![],
        zero_point: vec![],
    })
}
