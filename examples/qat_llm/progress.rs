//! A line that is written over, where somebody looks.

use std::{
    io::{IsTerminal, Write},
    time::Duration,
};

pub struct Progress {
    label: String,
    steps: usize,
    terminal: bool,
}

impl Progress {
    pub fn new(label: &str, steps: usize) -> Self {
        Self {
            label: label.to_owned(),
            steps,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// After so many steps, the loss of the last one.
    pub fn show(&mut self, done: usize, loss: f64, elapsed: Duration) {
        if !self.terminal {
            return;
        }
        const WIDTH: usize = 30;
        let filled = WIDTH * done / self.steps.max(1);
        let bar: String = (0..WIDTH)
            .map(|at| if at < filled { '█' } else { '·' })
            .collect();
        let rate = done as f64 / elapsed.as_secs_f64();
        let left = (self.steps - done) as f64 / rate;
        let (label, steps) = (&self.label, self.steps);
        // A terminal that is gone is no reason to stop.
        let _ = write!(
            std::io::stderr(),
            "\r\x1b[K{label} {bar} {done}/{steps}  loss {loss:.4}  {rate:.1} steps/s  {left:.0} s left"
        );
    }

    pub fn end(&self) {
        if self.terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
