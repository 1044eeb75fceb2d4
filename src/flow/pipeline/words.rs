//! Pipelines as words.

use std::{fmt, str::FromStr};

use super::{Pipeline, Preparation, RangeChoice, Refinement, Rounding, Share};
use crate::error::{Error, Result};

const WORDS: &str = "words joined by +: compensate[=SHARE,DAMPING]; awq or rotate[=SEED]; full, mse or ls; rtn, \
                     hqq, gptq or gptaq; quantease, signround or adaround; or best alone";

impl Pipeline {
    /// Whether the ranges are the full ones unless a word says otherwise.
    fn is_plain(&self) -> bool {
        let rounds = matches!(self.rounding, Rounding::Nearest | Rounding::Hqq);
        rounds && self.refinement == Refinement::None
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut words = Vec::new();
        if let Some(Share(alpha, damping)) = self.compensation {
            words.push(format!("compensate={alpha},{damping}"));
        }
        match self.preparation {
            Preparation::None => {}
            Preparation::Awq => words.push("awq".into()),
            Preparation::Rotation(seed) => words.push(format!("rotate={seed}")),
        }
        match (self.ranges, self.is_plain()) {
            (RangeChoice::Full, true) | (RangeChoice::LeastSquares, false) => {}
            (RangeChoice::Full, false) => words.push("full".into()),
            (RangeChoice::LeastSquares, true) => words.push("ls".into()),
            (RangeChoice::MeanSquaredError, _) => words.push("mse".into()),
        }
        let rounding = match self.rounding {
            Rounding::Nearest => "rtn",
            Rounding::Hqq => "hqq",
            Rounding::Gptq => "gptq",
            Rounding::Gptaq => "gptaq",
        };
        words.push(rounding.into());
        match self.refinement {
            Refinement::None => {}
            Refinement::QuantEase => words.push("quantease".into()),
            Refinement::SignRound => words.push("signround".into()),
            Refinement::AdaRound => words.push("adaround".into()),
        }
        f.write_str(&words.join("+"))
    }
}

impl FromStr for Pipeline {
    type Err = Error;

    /// Reads the words in any order; without a word for rounding, `rtn`.
    fn from_str(text: &str) -> Result<Self> {
        if text == "best" {
            return Ok(Self::best());
        }
        let refuse = || Error::option("method", WORDS, text);
        let (mut pipeline, mut ranges) = (Self::default(), None);
        for word in text.split('+') {
            let (word, value) = word.split_once('=').unwrap_or((word, ""));
            match (word, value) {
                ("compensate", "") => pipeline.compensation = Self::best().compensation,
                ("compensate", value) => {
                    let (alpha, damping) = value.split_once(',').ok_or_else(refuse)?;
                    let number = |text: &str| text.parse::<f64>().map_err(|_| refuse());
                    pipeline = pipeline.with_compensation(number(alpha)?, number(damping)?)?;
                }
                ("awq", "") => pipeline.preparation = Preparation::Awq,
                ("rotate", "") => pipeline.preparation = Preparation::Rotation(0),
                ("rotate", seed) => {
                    let seed = seed.parse().map_err(|_| refuse())?;
                    pipeline.preparation = Preparation::Rotation(seed);
                }
                ("full", "") => ranges = Some(RangeChoice::Full),
                ("mse", "") => ranges = Some(RangeChoice::MeanSquaredError),
                ("ls", "") => ranges = Some(RangeChoice::LeastSquares),
                ("rtn", "") => pipeline.rounding = Rounding::Nearest,
                ("hqq", "") => pipeline.rounding = Rounding::Hqq,
                ("gptq", "") => pipeline.rounding = Rounding::Gptq,
                ("gptaq", "") => pipeline.rounding = Rounding::Gptaq,
                ("quantease", "") => pipeline.refinement = Refinement::QuantEase,
                ("signround", "") => pipeline.refinement = Refinement::SignRound,
                ("adaround", "") => pipeline.refinement = Refinement::AdaRound,
                _ => return Err(refuse()),
            }
        }
        pipeline.ranges = ranges.unwrap_or(if pipeline.is_plain() {
            RangeChoice::Full
        } else {
            RangeChoice::LeastSquares
        });
        Ok(pipeline)
    }
}
