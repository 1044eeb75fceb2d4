//! Causal attention of one document, forward and backward.
//!
//! Query by query, each over the keys before it, so that nothing of `[tokens, tokens]` is ever held:
//! the backward pass computes the probabilities again from the logarithm of each query's sum. Keys
//! and values are turned first, so that the inner loops run along tokens.

use ndarray::{Array2, s};
use pulp::{Arch, Simd, WithSimd};

use super::vector::{add_outer, add_products, exp, most, product, total};

/// Floats of a line of turned keys: a multiple of all vectors there are, the rest of it zeros.
const LINE: usize = 16;

/// How the columns of queries, keys and values are cut.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub queries: usize,
    /// Heads of keys and of values; each serves as many heads of queries.
    pub keys: usize,
    /// Columns of a head.
    pub size: usize,
}

/// Outputs, and what the backward pass needs beside them.
#[derive(Debug)]
pub struct Attended {
    /// `[tokens, heads · size]`.
    pub output: Array2<f32>,
    /// The logarithms of the sums of exponentials, `[heads, tokens]`.
    log_sums: Array2<f32>,
}

/// Attention of queries `[tokens, heads · size]`, rotated and divided by `√size`, over rotated keys
/// and values `[tokens, key heads · size]`.
pub fn forward([q, k, v]: [&Array2<f32>; 3], heads: Heads) -> Attended {
    let mut output = Array2::zeros(q.dim());
    let mut log_sums = Array2::zeros((heads.queries, q.nrows()));
    for head in 0..heads.queries {
        let (own, shared) = heads.columns(head);
        let mut pass = Forward {
            queries: rows(q, own),
            keys: turned(k, shared),
            values: turned(v, shared),
            tokens: q.nrows(),
            size: heads.size,
            output: vec![0.0; q.nrows() * heads.size],
            log_sums: vec![0.0; q.nrows()],
        };
        Arch::new().dispatch(&mut pass);
        put_rows(&mut output, own, &pass.output);
        log_sums
            .row_mut(head)
            .assign(&ndarray::aview1(&pass.log_sums));
    }
    Attended { output, log_sums }
}

/// The gradients of queries (as they came in), keys and values, from the inputs of [`forward`], what
/// it gave, and the gradient of its output.
pub fn backward(
    [q, k, v]: [&Array2<f32>; 3],
    attended: &Attended,
    gradient: &Array2<f32>,
    heads: Heads,
) -> [Array2<f32>; 3] {
    let tokens = q.nrows();
    let mut to_q = Array2::zeros(q.dim());
    let mut to_k = Array2::zeros(k.dim());
    let mut to_v = Array2::zeros(v.dim());
    for head in 0..heads.queries {
        let (own, shared) = heads.columns(head);
        let mut pass = Backward {
            queries: rows(q, own),
            keys: turned(k, shared),
            values: turned(v, shared),
            output: rows(&attended.output, own),
            log_sums: attended.log_sums.row(head).to_vec(),
            gradient: rows(gradient, own),
            tokens,
            size: heads.size,
            to_queries: vec![0.0; tokens * heads.size],
            to_keys: vec![0.0; tokens.next_multiple_of(LINE) * heads.size],
            to_values: vec![0.0; tokens.next_multiple_of(LINE) * heads.size],
        };
        Arch::new().dispatch(&mut pass);
        put_rows(&mut to_q, own, &pass.to_queries);
        add_turned(&mut to_k, shared, &pass.to_keys);
        add_turned(&mut to_v, shared, &pass.to_values);
    }
    [to_q, to_k, to_v]
}

impl Heads {
    /// The columns of a head of queries: where they start among queries, and among keys.
    fn columns(self, head: usize) -> ([usize; 2], [usize; 2]) {
        let shared = head / (self.queries / self.keys);
        let columns = |head: usize| [head * self.size, (head + 1) * self.size];
        (columns(head), columns(shared))
    }
}

/// One head, forward. All but keys and values are `[tokens, size]`.
struct Forward {
    queries: Vec<f32>,
    /// `[size, tokens, rounded up]`, as values.
    keys: Vec<f32>,
    values: Vec<f32>,
    tokens: usize,
    size: usize,
    output: Vec<f32>,
    log_sums: Vec<f32>,
}

