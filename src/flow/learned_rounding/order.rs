//! In which order samples are drawn.

use crate::random::Random;

/// Samples in an order of chance, each once in every pass.
#[derive(Debug)]
pub(in crate::flow) struct Order {
    samples: Vec<usize>,
    next: usize,
    random: Random,
}

impl Order {
    pub(in crate::flow) fn new(samples: usize, seed: u64) -> Self {
        Self {
            samples: (0..samples).collect(),
            next: 0,
            random: Random::new(seed),
        }
    }

    /// At most `count` samples, and whether they end a pass.
    pub(in crate::flow) fn next(&mut self, count: usize) -> (Vec<usize>, bool) {
        if self.next == 0 {
            // Fisher and Yates.
            for last in (1..self.samples.len()).rev() {
                self.samples.swap(last, self.random.below(last + 1));
            }
        }
        let end = (self.next + count).min(self.samples.len());
        let batch = self.samples[self.next..end].to_vec();
        let is_last = end == self.samples.len();
        self.next = if is_last { 0 } else { end };
        (batch, is_last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sample_comes_once_in_every_pass() {
        let mut order = Order::new(7, 3);
        let mut passes = Vec::new();
        for _ in 0..4 {
            let mut pass = Vec::new();
            loop {
                let (batch, is_last) = order.next(3);
                pass.extend(batch);
                if is_last {
                    break;
                }
            }
            let mut sorted = pass.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, [0, 1, 2, 3, 4, 5, 6]);
            passes.push(pass);
        }
        assert_ne!(passes[0], passes[1]);
        let mut again = Order::new(7, 3);
        assert_eq!(again.next(7), (passes[0].clone(), true));
    }
}
