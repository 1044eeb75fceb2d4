//! Proximal maps where a fake-quant is wanted.

use ndarray::{ArrayD, ArrayViewD};

use super::{DynamicFakeQuant, FakeQuant, Gradients, Plain, Proximal, dynamic::passed};
use crate::{
    affine::Affine, calibrate::Calibrator, error::Result, scheme::Scheme, tensor::QTensor,
};

/// The weights that a [`Proximal`] map makes of latent ones at a step, over the ranges that a
/// calibrator finds in the latent ones in each pass. The gradient goes to the latent weights as it
/// is.
///
/// [`begin_step`](FakeQuant::begin_step) says which step it is. Before the map's end the weights of
/// the forward pass are not on the grid yet, and conversion gives other ones; from the end on it
/// gives the same.
///
/// ```
/// use lowbit::{FakeQuant, FakeQuantExt, Scheme, calibrate::MeanSquaredError};
/// use lowbit::qat::{Proximal, ProximalFakeQuant, ProximalMap};
/// use ndarray::array;
///
/// let map = Proximal::new(ProximalMap::Parq { steepness: 10.0 }, 10, 100)?;
/// let ternary = Scheme::int(2).narrow_range().per_axis(0).build()?;
/// let mut fake = ProximalFakeQuant::new(ternary, map, MeanSquaredError::default());
/// let latent = array![[0.9_f32, -0.2, -1.0, 0.3]];
/// assert_eq!(fake.forward(&latent)?, latent); // step 0
/// fake.begin_step(100);
/// assert_eq!(fake.forward(&latent)?.into_dyn(), fake.convert(&latent)?.dequantize::<f32>());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ProximalFakeQuant {
    grid: DynamicFakeQuant<Plain>,
    proximal: Proximal,
    step: u64,
}

impl ProximalFakeQuant {
    /// At step 0, switched on.
    #[must_use]
    pub fn new(scheme: Scheme, proximal: Proximal, calibrator: impl Calibrator + 'static) -> Self {
        Self {
            grid: DynamicFakeQuant::new(scheme, Plain).with_calibrator(calibrator),
            proximal,
            step: 0,
        }
    }
}

impl FakeQuant for ProximalFakeQuant {
    fn begin_step(&mut self, step: u64) {
        self.step = step;
    }

    fn forward_view(&self, input: ArrayViewD<'_, f32>) -> Result<ArrayD<f32>> {
        if !self.grid.is_enabled() {
            return Ok(input.to_owned());
        }
        let affine = self.grid.affine_view(input.view())?;
        self.proximal.weights(self.step, &input, &affine)
    }

    fn backward_view(
        &self,
        input: ArrayViewD<'_, f32>,
        gradient: ArrayViewD<'_, f32>,
    ) -> Result<Gradients> {
        passed(&input, &gradient)
    }

    fn convert_view(&self, input: ArrayViewD<'_, f32>) -> Result<QTensor> {
        self.grid.convert_view(input)
    }

    fn affine_view(&self, input: ArrayViewD<'_, f32>) -> Result<Affine> {
        self.grid.affine_view(input)
    }

    fn switch(&mut self, enabled: bool) -> Result<()> {
        self.grid.switch(enabled)
    }

    fn restart(&mut self, affine: &Affine) -> Result<()> {
        self.grid.restart(affine)
    }
}
