//! Layers as language models have them: correlated inputs, some channels far larger than others.

use lowbit::observe::Hessian;
use ndarray::{Array1, Array2};

/// Numbers from a normal distribution, the same for the same seed.
pub(super) struct Normal(u64);

impl Normal {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(super) fn next(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    #[expect(clippy::cast_possible_truncation, reason = "the nearest f32 will do")]
    pub(super) fn array(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || self.next() as f32)
    }
}

/// Weights `[out, in]` and inputs `[tokens, in]`.
pub(super) struct Layer {
    pub(super) weights: Array2<f32>,
    pub(super) inputs: Array2<f32>,
}

impl Layer {
    /// Inputs mixed from half as many sources and a little noise; every 13th channel 12 times
    /// larger.
    pub(super) fn random(out: usize, channels: usize, tokens: usize, seed: u64) -> Self {
        let mut normal = Normal::new(seed);
        let sources = normal.array(tokens, channels.div_ceil(2));
        let mixing = normal.array(channels.div_ceil(2), channels);
        let noise = normal.array(tokens, channels);
        let mut inputs = sources.dot(&mixing) / (channels as f32).sqrt() + noise * 0.3;
        for channel in (4..channels).step_by(13) {
            inputs.column_mut(channel).mapv_inplace(|x| 12.0 * x);
        }
        let weights = normal.array(out, channels) * 0.05;
        Self { weights, inputs }
    }

    /// `XᵀX`, without the crate.
    pub(super) fn moments(&self) -> Array2<f64> {
        let inputs = self.inputs.mapv(f64::from);
        inputs.t().dot(&inputs)
    }

    pub(super) fn hessian(&self) -> Hessian {
        let mut hessian = Hessian::new(self.inputs.ncols()).unwrap();
        hessian.observe(&self.inputs).unwrap();
        hessian
    }

    /// `‖X (Ŵ − W)ᵀ‖²`, sum by sum.
    pub(super) fn output_error(&self, image: &Array2<f32>) -> f64 {
        let difference = (image - &self.weights).mapv(f64::from);
        let outputs = self.inputs.mapv(f64::from).dot(&difference.t());
        outputs.mapv(|y| y * y).sum()
    }

    /// The largest magnitude of each channel.
    pub(super) fn input_max(&self) -> Array1<f32> {
        let largest = |column: ndarray::ArrayView1<'_, f32>| {
            column.fold(0.0_f32, |most, x| most.max(x.abs()))
        };
        self.inputs.columns().into_iter().map(largest).collect()
    }
}

pub(super) fn close(got: &Array2<f32>, expected: &Array2<f32>, tolerance: f32) {
    let unit = expected.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    assert_eq!(got.shape(), expected.shape());
    for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = (got - expected).abs();
        assert!(error <= tolerance * unit, "{index}: {got}, not {expected}");
    }
}
