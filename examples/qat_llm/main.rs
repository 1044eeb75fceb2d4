//! A language model trained under quantization, to win back what post-training quantization loses.
//!
//! ```text
//! cargo run --release --example qat_llm -- --setting w2g32
//! ```
//!
//! This file is the tutorial: read it from top to bottom. `start.rs` quantizes by the crate and keeps
//! the codes; `student.rs` holds the weights that are trained and what moves them onto the grid;
//! `training.rs` is the loop; `../llama` the model with its backward pass.

#![allow(
    unreachable_pub,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a program: its modules are its own, and its numbers small"
)]

mod adam;
#[path = "../quantize_llm/arguments.rs"]
mod arguments;
#[path = "../llama/llama.rs"]
#[allow(dead_code, reason = "programs use parts of it")]
mod llama;
mod lora;
#[path = "../quantize_llm/method.rs"]
mod method;
mod options;
mod progress;
mod setting;
mod start;
mod stories;
mod student;
mod table;
#[path = "../quantize_llm/tokens.rs"]
mod tokens;
mod training;

use std::time::Instant;

use lowbit::{Result, io};

use llama::Llama;
use options::Options;
use setting::Setting;
use start::Start;
use stories::Story;
use student::{Rates, Student, Trained};
use table::Run;
use tokens::{Window, score, windows};
use training::{Objective, Training, train};

/// Tokens of a story, as many as the model was trained on.
const LENGTH: usize = 512;

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// What stays the same over all runs.
struct Bench {
    options: Options,
    float: Llama,
    /// Those of the training file, and more that the float model wrote.
    stories: Vec<Story>,
    written: Vec<Story>,
    held_out: Vec<Window>,
    eval: Vec<Window>,
}

fn run() -> Result<()> {
    // 1. The float model, which is also the teacher, and the texts.
    let options = Options::read(std::env::args().skip(1))?;
    let float = Llama::read(&*io::open(&options.model)?)?;
    let mut training = windows(&options.training, LENGTH, 0, usize::MAX)?;
    let mut eval = windows(&options.eval, LENGTH, 0, usize::MAX)?;
    // What is chosen, is chosen on stories that are neither trained on nor reported.
    let mut held_out = eval.split_off(options.stories.min(eval.len()));
    if held_out.is_empty() {
        held_out = training.split_off(training.len() / 2);
    }
    let started = Instant::now();
    let written = stories::written(&float, &training, options.written, options.seed)?;
    let stories = Story::read(&float, training)?;
    let written = Story::read(&float, written)?;
    let bench = Bench {
        options,
        float,
        stories,
        written,
        held_out,
        eval,
    };
    table::print_header();
    let mut runs = vec![bench.measured(&bench.float, "", "float".into(), started)?];
    runs[0].print();

    // 2. Each setting: quantize without training, then train.
    for setting in &bench.options.settings {
        for run in bench.setting(setting, runs[0].score.perplexity)? {
            runs.push(run);
        }
    }
    match &bench.options.json {
        Some(path) => table::write(path, &runs),
        None => Ok(()),
    }
}

impl Bench {
    fn setting(&self, setting: &Setting, float: f64) -> Result<Vec<Run>> {
        let options = &self.options;
        let mut runs = Vec::new();

        // The best that the crate does without training; training starts from the best codes.
        let mut best: Option<Run> = None;
        let mut start: Option<(f64, Start)> = None;
        for method in &options.methods {
            let started = Instant::now();
            let mut model = self.float.clone();
            let layers = start::quantize(&mut model, method, setting, &self.stories)?;
            let run = self.measured(&model, setting.name, format!("ptq {method}"), started)?;
            let held_out = run.held_out.perplexity;
            let better = |than: f64| held_out < than;
            if layers.can_be_trained() && start.as_ref().is_none_or(|(than, _)| better(*than)) {
                start = Some((held_out, layers));
            }
            if best
                .as_ref()
                .is_none_or(|run| better(run.held_out.perplexity))
            {
                best = Some(run);
            }
        }
        let (Some(best), Some((_, start))) = (best, start) else {
            return Ok(runs);
        };
        best.print();
        let ptq = best.score.perplexity;
        runs.push(best);

        for &objective in &options.objectives {
            let mut of_objective = Vec::new();
            for seed in options.seed..options.seed + options.seeds {
                let trained = match options.lora {
                    Some(rank) => Trained::Adapters { rank, seed },
                    None => Trained::Weights,
                };
                let student = Student::new(&self.float, &start, setting.estimator, trained)?;
                let mut run = self.train(student, setting, objective, seed)?;
                run.recovered = Some((ptq - run.score.perplexity) / (ptq - float));
                run.print();
                of_objective.push(run);
            }
            table::print_mean(&of_objective.iter().collect::<Vec<_>>());
            runs.append(&mut of_objective);
            // 3. The control: what the same training does to the float model.
            if options.control {
                let student = Student::new(
                    &self.float,
                    &start,
                    setting.estimator,
                    Trained::WithoutQuantization,
                )?;
                let float_inputs = Setting {
                    inputs: None,
                    ..setting.clone()
                };
                let run = self.train(student, &float_inputs, objective, options.seed)?;
                run.print();
                runs.push(run);
            }
        }
        Ok(runs)
    }

    fn train(
        &self,
        mut student: Student,
        setting: &Setting,
        objective: Objective,
        seed: u64,
    ) -> Result<Run> {
        let options = &self.options;
        let training = Training {
            objective,
            steps: options.steps,
            batch: options.batch,
            rates: match options.rate {
                Some(rate) => Rates::of(rate),
                None => student.rates(setting.rates),
            },
            seed,
        };
        let what = format!("{} {objective}", student.name());
        let label = format!("{} {what}, seed {seed}", setting.name);
        let written = match objective {
            Objective::Distillation => &*self.written,
            Objective::CrossEntropy => &[],
        };
        let stories: Vec<&Story> = self.stories.iter().chain(written).collect();
        let started = Instant::now();
        train(
            &self.float,
            &mut student,
            setting.inputs,
            &stories,
            &training,
            &label,
        )?;

        // What is measured is the converted model: integers, packed, and their kernels.
        let converted = student.convert(setting.inputs)?;
        let mut run = self.measured(&converted, setting.name, what, started)?;
        run.seed = Some(seed);
        run.steps = training.steps;
        Ok(run)
    }

    fn measured(
        &self,
        model: &Llama,
        setting: &'static str,
        what: String,
        started: Instant,
    ) -> Result<Run> {
        let seconds = started.elapsed().as_secs_f64();
        Ok(Run {
            setting,
            what,
            seed: None,
            steps: 0,
            seconds,
            score: score(model, &self.eval)?,
            held_out: score(model, &self.held_out)?,
            recovered: None,
        })
    }
}
