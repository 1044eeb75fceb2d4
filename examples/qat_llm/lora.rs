//! Low-rank adapters (Hu et al. 2021, arXiv:2106.09685) under fake quantization.
//!
//! The sum of base and adapters is what is moved onto the grid, so that merging them changes nothing:
//! the converted layer computes what training computed. (Adapters beside a quantized base, as the
//! paper has them, would be rounded once more when they are merged.)

use ndarray::{Array2, linalg::general_mat_mul};

use crate::{adam::Adam, stories::Random};

/// `base + up · down`, of which `up` and `down` are trained.
pub struct Adapters {
    /// `[out, in]`.
    base: Array2<f32>,
    /// `[out, rank]`, zero at first.
    up: Array2<f32>,
    /// `[rank, in]`.
    down: Array2<f32>,
    adam: [Adam; 2],
}

impl Adapters {
    pub fn new(base: Array2<f32>, rank: usize, random: &mut Random) -> Self {
        let (out, inputs) = base.dim();
        let bound = (3.0 / inputs as f32).sqrt();
        let down = Array2::from_shape_simple_fn((rank, inputs), || bound * random.uniform());
        let up = Array2::zeros((out, rank));
        Self {
            adam: [Adam::new(up.len()), Adam::new(down.len())],
            base,
            up,
            down,
        }
    }

    /// Moves the adapters against the gradient of their sum with the base, and writes that sum.
    pub fn step(&mut self, gradient: &Array2<f32>, rate: f32, merged: &mut Array2<f32>) {
        let to_up = gradient.dot(&self.down.t());
        let to_down = self.up.t().dot(gradient);
        let [up, down] = &mut self.adam;
        up.step(&mut self.up, &to_up, rate);
        down.step(&mut self.down, &to_down, rate);
        merged.assign(&self.base);
        general_mat_mul(1.0, &self.up, &self.down, 1.0, merged);
    }
}
