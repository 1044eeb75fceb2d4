//! Pipelines as words.

use std::{fmt, str::FromStr};

use super::{Pipeline, Preparation, RangeChoice, Refinement, Rounding, Share};
use crate::{
    error::{Error, Result},
    ptq::SmoothQuant,
};

const WORDS: &str = "words joined by +: compensate[=SHARE,DAMPING]; awq, smooth[=ALPHA] or \
                     rotate[=SEED]; full, mse or ls; rtn, \
                     hqq, gptq or gptaq; quantease, signround or adaround; or best alone";

impl Pipeline {
    /// The ranges unless a word says otherwise.
    fn usual_ranges(&self) -> RangeChoice {
        match (self.rounding, self.refinement) {
            (Rounding::Nearest, Refinement::None) => RangeChoice::Full,
            (Rounding::Hqq, Refinement::None) => RangeChoice::MeanSquaredError,
            _ => RangeChoice::LeastSquares,
        }
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
            Preparation::Smooth(alpha) => words.push(format!("smooth={alpha}")),
            Preparation::Rotation(seed) => words.push(format!("rotate={seed}")),
        }
        if self.ranges != self.usual_ranges() {
            let word = match self.ranges {
                RangeChoice::Full => "full",
                RangeChoice::MeanSquaredError => "mse",
                RangeChoice::LeastSquares => "ls",
            };
            words.push(word.into());
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
            let (word, value) = match word.split_once('=') {
                None => (word, ""),
                Some((_, "")) => return Err(refuse()),
                Some(parts) => parts,
            };
            match (word, value) {
                ("compensate", "") => pipeline.compensation = Self::best().compensation,
                ("compensate", value) => {
                    let (alpha, damping) = value.split_once(',').ok_or_else(refuse)?;
                    let number = |text: &str| text.parse::<f64>().map_err(|_| refuse());
                    pipeline = pipeline.with_compensation(number(alpha)?, number(damping)?)?;
                }
                ("awq", "") => pipeline.preparation = Preparation::Awq,
                ("smooth", "") => pipeline.preparation = Preparation::Smooth(0.5),
                ("smooth", alpha) => {
                    let alpha = alpha.parse().map_err(|_| refuse())?;
                    SmoothQuant::new(alpha)?;
                    pipeline.preparation = Preparation::Smooth(alpha);
                }
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
        pipeline.ranges = ranges.unwrap_or_else(|| pipeline.usual_ranges());
        Ok(pipeline)
    }
}
