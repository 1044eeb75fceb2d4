//! The three matrix products of a linear layer `y = x · wᵀ`.

use ndarray::{Array2, linalg::general_mat_mul};

/// `x · wᵀ`: `[m, in] · [out, in] → [m, out]`.
pub fn outputs(x: &Array2<f32>, weights: &Array2<f32>) -> Array2<f32> {
    x.dot(&weights.t())
}

/// Adds the gradient of the inputs: `[m, out] · [out, in] → [m, in]`.
pub fn add_to_inputs(gradient: &Array2<f32>, weights: &Array2<f32>, into: &mut Array2<f32>) {
    general_mat_mul(1.0, gradient, weights, 1.0, into);
}

/// Adds the gradient of the weights: `[m, out]ᵀ · [m, in] → [out, in]`.
pub fn add_to_weights(gradient: &Array2<f32>, x: &Array2<f32>, into: &mut Array2<f32>) {
    general_mat_mul(1.0, &gradient.t(), x, 1.0, into);
}
