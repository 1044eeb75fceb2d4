//! What was measured, as a table and as JSON.

use lowbit::{Error, Result};
use serde_json::{Value, json};

use crate::tokens::Score;

/// One model: float, after post-training quantization, or trained.
pub struct Run {
    pub setting: &'static str,
    pub what: String,
    pub seed: Option<u64>,
    pub steps: usize,
    pub seconds: f64,
    /// On the text that is never trained on.
    pub score: Score,
    /// On other stories of its file, on which everything was chosen.
    pub held_out: Score,
    /// The part of what post-training quantization lost that was won back.
    pub recovered: Option<f64>,
}

pub fn print_header() {
    println!(
        "{:<7} {:<38} {:>4} {:>6} {:>11} {:>9} {:>10} {:>8}",
        "setting", "what", "seed", "steps", "perplexity", "held out", "recovered", "seconds"
    );
}

impl Run {
    pub fn print(&self) {
        let seed = self.seed.map_or(String::new(), |seed| seed.to_string());
        let steps = match self.steps {
            0 => String::new(),
            steps => steps.to_string(),
        };
        let recovered = self
            .recovered
            .map_or(String::new(), |part| format!("{:.1} %", 100.0 * part));
        println!(
            "{:<7} {:<38} {seed:>4} {steps:>6} {:>11.4} {:>9.4} {recovered:>10} {:>8.1}",
            self.setting, self.what, self.score.perplexity, self.held_out.perplexity, self.seconds
        );
    }

    fn json(&self) -> Value {
        json!({
            "setting": self.setting,
            "what": self.what,
            "seed": self.seed,
            "steps": self.steps,
            "perplexity": self.score.perplexity,
            "tokens": self.score.predictions,
            "tokens_per_second": self.score.tokens_per_second,
            "held_out_perplexity": self.held_out.perplexity,
            "recovered": self.recovered,
            "seconds": self.seconds,
        })
    }
}

/// The mean of several runs' perplexity, the least and the greatest, and the mean of what they
/// recovered.
pub fn print_mean(runs: &[&Run]) {
    let [first, _, ..] = runs else {
        return;
    };
    let perplexities = || runs.iter().map(|run| run.score.perplexity);
    let mean = perplexities().sum::<f64>() / runs.len() as f64;
    let least = perplexities().fold(f64::INFINITY, f64::min);
    let most = perplexities().fold(f64::NEG_INFINITY, f64::max);
    let recovered: f64 = runs.iter().filter_map(|run| run.recovered).sum();
    println!(
        "{:<7} {}: mean of {} seeds {mean:.4} ({least:.4} to {most:.4}), recovered {:.1} %",
        first.setting,
        first.what,
        runs.len(),
        100.0 * recovered / runs.len() as f64
    );
}

pub fn write(path: &str, runs: &[Run]) -> Result<()> {
    let values: Vec<Value> = runs.iter().map(Run::json).collect();
    let text = serde_json::to_string_pretty(&values).map_err(Error::other)?;
    std::fs::write(path, text + "\n").map_err(|source| Error::Io {
        from: path.into(),
        source,
    })
}
