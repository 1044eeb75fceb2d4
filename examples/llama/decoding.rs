//! Text from the model, token by token, several texts in step.

use lowbit::Result;
use ndarray::{Array2, ArrayView1, Axis};

use super::{
    Llama,
    block::{Block, LAYERS},
    parts::{gated, rms_norm, rotate_at},
};

/// What attention of one block has seen of one text: a row for each token.
#[derive(Debug, Clone, Default)]
struct Seen {
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// Texts that are being written.
#[derive(Debug)]
pub struct Decoder<'a> {
    model: &'a Llama,
    /// For each block and text.
    seen: Vec<Vec<Seen>>,
    position: usize,
}

impl<'a> Decoder<'a> {
    /// For so many texts.
    pub fn new(model: &'a Llama, texts: usize) -> Self {
        Self {
            seen: vec![vec![Seen::default(); texts]; model.layers().len()],
            model,
            position: 0,
        }
    }

    /// Takes the next token of each text, and gives the logits of the one after it, `[texts,
    /// vocabulary]`.
    ///
    /// # Errors
    /// For a token that is not in the vocabulary; those of the layers.
    pub fn step(&mut self, tokens: &[u16]) -> Result<Array2<f32>> {
        let mut x = self.model.embed(tokens)?;
        for (block, seen) in self.model.layers().iter().zip(&mut self.seen) {
            x = block.decode(x, self.position, seen)?;
        }
        self.position += 1;
        Ok(self.model.logits(&x))
    }

    /// Leaves out the texts for which `keep` is false.
    pub fn retain(&mut self, keep: &[bool]) {
        for seen in &mut self.seen {
            let mut keep = keep.iter();
            seen.retain(|_| *keep.next().unwrap_or(&true));
        }
    }
}

impl Block {
    /// The block's output for one token of each text, `[texts, hidden]`.
    fn decode(&self, x: Array2<f32>, position: usize, seen: &mut [Seen]) -> Result<Array2<f32>> {
        let epsilon = self.config.rms_norm_eps;
        let heads = self.heads();
        let normed = rms_norm(&x, &self.norms[0], epsilon);
        let mut q = self.linear(LAYERS[0], &normed)?;
        let mut k = self.linear(LAYERS[1], &normed)?;
        let v = self.linear(LAYERS[2], &normed)?;
        rotate_at(&mut q, heads.size, &self.frequencies, position);
        rotate_at(&mut k, heads.size, &self.frequencies, position);
        q /= (heads.size as f32).sqrt();
        let mut attended = Array2::zeros(q.dim());
        let rows = q.rows().into_iter().zip(k.rows()).zip(v.rows());
        for ((((q, k), v), mut out), seen) in rows.zip(attended.rows_mut()).zip(seen) {
            seen.keys.extend(&k);
            seen.values.extend(&v);
            let width = k.len();
            for head in 0..heads.queries {
                let own = head * heads.size..(head + 1) * heads.size;
                let shared = head / (heads.queries / heads.keys) * heads.size;
                let shared = shared..shared + heads.size;
                let query = &q.as_slice().expect("row-major")[own.clone()];
                let keys = seen
                    .keys
                    .chunks_exact(width)
                    .map(|key| &key[shared.clone()]);
                let mut scores: Vec<f32> = keys
                    .map(|key| key.iter().zip(query).map(|(k, q)| k * q).sum())
                    .collect();
                softmax(&mut scores);
                let out = &mut out.as_slice_mut().expect("row-major")[own];
                for (value, p) in seen.values.chunks_exact(width).zip(scores) {
                    let value = &value[shared.clone()];
                    out.iter_mut().zip(value).for_each(|(out, v)| *out += p * v);
                }
            }
        }
        let x = x + &self.linear(LAYERS[3], &attended)?;
        let normed = rms_norm(&x, &self.norms[1], epsilon);
        let gate = self.linear(LAYERS[4], &normed)?;
        let up = self.linear(LAYERS[5], &normed)?;
        Ok(x + self.linear(LAYERS[6], &gated(&gate, &up))?)
    }
}

fn softmax(scores: &mut [f32]) {
    let most = scores.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    scores
        .iter_mut()
        .for_each(|score| *score = (*score - most).exp());
    let sum: f32 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// Texts that go on from these beginnings, drawn from the model's probabilities, until `ends` says so
/// or they have `length` tokens. `random(text)` gives numbers from 0 to 1.
///
/// # Errors
/// Those of [`Decoder::step`].
pub fn continuations(
    model: &Llama,
    beginnings: &[&[u16]],
    length: usize,
    ends: impl Fn(u16) -> bool,
    mut random: impl FnMut(usize) -> f32,
) -> Result<Vec<Vec<u16>>> {
    let mut texts: Vec<Vec<u16>> = beginnings.iter().map(|text| text[..1].to_vec()).collect();
    let mut open: Vec<usize> = (0..texts.len()).collect();
    let mut decoder = Decoder::new(model, texts.len());
    while !open.is_empty() {
        let last = open.iter().map(|&text| texts[text][texts[text].len() - 1]);
        let logits = decoder.step(&last.collect::<Vec<_>>())?;
        let mut keep = vec![true; open.len()];
        for ((&text, logits), keep) in open.iter().zip(logits.axis_iter(Axis(0))).zip(&mut keep) {
            let done = texts[text].len();
            let token = match beginnings[text].get(done) {
                Some(&token) => token,
                None => drawn(logits, random(text)),
            };
            *keep = !ends(token) && done < length;
            if *keep {
                texts[text].push(token);
            }
        }
        decoder.retain(&keep);
        let mut kept = keep.iter();
        open.retain(|_| *kept.next().unwrap_or(&false));
    }
    Ok(texts)
}

/// The token at a part, from 0 to 1, of the probabilities.
fn drawn(logits: ArrayView1<'_, f32>, at: f32) -> u16 {
    let mut probabilities = logits.to_vec();
    softmax(&mut probabilities);
    let mut left = at;
    for (token, p) in (0..).zip(&probabilities) {
        left -= p;
        if left < 0.0 {
            return token;
        }
    }
    // Rounding left a little: the last token that is possible.
    let last = probabilities.iter().rposition(|&p| p > 0.0).unwrap_or(0);
    u16::try_from(last).unwrap_or(u16::MAX)
}
