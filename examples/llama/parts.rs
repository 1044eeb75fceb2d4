//! What lies between the linear layers: norms, rotary embedding, the gate.

use ndarray::{Array1, Array2, Zip};
use pulp::{Arch, Simd, WithSimd};

use super::vector::sigmoid_vector;

/// Each row divided by its root mean square, times a gain.
pub fn rms_norm(x: &Array2<f32>, gain: &Array1<f32>, epsilon: f32) -> Array2<f32> {
    let mut normed = x.to_owned();
    for mut row in normed.rows_mut() {
        let mean = row.dot(&row) / row.len() as f32;
        row *= 1.0 / (mean + epsilon).sqrt();
        row *= gain;
    }
    normed
}

/// Adds the gradient of the input of [`rms_norm`], given that of its output, and that of its gain
/// where it is asked for.
pub fn add_rms_norm_gradient(
    x: &Array2<f32>,
    gain: &Array1<f32>,
    epsilon: f32,
    gradient: &Array2<f32>,
    into: &mut Array2<f32>,
    mut to_gain: Option<&mut Array1<f32>>,
) {
    let rows = x.rows().into_iter().zip(gradient.rows());
    for ((x, gradient), mut into) in rows.zip(into.rows_mut()) {
        let count = x.len() as f32;
        let inverse = 1.0 / (x.dot(&x) / count + epsilon).sqrt();
        let products = x.iter().zip(&gradient).zip(gain);
        let along: f32 = products
            .map(|((x, gradient), gain)| x * gradient * gain)
            .sum();
        let pull = along * inverse.powi(3) / count;
        Zip::from(&mut into)
            .and(&x)
            .and(&gradient)
            .and(gain)
            .for_each(|into, x, gradient, gain| *into += gradient * gain * inverse - pull * x);
        if let Some(to_gain) = &mut to_gain {
            Zip::from(&mut **to_gain)
                .and(&x)
                .and(&gradient)
                .for_each(|sum, x, gradient| *sum += gradient * x * inverse);
        }
    }
}

/// Turns element `j` of each head with element `j + size / 2`, by the position of the row.
pub fn rotate(x: &mut Array2<f32>, size: usize, frequencies: &[f32]) {
    turn(x, size, frequencies, 1.0, |row| row);
}

/// The opposite of [`rotate`], which is also its gradient.
pub fn rotate_back(x: &mut Array2<f32>, size: usize, frequencies: &[f32]) {
    turn(x, size, frequencies, -1.0, |row| row);
}

/// [`rotate`], where all rows have the same position.
pub fn rotate_at(x: &mut Array2<f32>, size: usize, frequencies: &[f32], position: usize) {
    turn(x, size, frequencies, 1.0, |_| position);
}

fn turn(
    x: &mut Array2<f32>,
    size: usize,
    frequencies: &[f32],
    direction: f32,
    position: impl Fn(usize) -> usize,
) {
    let mut turns = vec![(0.0, 0.0); frequencies.len()];
    for (row_index, mut row) in x.rows_mut().into_iter().enumerate() {
        let position = position(row_index);
        for (turn, &frequency) in turns.iter_mut().zip(frequencies) {
            let (sin, cos) = (position as f32 * frequency).sin_cos();
            *turn = (direction * sin, cos);
        }
        for mut head in row.exact_chunks_mut(size) {
            for (j, &(sin, cos)) in turns.iter().enumerate() {
                let (a, b) = (head[j], head[j + size / 2]);
                head[j] = a * cos - b * sin;
                head[j + size / 2] = b * cos + a * sin;
            }
        }
    }
}

/// `silu(gate) · up`.
pub fn gated(gate: &Array2<f32>, up: &Array2<f32>) -> Array2<f32> {
    let mut output = Array2::zeros(gate.dim());
    Arch::new().dispatch(Gate {
        gate: floats(gate),
        up: floats(up),
        output: output.as_slice_mut().expect("row-major"),
    });
    output
}

/// The gradients of gate and up, given that of [`gated`].
pub fn gated_gradients(
    gate: &Array2<f32>,
    up: &Array2<f32>,
    gradient: &Array2<f32>,
) -> [Array2<f32>; 2] {
    let mut outputs = [Array2::zeros(gate.dim()), Array2::zeros(gate.dim())];
    Arch::new().dispatch(GateBackward {
        gate: floats(gate),
        up: floats(up),
        gradient: floats(gradient),
        outputs: outputs
            .each_mut()
            .map(|output| output.as_slice_mut().expect("row-major")),
    });
    outputs
}

fn floats(x: &Array2<f32>) -> &[f32] {
    x.as_slice().expect("row-major")
}

struct Gate<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    output: &'a mut [f32],
}

impl WithSimd for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gate, gate_rest) = S::as_simd_f32s(self.gate);
        let (up, up_rest) = S::as_simd_f32s(self.up);
        let (output, output_rest) = S::as_mut_simd_f32s(self.output);
        for ((&gate, &up), output) in gate.iter().zip(up).zip(output) {
            let silu = simd.mul_f32s(gate, sigmoid_vector(simd, gate));
            *output = simd.mul_f32s(silu, up);
        }
        for ((&gate, &up), output) in gate_rest.iter().zip(up_rest).zip(output_rest) {
            *output = gate * sigmoid(gate) * up;
        }
    }
}

struct GateBackward<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    gradient: &'a [f32],
    outputs: [&'a mut [f32]; 2],
}

impl WithSimd for GateBackward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gate, gate_rest) = S::as_simd_f32s(self.gate);
        let (up, up_rest) = S::as_simd_f32s(self.up);
        let (gradient, gradient_rest) = S::as_simd_f32s(self.gradient);
        let [to_gate, to_up] = self.outputs;
        let (to_gate, to_gate_rest) = S::as_mut_simd_f32s(to_gate);
        let (to_up, to_up_rest) = S::as_mut_simd_f32s(to_up);
        let one = simd.splat_f32s(1.0);
        let inputs = gate.iter().zip(up).zip(gradient);
        for (((&gate, &up), &gradient), (to_gate, to_up)) in
            inputs.zip(to_gate.iter_mut().zip(to_up))
        {
            let s = sigmoid_vector(simd, gate);
            let slope = simd.mul_add_e_f32s(gate, simd.sub_f32s(one, s), one);
            *to_gate = simd.mul_f32s(simd.mul_f32s(gradient, up), simd.mul_f32s(s, slope));
            *to_up = simd.mul_f32s(gradient, simd.mul_f32s(gate, s));
        }
        let inputs = gate_rest.iter().zip(up_rest).zip(gradient_rest);
        for (((&gate, &up), &gradient), (to_gate, to_up)) in
            inputs.zip(to_gate_rest.iter_mut().zip(to_up_rest))
        {
            let s = sigmoid(gate);
            *to_gate = gradient * up * s * (1.0 + gate * (1.0 - s));
            *to_up = gradient * gate * s;
        }
    }
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}
