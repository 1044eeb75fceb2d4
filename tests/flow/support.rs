//! A model that taps its sites, and numbers for it.

use lowbit::{
    Granularity, Result, Scheme,
    calibrate::{MeanSquaredError, Percentile},
    flow::{Calibrated, Calibration, Site},
    observe::{MinMax, MovingAverageMinMax},
};
use ndarray::Array2;

pub(super) fn activations() -> Scheme {
    Scheme::int(8).unsigned().asymmetric().build().unwrap()
}

/// Numbers about 0 with a few outliers, the same for the same seed.
pub(super) fn bell(rows: usize, columns: usize, seed: u64) -> Array2<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    Array2::from_shape_simple_fn((rows, columns), || {
        let sum: f64 = (0..12).map(|_| random()).sum::<f64>() - 6.0;
        let far = if random() < 0.002 { 9.0 } else { 1.0 };
        (sum * far) as f32
    })
}

/// A session with sites of several kinds.
pub(super) fn session() -> Calibration {
    let channels = Scheme::int(8).asymmetric().per_axis(1).build().unwrap();
    let observed = Site::new(activations())
        .unwrap()
        .with_observer(MinMax::new(Granularity::PerTensor))
        .unwrap();
    Calibration::new(Site::new(activations()).unwrap())
        .with_site(
            "clipped",
            Site::new(activations())
                .unwrap()
                .with_calibrator(Percentile::new(99.0).unwrap()),
        )
        .with_site(
            "channels",
            Site::new(channels)
                .unwrap()
                .with_calibrator(MeanSquaredError::default()),
        )
        .with_site("observed", observed)
}

pub(super) fn averaged() -> Site {
    let observer = MovingAverageMinMax::new(Granularity::PerTensor);
    Site::new(activations())
        .unwrap()
        .with_observer(observer.with_averaging_constant(0.5).unwrap())
        .unwrap()
}

/// A forward pass over a batch, which taps every site.
pub(super) fn forward(calibration: &Calibration, batch: u64) -> Result<()> {
    let x = bell(16, 8, batch);
    calibration.tap("input", &x)?;
    calibration.tap("clipped", &x.mapv(|x| x.max(0.0)))?;
    calibration.tap("channels", &(&x * 0.1 - 0.3))?;
    calibration.tap("observed", &x.t())?;
    Ok(())
}

/// All that a calibration says, to the bit.
pub(super) fn said(calibrated: &Calibrated) -> String {
    let sites: Vec<_> = calibrated.sites().collect();
    format!("{sites:?}")
}
