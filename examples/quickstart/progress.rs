//! A line of progress.

use std::sync::atomic::{AtomicUsize, Ordering};

/// A line that grows while work is done, on any number of threads.
pub struct Progress {
    total: usize,
    done: AtomicUsize,
}

impl Progress {
    pub fn new(total: usize) -> Self {
        Self {
            total,
            done: AtomicUsize::new(0),
        }
    }

    pub fn step(&self, what: &str) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        let bar: String = (0..20)
            .map(|i| if i * self.total < 20 * done { '#' } else { '.' })
            .collect();
        eprint!("\r[{bar}] {done:>3}/{} {what:<40}", self.total);
    }

    pub fn done(&self) {
        eprintln!("\r{:<70}", "");
    }
}
