//! What is trained on, and in what order.

use lowbit::Result;
use ndarray::Array2;
use rayon::prelude::*;

use crate::{llama::Llama, tokens::Window};

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
    pub fn new(stories: &[Story], size: usize, seed: u64) -> Self {
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

    /// From −1 to 1.
    pub fn uniform(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.bits() % (last as u64 + 1);
            items.swap(last, other as usize);
        }
    }
}
