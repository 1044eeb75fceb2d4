//! Causal attention of one document, forward and backward.
//!
//! Two queries after two, each over the keys before it, so that nothing of `[tokens, tokens]` is ever
//! held: the backward pass computes the probabilities again from the logarithm of each query's sum.
//! Keys and values are turned first, so that the inner loops run along tokens.

use ndarray::Array2;
use pulp::{Arch, Simd, WithSimd};

use super::vector::{Lines, Pair, add_outer, exp, most, total};

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
            output: vec![0.0; pairs(q.nrows()) * heads.size],
            log_sums: vec![0.0; pairs(q.nrows())],
        };
        Arch::new().dispatch(&mut pass);
        put_rows(&mut output, own, &pass.output);
        let mut to = log_sums.row_mut(head);
        to.iter_mut()
            .zip(pass.log_sums)
            .for_each(|(to, from)| *to = from);
    }
    Attended { output, log_sums }
}

/// What one text has shown to the attention of one block, token by token.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// `[key heads · size, line]`, of which the first `tokens` columns are there, and zeros follow.
    keys: Vec<f32>,
    values: Vec<f32>,
    line: usize,
    tokens: usize,
    scores: Vec<f32>,
}

impl Seen {
    /// Takes the key and the value of one more token, `[key heads · size]`.
    pub fn push(&mut self, key: &[f32], value: &[f32]) {
        if self.tokens == self.line {
            let line = (2 * self.line).max(4 * LINE);
            for lines in [&mut self.keys, &mut self.values] {
                let mut longer = vec![0.0; key.len() * line];
                let old = lines.chunks_exact(self.line.max(1));
                for (to, from) in longer.chunks_exact_mut(line).zip(old) {
                    to[..self.line].copy_from_slice(from);
                }
                *lines = longer;
            }
            self.line = line;
            self.scores = vec![0.0; 2 * line];
        }
        for (lines, values) in [(&mut self.keys, key), (&mut self.values, value)] {
            for (line, value) in lines.chunks_exact_mut(self.line).zip(values) {
                line[self.tokens] = *value;
            }
        }
        self.tokens += 1;
    }

    /// Attention of the queries of the last token, `[heads · size]`, rotated and divided by `√size`.
    pub fn attend(&mut self, queries: &[f32], heads: Heads, output: &mut [f32]) {
        Arch::new().dispatch(Step {
            seen: self,
            queries,
            heads,
            output,
        });
    }
}

/// All heads of one token.
struct Step<'a> {
    seen: &'a mut Seen,
    queries: &'a [f32],
    heads: Heads,
    output: &'a mut [f32],
}

impl WithSimd for Step<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let heads = self.heads;
        let Heads { queries, size, .. } = heads;
        let Seen {
            keys: all_keys,
            values: all_values,
            line,
            tokens,
            scores,
        } = self.seen;
        let seen = tokens.next_multiple_of(LINE).min(*line);
        let mut unused = vec![0.0; size];
        for head in (0..queries).step_by(2) {
            let shared = |head: usize| heads.columns(head).1[0];
            // The next head goes along where it has the same keys.
            let both = head + 1 < queries && shared(head + 1) == shared(head);
            let along = if both { 2 } else { 1 };
            for head in (head..queries.min(head + 2)).step_by(along) {
                let floats = shared(head) * *line;
                let [own_keys, own_values] = [&*all_keys, &*all_values].map(|all| Lines {
                    floats: &all[floats..],
                    line: *line,
                });
                let query = &self.queries[head * size..(head + along) * size];
                let pair = [&query[..size], &query[(along - 1) * size..]];
                let (first, second) = scores.split_at_mut(*line);
                let scores = [&mut first[..seen], &mut second[..seen]];
                let own = head * size..(head + along) * size;
                let (first, second) = self.output[own].split_at_mut(size);
                let second = if along == 2 { second } else { &mut *unused };
                let outputs = [first, second];
                attend_pair(
                    simd,
                    pair,
                    [own_keys, own_values],
                    scores,
                    [*tokens; 2],
                    outputs,
                );
            }
        }
    }
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
            log_sums: attended
                .log_sums
                .row(head)
                .iter()
                .copied()
                .chain([0.0])
                .collect(),
            gradient: rows(gradient, own),
            tokens,
            size: heads.size,
            to_queries: vec![0.0; pairs(tokens) * heads.size],
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
        let [keys, values] = [&self.keys, &self.values].map(|floats| Lines { floats, line });
        let mut scores = vec![0.0; 2 * line];
        let queries = self.queries.chunks_exact(2 * self.size);
        let outputs = self.output.chunks_exact_mut(2 * self.size);
        for ((pair, query), output) in queries.enumerate().zip(outputs) {
            let seen = (2 * pair + 2).next_multiple_of(LINE).min(line);
            let (first, second) = scores.split_at_mut(line);
            let scores = [&mut first[..seen], &mut second[..seen]];
            let token = 2 * pair;
            let (first, second) = output.split_at_mut(self.size);
            let log_sums = attend_pair(
                simd,
                halves(query),
                [keys, values],
                scores,
                [token + 1, token + 2],
                [first, second],
            );
            self.log_sums[token..token + 2].copy_from_slice(&log_sums);
        }
    }
}

