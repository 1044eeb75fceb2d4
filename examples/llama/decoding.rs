//! Text from the model, token by token, several texts in step.

use lowbit::Result;
use ndarray::{Array2, ArrayView1};

use super::{
    Llama,
    attention::Seen,
    block::{Block, LAYERS},
    loss::softmax,
    parts::{gated, rms_norm, rotate_at},
};

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
            let [q, k, v] = [q, k, v].map(|row| row.to_slice().expect("row-major"));
            seen.push(k, v);
            let out = out.as_slice_mut().expect("row-major");
            seen.attend(q, heads, out);
        }
        let x = x + &self.linear(LAYERS[3], &attended)?;
        let normed = rms_norm(&x, &self.norms[1], epsilon);
        let gate = self.linear(LAYERS[4], &normed)?;
        let up = self.linear(LAYERS[5], &normed)?;
        Ok(x + self.linear(LAYERS[6], &gated(&gate, &up))?)
    }
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
        let (probabilities, _) = softmax(&logits);
        let mut keep = vec![true; open.len()];
        let rows = probabilities.rows();
        for ((&text, probabilities), keep) in open.iter().zip(rows).zip(&mut keep) {
            let done = texts[text].len();
            let token = match beginnings[text].get(done) {
                Some(&token) => token,
                None => drawn(probabilities, random(text)),
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
fn drawn(probabilities: ArrayView1<'_, f32>, at: f32) -> u16 {
    let mut left = at;
    for (token, p) in (0..).zip(probabilities) {
        left -= p;
        if left < 0.0 {
            return token;
        }
    }
    // Rounding left a little: the last token that is possible.
    let last = probabilities.iter().rposition(|&p| p > 0.0).unwrap_or(0);
    u16::try_from(last).unwrap_or(u16::MAX)
}
