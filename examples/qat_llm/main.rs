//! A language model trained under quantization.
#![allow(
    unreachable_pub,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a program: its modules are its own, and its numbers small"
)]

mod adam;
#[path = "../llama/llama.rs"]
#[allow(dead_code, reason = "programs use parts of it")]
mod llama;
mod progress;
mod start;
mod stories;
mod student;
#[path = "../quantize_llm/tokens.rs"]
mod tokens;
mod training;

use llama::Llama;
use lowbit::{Result, Scheme, flow::Pipeline, io};
use std::time::Instant;
use stories::Story;
use student::{Rates, Student};
use training::{Objective, Training, train};

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn env(name: &str, default: f32) -> f32 {
    std::env::var(name)
        .ok()
        .map_or(default, |v| v.parse().unwrap())
}

fn run() -> Result<()> {
    let read = || Llama::read(&*io::open("../shared/models/stories260K")?);
    let model = read()?;
    let mut train_windows = tokens::windows(
        "../shared/data/tinystories-calibration.u16".as_ref(),
        512,
        usize::MAX,
    )?;
    let total = train_windows.len();
    let held = train_windows.split_off(total - 100);
    let stories_n = env("STORIES", 1e9) as usize;
    train_windows.truncate(stories_n);
    let mut validation = tokens::windows(
        "../shared/data/tinystories-validation.u16".as_ref(),
        512,
        usize::MAX,
    )?;
    let later = validation.split_off(60);
    println!(
        "stories {total} later {} float eval {:.4} held {:.4} later {:.4}",
        later.len(),
        tokens::score(&model, &validation)?.perplexity,
        tokens::score(&model, &held)?.perplexity,
        tokens::score(&model, &later)?.perplexity
    );
    let t = Instant::now();
    let stories = Story::read(&model, train_windows)?;
    println!("teacher {:.1} s", t.elapsed().as_secs_f64());
    let bits = env("BITS", 3.0) as u32;
    let group = env("GROUP", 0.0) as usize;
    let scheme = match group {
        0 => Scheme::int(bits).per_axis(0).symmetric().build()?,
        size => Scheme::int(bits)
            .per_group(size)
            .unsigned()
            .asymmetric_float()
            .build()?,
    };
    let inputs = match env("ACT", 0.0) as u32 {
        0 => None,
        bits => Some(Scheme::int(bits).per_row().build()?),
    };
    let mut ptq = read()?;
    let method = std::env::var("METHOD").unwrap_or("compensate+gptq+quantease".into());
    let start = start::quantize(
        &mut ptq,
        method.parse::<Pipeline>()?,
        scheme,
        inputs,
        &stories[..64],
    )?;
    println!(
        "ptq {method} eval {:.4} held {:.4} later {:.4}",
        tokens::score(&ptq, &validation)?.perplexity,
        tokens::score(&ptq, &held)?.perplexity,
        tokens::score(&ptq, &later)?.perplexity
    );
    let mut student = match env("FLOAT", 0.0) == 1.0 {
        false => Student::new(&model, &start)?,
        true => Student::without_quantization(&model, &start)?,
    };
    let steps = env("STEPS", 100.0) as usize;
    let r = env("RATE", 5e-4);
    let training = Training {
        objective: if env("CE", 0.0) == 1.0 {
            Objective::CrossEntropy
        } else {
            Objective::Distillation
        },
        steps,
        batch: env("BATCH", 4.0) as usize,
        rates: Rates {
            weights: r,
            scales: env("RS", r),
            zero_points: env("RZ", r),
        },
        seed: env("SEED", 1.0) as u64,
    };
    let t = Instant::now();
    let loss = train(&model, &mut student, inputs, &stories, &training, "train")?;
    let secs = t.elapsed().as_secs_f64();
    let done = student.convert(read()?, inputs)?;
    println!(
        "{steps} steps {secs:.1} s {:.1} steps/s loss {loss:.4}; eval {:.4} held {:.4} later {:.4}",
        steps as f64 / secs,
        tokens::score(&done, &validation)?.perplexity,
        tokens::score(&done, &held)?.perplexity,
        tokens::score(&done, &later)?.perplexity
    );
    Ok(())
}
