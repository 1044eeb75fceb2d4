//! What was measured, as a table and as JSON.

use lowbit::{Error, Result, flow::ModelReport};
use serde_json::{Value, json};

use crate::tokens::Score;

/// The model in floats, or quantized by one method.
pub struct Run {
    pub method: String,
    pub bits: u32,
    pub group: usize,
    /// Of the layers that are quantized.
    pub bytes: usize,
    pub effective_bits: f64,
    /// Time that quantizing took.
    pub seconds: f64,
    pub score: Score,
    pub report: ModelReport,
}

pub fn print_header() {
    println!(
        "{:<36} {:>5} {:>12} {:>12} {:>8} {:>9}",
        "method", "bits", "bytes", "perplexity", "seconds", "tokens/s"
    );
}

impl Run {
    pub fn print(&self) {
        println!(
            "{:<36} {:>5.2} {:>12} {:>12.4} {:>8.2} {:>9.0}",
            self.method,
            self.effective_bits,
            self.bytes,
            self.score.perplexity,
            self.seconds,
            self.score.tokens_per_second
        );
    }

    fn json(&self) -> Result<Value> {
        Ok(json!({
            "method": self.method,
            "bits": self.bits,
            "group": self.group,
            "perplexity": self.score.perplexity,
            "tokens": self.score.predictions,
            "bytes": self.bytes,
            "effective_bits": self.effective_bits,
            "seconds": self.seconds,
            "tokens_per_second": self.score.tokens_per_second,
            "report": serde_json::to_value(&self.report).map_err(Error::other)?,
        }))
    }
}

pub fn write(path: &str, runs: &[Run]) -> Result<()> {
    let values = runs.iter().map(Run::json).collect::<Result<Vec<_>>>()?;
    let text = serde_json::to_string_pretty(&values).map_err(Error::other)?;
    std::fs::write(path, text + "\n").map_err(|source| Error::Io {
        from: path.into(),
        source,
    })
}
