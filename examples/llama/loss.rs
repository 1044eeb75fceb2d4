//! Losses over logits `[tokens, vocabulary]`: sums over the tokens, and their gradients.

use ndarray::Array2;
use pulp::{Arch, Simd, WithSimd};

use super::vector::exp;

/// `Σ −log softmax(logits)[target]`, and its gradient.
pub fn cross_entropy(logits: &Array2<f32>, targets: &[u16]) -> (f64, Array2<f32>) {
    let (mut gradient, log_sums) = softmax(logits);
    let mut loss = 0.0;
    for (token, &target) in targets.iter().enumerate() {
        let at = [token, target.into()];
        loss += f64::from(log_sums[token] - logits[at]);
        gradient[at] -= 1.0;
    }
    (loss, gradient)
}

/// `Σ KL(softmax(teacher) ‖ softmax(logits))`, and its gradient with respect to `logits`.
pub fn divergence(logits: &Array2<f32>, teacher: &Array2<f32>) -> (f64, Array2<f32>) {
    let (wanted, wanted_sums) = softmax(teacher);
    let (mut gradient, log_sums) = softmax(logits);
    let mut loss = 0.0;
    for token in 0..logits.nrows() {
        let shift = log_sums[token] - wanted_sums[token];
        let rows = wanted
            .row(token)
            .into_iter()
            .zip(teacher.row(token))
            .zip(logits.row(token));
        let sum: f32 = rows
            .map(|((p, teacher), logit)| p * (teacher - logit))
            .sum();
        loss += f64::from(sum + shift);
    }
    gradient -= &wanted;
    (loss, gradient)
}

/// Probabilities, and the logarithm of each row's sum of exponentials.
pub fn softmax(logits: &Array2<f32>) -> (Array2<f32>, Vec<f32>) {
    let mut rows = Rows {
        width: logits.ncols(),
        values: logits.iter().copied().collect(),
        log_sums: Vec::with_capacity(logits.nrows()),
    };
    Arch::new().dispatch(&mut rows);
    let probabilities = Array2::from_shape_vec(logits.dim(), rows.values);
    (probabilities.expect("as many"), rows.log_sums)
}

struct Rows {
    width: usize,
    values: Vec<f32>,
    log_sums: Vec<f32>,
}

impl WithSimd for &mut Rows {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for row in self.values.chunks_exact_mut(self.width.max(1)) {
            let (vectors, rest) = S::as_simd_f32s(row);
            let mut most = simd.splat_f32s(f32::NEG_INFINITY);
            for &x in vectors {
                most = simd.max_f32s(most, x);
            }
            let most = rest
                .iter()
                .fold(simd.reduce_max_f32s(most), |a, &b| a.max(b));
            exp(simd, row, most);
            let (vectors, rest) = S::as_mut_simd_f32s(row);
            let mut sum = simd.splat_f32s(0.0);
            for &mut x in &mut *vectors {
                sum = simd.add_f32s(sum, x);
            }
            let sum = simd.reduce_sum_f32s(sum) + rest.iter().sum::<f32>();
            self.log_sums.push(most + sum.ln());
            let share = simd.splat_f32s(1.0 / sum);
            for p in vectors {
                *p = simd.mul_f32s(*p, share);
            }
            rest.iter_mut().for_each(|p| *p /= sum);
        }
    }
}