/// Attention of two queries, each over as many tokens as it has `seen`; the logarithms of the sums of
/// exponentials. Scores are room for a whole number of lines.
#[inline(always)]
fn attend_pair<S: Simd>(
    simd: S,
    queries: Pair<&[f32]>,
    [keys, values]: [Lines<'_>; 2],
    mut scores: Pair<&mut [f32]>,
    seen: Pair<usize>,
    [first, second]: Pair<&mut [f32]>,
) -> Pair<f32> {
    scores.iter_mut().for_each(|scores| scores.fill(0.0));
    let [first_scores, second_scores] = &mut scores;
    keys.add_combinations(simd, queries, [first_scores, second_scores]);
    let mut sums = [0.0; 2];
    let mut log_sums = [0.0; 2];
    for (query, scores) in scores.iter_mut().enumerate() {
        let len = scores.len();
        scores[seen[query].min(len)..].fill(f32::NEG_INFINITY);
        let greatest = most(simd, scores);
        exp(simd, scores, greatest);
        sums[query] = total(simd, scores);
        log_sums[query] = greatest + sums[query].ln();
    }
    let [first_scores, second_scores] = scores;
    values.products(
        simd,
        [first_scores, second_scores],
        [&mut *first, &mut *second],
    );
    first.iter_mut().for_each(|x| *x /= sums[0]);
    second.iter_mut().for_each(|x| *x /= sums[1]);
    log_sums
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
        let size = self.size;
        let [keys, values] = [&self.keys, &self.values].map(|floats| Lines { floats, line });
        let mut probabilities = vec![0.0; 2 * line];
        let mut slopes = vec![0.0; 2 * line];
        for pair in 0..self.queries.len() / (2 * size) {
            let own = 2 * pair * size..2 * (pair + 1) * size;
            let seen = (2 * pair + 2).next_multiple_of(LINE).min(line);
            let query = halves(&self.queries[own.clone()]);
            let gradient = halves(&self.gradient[own.clone()]);
            let output = halves(&self.output[own.clone()]);
            let (first, second) = probabilities.split_at_mut(line);
            let mut p = [&mut first[..seen], &mut second[..seen]];
            let (first, second) = slopes.split_at_mut(line);
            let mut slopes = [&mut first[..seen], &mut second[..seen]];

            p.iter_mut().for_each(|p| p.fill(0.0));
            let [first, second] = &mut p;
            keys.add_combinations(simd, query, [first, second]);
            for (at, p) in p.iter_mut().enumerate() {
                let token = 2 * pair + at;
                p[(token + 1).min(seen)..].fill(f32::NEG_INFINITY);
                exp(simd, p, self.log_sums[token]);
            }

            // p · (∂p − mean of ∂p under p), where that mean is output · gradient
            for ((slopes, output), gradient) in slopes.iter_mut().zip(output).zip(gradient) {
                let mean: f32 = output.iter().zip(gradient).map(|(o, g)| o * g).sum();
                slopes.fill(-mean);
            }
            let [first, second] = &mut slopes;
            values.add_combinations(simd, gradient, [first, second]);
            for (slopes, p) in slopes.iter_mut().zip(&p) {
                let (slopes, p) = (S::as_mut_simd_f32s(slopes).0, S::as_simd_f32s(p).0);
                for (slope, &p) in slopes.iter_mut().zip(p) {
                    *slope = simd.mul_f32s(*slope, p);
                }
            }

            let (first, second) = self.to_queries[own].split_at_mut(size);
            let slopes = slopes.map(|slopes| &*slopes);
            keys.products(simd, slopes, [first, second]);
            add_outer(simd, query, slopes, &mut self.to_keys, line);
            let p = p.map(|p| &*p);
            add_outer(simd, gradient, p, &mut self.to_values, line);
        }
    }
}

fn halves(x: &[f32]) -> [&[f32]; 2] {
    let (first, second) = x.split_at(x.len() / 2);
    [first, second]
}

/// Columns of a matrix as `[tokens, columns]`, with zeros for a token more if they are odd.
fn rows(x: &Array2<f32>, [from, to]: [usize; 2]) -> Vec<f32> {
    let mut rows = Vec::with_capacity(pairs(x.nrows()) * (to - from));
    for row in x.rows() {
        rows.extend_from_slice(&row.as_slice().expect("row-major")[from..to]);
    }
    rows.resize(pairs(x.nrows()) * (to - from), 0.0);
    rows
}

/// Tokens, rounded up to whole pairs.
fn pairs(tokens: usize) -> usize {
    tokens.next_multiple_of(2)
}

fn put_rows(x: &mut Array2<f32>, [from, to]: [usize; 2], rows: &[f32]) {
    for (mut row, from_row) in x.rows_mut().into_iter().zip(rows.chunks_exact(to - from)) {
        row.as_slice_mut().expect("row-major")[from..to].copy_from_slice(from_row);
    }
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
