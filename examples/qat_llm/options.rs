//! The command line.

use std::path::PathBuf;

use lowbit::{Error, Result};

use crate::{
    arguments::{number, positive, present, value},
    setting::Setting,
    start::METHODS,
    training::Objective,
};

pub const USAGE: &str = "\
options (defaults in brackets):
  --setting NAME        w3: 3 bits, a scale a row; w2g32: 2 bits in groups of 32 with zero points;
                        w4a8, w4a4: 4 bits a row, inputs of 8 or 4 bits per token; all [w3]
  --objective WORD      kl: learn the float model's probabilities; ce: the next token; both [kl]
  --lora RANK           train adapters of this rank beside weights that stay [all weights]
  --steps N             steps of training [2000]
  --batch N             stories a step [4]
  --rate X              the greatest rate of weights [as the setting has it]
  --seed N              of the order of stories, and of adapters [1]
  --seeds N             that many runs, from that seed on [1]
  --no-control          leave out the same training of the float model
  --model PATH          a directory or a GGUF file [../shared/models/stories260K]
  --training FILE       16-bit ids, little-endian [../shared/data/tinystories-calibration.u16]
  --eval FILE           the same, never trained on; what follows the stories that are reported
                        is for choosing [../shared/data/tinystories-validation.u16]
  --written N           stories that the float model writes for each of the training file, to
                        distil on, about 150 MB for each of TinyStories [3]
  --stories N           stories to evaluate [60]
  --methods LIST        what to try before training, with commas between
                        [best+block+model=400]
  --json FILE           write what was measured";

pub struct Options {
    pub settings: Vec<Setting>,
    pub objectives: Vec<Objective>,
    pub lora: Option<usize>,
    pub steps: usize,
    pub batch: usize,
    pub rate: Option<f32>,
    pub seed: u64,
    pub seeds: u64,
    pub control: bool,
    pub model: PathBuf,
    pub training: PathBuf,
    pub eval: PathBuf,
    pub written: usize,
    pub stories: usize,
    pub methods: Vec<String>,
    pub json: Option<String>,
}

impl Options {
    pub fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let mut options = Self {
            settings: vec![Setting::named("w3")?],
            objectives: vec![Objective::Distillation],
            lora: None,
            steps: 2000,
            batch: 4,
            rate: None,
            seed: 1,
            seeds: 1,
            control: true,
            model: "../shared/models/stories260K".into(),
            training: "../shared/data/tinystories-calibration.u16".into(),
            eval: "../shared/data/tinystories-validation.u16".into(),
            written: 3,
            stories: 60,
            methods: METHODS.map(String::from).to_vec(),
            json: None,
        };
        while let Some(name) = arguments.next() {
            let mut value = || value(&mut arguments, &name, USAGE);
            match name.as_str() {
                "--setting" => {
                    options.settings = match value()?.as_str() {
                        "all" => Setting::all()?,
                        name => vec![Setting::named(name)?],
                    }
                }
                "--objective" => {
                    options.objectives = match value()?.as_str() {
                        "kl" => vec![Objective::Distillation],
                        "ce" => vec![Objective::CrossEntropy],
                        "both" => vec![Objective::CrossEntropy, Objective::Distillation],
                        other => {
                            return Err(Error::other(format!("no objective {other}\n{USAGE}")));
                        }
                    }
                }
                "--lora" => options.lora = Some(positive(&name, &value()?)?),
                "--steps" => options.steps = positive(&name, &value()?)?,
                "--batch" => options.batch = positive(&name, &value()?)?,
                "--rate" => options.rate = Some(rate(&name, &value()?)?),
                "--seed" => options.seed = number(&name, &value()?)?,
                "--seeds" => options.seeds = number(&name, &value()?)?,
                "--no-control" => options.control = false,
                "--model" => options.model = value()?.into(),
                "--training" => options.training = value()?.into(),
                "--eval" => options.eval = value()?.into(),
                "--written" => options.written = number(&name, &value()?)?,
                "--stories" => options.stories = positive(&name, &value()?)?,
                "--methods" => options.methods = value()?.split(',').map(String::from).collect(),
                "--json" => options.json = Some(value()?),
                _ => return Err(Error::other(format!("unknown option {name}\n{USAGE}"))),
            }
        }
        present(
            [&options.model, &options.training, &options.eval],
            "karpathy/tinyllamas' stories260K in safetensors (with config.json), and TinyStories as \
             16-bit token ids",
            USAGE,
        )?;
        Ok(options)
    }
}

fn rate(name: &str, value: &str) -> Result<f32> {
    match number::<f32>(name, value)? {
        rate if rate.is_finite() && rate >= 0.0 => Ok(rate),
        other => Err(Error::other(format!(
            "{name}: expected a rate of 0 or more, got {other}"
        ))),
    }
}
