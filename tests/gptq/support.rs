//! Layers and inputs as models have them: correlated columns, a few of them loud.

use ndarray::Array2;

/// Numbers that look random, the same on every run (splitmix64).
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(super) fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    /// About normal: mean 0, variance 1.
    pub(super) fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    pub(super) fn matrix(&mut self, rows: usize, columns: usize) -> Array2<f32> {
        Array2::from_shape_simple_fn((rows, columns), || self.normal())
    }

    /// Inputs of a layer: a quarter as many causes as columns, noise, and every 29th column loud.
    pub(super) fn inputs(&mut self, tokens: usize, columns: usize) -> Array2<f32> {
        let causes = columns.div_ceil(4);
        let mut inputs = self
            .matrix(tokens, causes)
            .dot(&self.matrix(causes, columns));
        inputs += &(self.matrix(tokens, columns) * (causes as f32).sqrt() * 0.5);
        for mut column in inputs.columns_mut().into_iter().step_by(29) {
            column *= 8.0;
        }
        inputs
    }
}

/// `Xᵀ X` by its definition, in f64.
pub(super) fn square(inputs: &Array2<f32>) -> Array2<f64> {
    let inputs = inputs.mapv(f64::from);
    inputs.t().dot(&inputs)
}

/// The result of `work` on a pool of so many threads.
pub(super) fn on_threads<R: Send>(threads: usize, work: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
    pool.unwrap().install(work)
}
