//! The command line.

use std::path::PathBuf;

use lowbit::{Error, Result};

use crate::arguments::{number, positive, present, value};

pub const USAGE: &str = "\
options (defaults in brackets):
  --model PATH          a directory or a GGUF file [../shared/models/stories260K]
  --calibration FILE    ids in 16 bits, little-endian [../shared/data/tinystories-calibration.u16]
  --eval FILE           the same, to compute perplexity on [../shared/data/tinystories-validation.u16]
  --bits N              bits of a weight [4]
  --group N             weights along a row that share a scale; 0: the whole row [0]
  --symmetric, --asymmetric  without or with a zero point [without for rows, with for groups]
  --method WORDS        such as rtn, hqq, awq+mse, gptq, gptaq, gptq+quantease, gptaq+block, best;
                        +block, or +block=STEPS, learns the rounding of whole blocks after it, and
                        +model, or +model=STEPS, that of the whole model [gptq]
  --compare             a ladder of methods
  --activations N       quantize inputs too, to N bits, per token at run time
  --static-activations  ... with a range from calibration instead
  --dynamic PATTERN     ... but per token in these layers, such as *.down_proj
  --weigh-tokens        count errors as shares of the stream they are added to
  --samples N           calibration windows [64]
  --windows N           windows to evaluate [60]
  --skip N              windows to leave out before them, such as those that settings were chosen on [0]
  --window-len N        tokens of a window, at most [512]
  --checkpoints DIR     keep finished blocks there, and go on from them
  --json FILE           write what was measured
  --report              print what happened to each layer";

pub struct Options {
    pub model: PathBuf,
    pub calibration: PathBuf,
    pub eval: PathBuf,
    pub bits: u32,
    pub group: usize,
    pub asymmetric: Option<bool>,
    pub method: String,
    pub compare: bool,
    pub activations: Option<u32>,
    pub static_activations: bool,
    pub dynamic: Option<String>,
    pub weigh_tokens: bool,
    pub samples: usize,
    pub windows: usize,
    pub skip: usize,
    pub window_length: usize,
    pub checkpoints: Option<PathBuf>,
    pub json: Option<String>,
    pub report: bool,
}

impl Options {
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            model: "../shared/models/stories260K".into(),
            calibration: "../shared/data/tinystories-calibration.u16".into(),
            eval: "../shared/data/tinystories-validation.u16".into(),
            bits: 4,
            group: 0,
            asymmetric: None,
            method: "gptq".into(),
            compare: false,
            activations: None,
            static_activations: false,
            dynamic: None,
            weigh_tokens: false,
            samples: 64,
            windows: 60,
            skip: 0,
            window_length: 512,
            checkpoints: None,
            json: None,
            report: false,
        };
        while let Some(name) = arguments.next() {
            let mut value = || value(&mut arguments, &name, USAGE);
            match name.as_str() {
                "--model" => options.model = value()?.into(),
                "--calibration" => options.calibration = value()?.into(),
                "--eval" => options.eval = value()?.into(),
                "--bits" => options.bits = number(&name, &value()?)?,
                "--group" => options.group = number(&name, &value()?)?,
                "--symmetric" => options.asymmetric = Some(false),
                "--asymmetric" => options.asymmetric = Some(true),
                "--method" => options.method = value()?,
                "--compare" => options.compare = true,
                "--activations" => options.activations = Some(number(&name, &value()?)?),
                "--static-activations" => options.static_activations = true,
                "--dynamic" => options.dynamic = Some(value()?),
                "--weigh-tokens" => options.weigh_tokens = true,
                "--samples" => options.samples = positive(&name, &value()?)?,
                "--windows" => options.windows = positive(&name, &value()?)?,
                "--skip" => options.skip = number(&name, &value()?)?,
                "--window-len" => options.window_length = positive(&name, &value()?)?,
                "--checkpoints" => options.checkpoints = Some(value()?.into()),
                "--json" => options.json = Some(value()?),
                "--report" => options.report = true,
                _ => return Err(Error::other(format!("unknown option {name}\n{USAGE}"))),
            }
        }
        present(
            [&options.model, &options.calibration, &options.eval],
            "any Llama-style model in safetensors (with config.json) or GGUF, such as \
             SmolLM2-135M-Instruct or karpathy/tinyllamas' stories260K, and texts as 16-bit token ids",
            USAGE,
        )?;
        Ok(options)
    }
}
