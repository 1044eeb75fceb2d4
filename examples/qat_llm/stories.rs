//! What is trained on, and in what order.

use lowbit::Result;
use ndarray::Array2;
use rayon::prelude::*;

use crate::{
    llama::{Llama, decoding::continuations},
    tokens::Window,
};

/// A story, and what the float model says of it.
pub struct Story {
    pub window: Window,
    /// The float model's hidden states before its head, `[tokens, hidden]`: its logits are many times
    /// as large.
    pub teacher: Array2<f32>,
}

impl Story {
    /// Stories as the float model reads them.
    pub fn read(model: &Llama, windows: Vec<Window>) -> Result<Vec<Self>> {
        let read = |window: Window| {
            let teacher = model.normed(&model.hidden(&window.tokens)?);
            Ok(Self { window, teacher })
        };
        windows.into_par_iter().map(read).collect()
    }
}

/// Tokens that a story is begun with, at most.
const BEGINNING: usize = 64;
/// Stories that are written in step.
const IN_STEP: usize = 64;

/// As many more stories as there are, each begun as one of these and gone on with by the float model:
/// text to distil on, after Liu et al. 2023 (LLM-QAT, arXiv:2305.17888), who draw all of it from the
/// model. A small training file is soon learned by heart.
pub fn written(model: &Llama, windows: &[Window], copies: usize, seed: u64) -> Result<Vec<Window>> {
    let mut random = Random(seed);
    let starts: Vec<(&[u16], u64)> = (0..copies)
        .flat_map(|_| windows)
        .map(|window| {
            let most = BEGINNING.min(window.tokens.len() / 2).max(1);
            let beginning = 1 + random.bits() as usize % most;
            (&window.tokens[..beginning], random.bits())
        })
        .collect();
    let length = windows.iter().map(|window| window.tokens.len() + 1).max();
    let write = |starts: &[(&[u16], u64)]| {
        let beginnings: Vec<&[u16]> = starts.iter().map(|start| start.0).collect();
        let mut randoms: Vec<Random> = starts.iter().map(|start| Random(start.1)).collect();
        let next = |text: usize| randoms[text].unit();
        continuations(
            model,
            &beginnings,
            length.unwrap_or(0),
            |token| token <= 2,
            next,
        )
    };
    let texts = starts
        .par_chunks(IN_STEP)
        .map(write)
        .collect::<Result<Vec<_>>>()?;
    let window = |text: Vec<u16>| Window {
        tokens: text[..text.len() - 1].to_vec(),
        targets: text[1..].to_vec(),
    };
    let long = |text: &Vec<u16>| text.len() > 1;
    Ok(texts
        .into_iter()
        .flatten()
        .filter(long)
        .map(window)
        .collect())
}

/// Batches for ever: each story once an epoch, with others about as long, so that threads end at the
/// same time.
pub struct Batches {
    lengths: Vec<usize>,
    size: usize,
    random: Random,
    left: Vec<Vec<usize>>,
}

/// Stories that are put in order together; batches are cut from these.
const CHUNK: usize = 16;

impl Batches {
    /// Batches of `size` of these stories.
    pub fn new(stories: &[&Story], size: usize, seed: u64) -> Self {
        Self {
            lengths: stories
                .iter()
                .map(|story| story.window.tokens.len())
                .collect(),
            size,
            random: Random(seed),
            left: Vec::new(),
        }
    }

    /// The next batch, as places among the stories.
    pub fn next(&mut self) -> Vec<usize> {
        loop {
            if let Some(batch) = self.left.pop() {
                return batch;
            }
            let mut order: Vec<usize> = (0..self.lengths.len()).collect();
            self.random.shuffle(&mut order);
            for chunk in order.chunks_mut(CHUNK * self.size) {
                chunk.sort_by_key(|&story| self.lengths[story]);
            }
            self.left = order.chunks(self.size).map(<[usize]>::to_vec).collect();
            self.random.shuffle(&mut self.left);
        }
    }
}

/// SplitMix64 (Steele, Lea and Flood 2014).
pub struct Random(pub u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to 1.
    pub fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 24) as f32
    }

    /// From −1 to 1.
    pub fn uniform(&mut self) -> f32 {
        2.0 * self.unit() - 1.0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.bits() % (last as u64 + 1);
            items.swap(last, other as usize);
        }
    }
}
