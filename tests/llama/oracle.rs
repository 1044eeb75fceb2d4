//! The same model, written out in f64: full matrices, no shortcuts.

use ndarray::{Array1, Array2, s};

use crate::support::Shape;

#[derive(Clone)]
pub struct Oracle {
    pub shape: Shape,
    pub embedding: Array2<f64>,
    /// None if it is the embedding.
    pub head: Option<Array2<f64>>,
    pub blocks: Vec<OracleBlock>,
    pub norm: Array1<f64>,
    /// Added to the hidden states before the first block, in row-major order.
    pub shift: Vec<f64>,
}

#[derive(Clone)]
pub struct OracleBlock {
    pub norms: [Array1<f64>; 2],
    pub weights: Vec<Array2<f64>>,
    pub biases: Vec<Option<Array1<f64>>>,
}

impl Oracle {
    pub fn logits(&self, tokens: &[u16]) -> Array2<f64> {
        let hidden = self.shape.hidden;
        let mut x = Array2::from_shape_fn((tokens.len(), hidden), |(t, j)| {
            let shift = self.shift.get(t * hidden + j).unwrap_or(&0.0);
            self.embedding[[tokens[t].into(), j]] + shift
        });
        for block in &self.blocks {
            let normed = rms_norm(&x, &block.norms[0]);
            let [q, k, v] = [0, 1, 2].map(|layer| block.linear(layer, &normed));
            x = &x + &block.linear(3, &self.attention(&q, &k, &v));
            let normed = rms_norm(&x, &block.norms[1]);
            let [gate, up] = [4, 5].map(|layer| block.linear(layer, &normed));
            let gated = gate.mapv(|g| g / (1.0 + (-g).exp())) * up;
            x = &x + &block.linear(6, &gated);
        }
        let head = self.head.as_ref().unwrap_or(&self.embedding);
        rms_norm(&x, &self.norm).dot(&head.t())
    }

    /// Embedding, head and norms, in the order of those of the model.
    pub fn rest_mut(&mut self) -> impl Iterator<Item = &mut f64> {
        let matrices = self
            .embedding
            .iter_mut()
            .chain(self.head.iter_mut().flatten());
        let norms = self.blocks.iter_mut().flat_map(|block| &mut block.norms);
        matrices.chain(&mut self.norm).chain(norms.flatten())
    }

    fn attention(&self, q: &Array2<f64>, k: &Array2<f64>, v: &Array2<f64>) -> Array2<f64> {
        let Shape {
            heads,
            key_heads,
            head: size,
            ..
        } = self.shape;
        let mut out = Array2::zeros(q.dim());
        for head in 0..heads {
            let shared = head * key_heads / heads;
            let own = |x: &Array2<f64>, head: usize| {
                x.slice(s![.., head * size..(head + 1) * size]).to_owned()
            };
            let (q, k, v) = (
                rotated(&own(q, head)),
                rotated(&own(k, shared)),
                own(v, shared),
            );
            for t in 0..q.nrows() {
                let score = |s: usize| (q.row(t).dot(&k.row(s)) / (size as f64).sqrt()).exp();
                let weights: Vec<f64> = (0..=t).map(score).collect();
                let sum: f64 = weights.iter().sum();
                for j in 0..size {
                    let product: f64 = (0..=t).map(|s| weights[s] * v[[s, j]]).sum();
                    out[[t, head * size + j]] = product / sum;
                }
            }
        }
        out
    }

    /// The sum of cross-entropies.
    pub fn loss(&self, tokens: &[u16], targets: &[u16]) -> f64 {
        let logits = self.logits(tokens);
        let losses = logits
            .rows()
            .into_iter()
            .zip(targets)
            .map(|(row, &target)| {
                row.iter().map(|x| x.exp()).sum::<f64>().ln() - row[usize::from(target)]
            });
        losses.sum()
    }

    /// The slope of the loss along what `change` changes.
    pub fn slope(&self, tokens: &[u16], targets: &[u16], change: impl Fn(&mut Self, f64)) -> f64 {
        let step = 1e-5;
        let [above, below] = [step, -step].map(|step| {
            let mut moved = self.clone();
            moved.shift.resize(tokens.len() * self.shape.hidden, 0.0);
            change(&mut moved, step);
            moved.loss(tokens, targets)
        });
        (above - below) / (2.0 * step)
    }
}

impl OracleBlock {
    fn linear(&self, layer: usize, x: &Array2<f64>) -> Array2<f64> {
        let y = x.dot(&self.weights[layer].t());
        match &self.biases[layer] {
            Some(bias) => y + bias,
            None => y,
        }
    }
}

fn rms_norm(x: &Array2<f64>, gain: &Array1<f64>) -> Array2<f64> {
    let mut y = x.clone();
    for mut row in y.rows_mut() {
        let mean = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        row.iter_mut()
            .zip(gain)
            .for_each(|(x, gain)| *x *= gain / (mean + 1e-5).sqrt());
    }
    y
}

fn rotated(x: &Array2<f64>) -> Array2<f64> {
    let half = x.ncols() / 2;
    Array2::from_shape_fn(x.dim(), |(t, j)| {
        let angle = t as f64 * 10_000_f64.powf(-((j % half) as f64) / half as f64);
        match j < half {
            true => x[[t, j]] * angle.cos() - x[[t, j + half]] * angle.sin(),
            false => x[[t, j]] * angle.cos() + x[[t, j - half]] * angle.sin(),
        }
    })
}

/// `Σ KL(softmax(teacher) ‖ softmax(logits))`.
pub fn divergence(logits: &Array2<f64>, teacher: &Array2<f64>) -> f64 {
    let softmax = |row: ndarray::ArrayView1<'_, f64>| {
        let sum: f64 = row.iter().map(|x| x.exp()).sum();
        row.mapv(|x| x.exp() / sum)
    };
    let rows = logits.rows().into_iter().zip(teacher.rows());
    let divergences = rows.map(|(logits, teacher)| {
        let (q, p) = (softmax(logits), softmax(teacher));
        p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum::<f64>()
    });
    divergences.sum()
}