impl WithSimd for &mut Forward {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let line = self.tokens.next_multiple_of(LINE);
        let mut scores = vec![0.0; line];
        for token in 0..self.tokens {
            let own = token * self.size..(token + 1) * self.size;
            let seen = (token + 1).next_multiple_of(LINE);
            let scores = &mut scores[..seen];
            scores.fill(0.0);
            add_products(simd, &self.queries[own.clone()], &self.keys, line, scores);
            scores[token + 1..].fill(f32::NEG_INFINITY);
            let greatest = most(simd, scores);
            exp(simd, scores, greatest);
            let sum = total(simd, scores);
            self.log_sums[token] = greatest + sum.ln();
            for (to, values) in self.output[own]
                .iter_mut()
                .zip(self.values.chunks_exact(line))
            {
                *to = product(simd, scores, &values[..seen]) / sum;
            }
        }
    }
}

/// One head, backward; as [`Forward`], and gradients in the shapes of what they belong to.
struct Backward {
    queries: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
    output: Vec<f32>,
    log_sums: Vec<f32>,
    gradient: Vec<f32>,
    tokens: usize,
    size: usize,
    to_queries: Vec<f32>,
    to_keys: Vec<f32>,
    to_values: Vec<f32>,
}

impl WithSimd for &mut Backward {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let line = self.tokens.next_multiple_of(LINE);
        let mut probabilities = vec![0.0; line];
        let mut slopes = vec![0.0; line];
        for token in 0..self.tokens {
            let own = token * self.size..(token + 1) * self.size;
            let seen = (token + 1).next_multiple_of(LINE);
            let (probabilities, slopes) = (&mut probabilities[..seen], &mut slopes[..seen]);
            let (query, gradient) = (&self.queries[own.clone()], &self.gradient[own.clone()]);

            probabilities.fill(0.0);
            add_products(simd, query, &self.keys, line, probabilities);
            probabilities[token + 1..].fill(f32::NEG_INFINITY);
            exp(simd, probabilities, self.log_sums[token]);

            // p · (∂p − mean of ∂p under p), where that mean is output · gradient
            let output = &self.output[own.clone()];
            let mean: f32 = output.iter().zip(gradient).map(|(o, g)| o * g).sum();
            slopes.fill(-mean);
            add_products(simd, gradient, &self.values, line, slopes);
            let (slope, _) = S::as_mut_simd_f32s(slopes);
            let (p, _) = S::as_simd_f32s(probabilities);
            for (slope, &p) in slope.iter_mut().zip(p) {
                *slope = simd.mul_f32s(*slope, p);
            }

            let to_query = &mut self.to_queries[own.clone()];
            for (to, keys) in to_query.iter_mut().zip(self.keys.chunks_exact(line)) {
                *to = product(simd, slopes, &keys[..seen]);
            }
            add_outer(simd, query, slopes, line, &mut self.to_keys);
            add_outer(simd, gradient, probabilities, line, &mut self.to_values);
        }
    }
}

/// Columns of a matrix, as `[tokens, columns]`.
fn rows(x: &Array2<f32>, [from, to]: [usize; 2]) -> Vec<f32> {
    x.slice(s![.., from..to]).iter().copied().collect()
}

fn put_rows(x: &mut Array2<f32>, [from, to]: [usize; 2], rows: &[f32]) {
    let mut to = x.slice_mut(s![.., from..to]);
    to.iter_mut().zip(rows).for_each(|(to, &from)| *to = from);
}

/// Columns of a matrix, as `[columns, tokens]` with zeros up to whole lines.
fn turned(x: &Array2<f32>, [from, to]: [usize; 2]) -> Vec<f32> {
    let line = x.nrows().next_multiple_of(LINE);
    let mut turned = vec![0.0; (to - from) * line];
    for (column, turned) in (from..to).zip(turned.chunks_exact_mut(line.max(1))) {
        for (to, &from) in turned.iter_mut().zip(x.column(column)) {
            *to = from;
        }
    }
    turned
}

fn add_turned(x: &mut Array2<f32>, [from, to]: [usize; 2], turned: &[f32]) {
    let line = x.nrows().next_multiple_of(LINE);
    for (column, turned) in (from..to).zip(turned.chunks_exact(line.max(1))) {
        for (to, &from) in x.column_mut(column).iter_mut().zip(turned) {
            *to += from;
        }
    }
}
