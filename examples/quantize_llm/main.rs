//! A language model quantized layer by layer, and its perplexity before and after.
//!
//! ```text
//! cargo run --release --example quantize_llm -- --model DIR_OR_GGUF --calibration FILE.u16 \
//!     --eval FILE.u16 --bits 3 --group 128 --method gptq
//! ```
//!
//! This file is the tutorial: read it from top to bottom. `../llama` is the model, which tells the
//! crate its blocks and runs packed layers once it has them; `tokens.rs` the texts and perplexity.

#![allow(
    unreachable_pub,
    clippy::cast_precision_loss,
    reason = "a program: its modules are its own, and its numbers small"
)]

mod arguments;
#[path = "../llama/llama.rs"]
#[allow(dead_code, reason = "training is for other programs")]
mod llama;
mod method;
mod options;
mod table;
mod tokens;

use std::{
    io::{IsTerminal, Write},
    ops::ControlFlow,
    time::Instant,
};

use lowbit::{
    Result, Scheme,
    flow::{ModelQuantization, ModelReport, Progress, Recipe, TokenWeights, Treatment},
    io,
};

use llama::Llama;
use method::Method;
use options::Options;
use table::Run;
use tokens::{Window, score, windows};

/// From the simplest method to the best.
const LADDER: [&str; 12] = [
    "rtn",
    "mse",
    "hqq",
    "awq+mse",
    "mse+gptq",
    "gptq",
    "gptaq",
    "quantease",
    "signround",
    "best",
    "gptaq+block",
    "gptaq+block+model=400",
];

fn main() {
    if let Err(error) = run() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    // 1. The model in floats, and what it is measured on.
    let options = Options::read(std::env::args().skip(1))?;
    let mut model = Llama::read(&*io::open(&options.model)?)?;
    let length = options.window_length;
    let calibration = windows(&options.calibration, length, 0, options.samples)?;
    let eval = windows(&options.eval, length, options.skip, options.windows)?;
    table::print_header();
    let mut runs = vec![Run {
        method: "float".into(),
        bits: 32,
        group: 0,
        bytes: 4 * model.linear_elements(),
        effective_bits: 32.0,
        seconds: 0.0,
        score: score(&model, &eval)?,
        report: ModelReport::default(),
    }];
    runs[0].print();

    // 2. Each method: quantize, and measure again with the packed layers running.
    let methods = match options.compare {
        true => LADDER.to_vec(),
        false => vec![options.method.as_str()],
    };
    for (index, method) in methods.iter().enumerate() {
        if index > 0 {
            model = Llama::read(&*io::open(&options.model)?)?;
        }
        let run = quantize(&mut model, method, &options, &calibration, &eval)?;
        run.print();
        if options.report {
            println!("{}", run.report);
        }
        runs.push(run);
    }
    match &options.json {
        Some(path) => table::write(path, &runs),
        None => Ok(()),
    }
}

fn quantize(
    model: &mut Llama,
    method: &str,
    options: &Options,
    calibration: &[Window],
    eval: &[Window],
) -> Result<Run> {
    // The scheme of the weights: bits, and which of them share a scale and a zero point.
    let scheme = match options.group {
        0 => Scheme::int(options.bits).per_axis(0),
        size => Scheme::int(options.bits).per_group(size),
    };
    let scheme = match options.asymmetric.unwrap_or(options.group > 0) {
        true => scheme.unsigned().asymmetric_float().build()?,
        false => scheme.symmetric().build()?,
    };

    // The recipe: the first rule that matches a layer says what happens to it.
    let words = method;
    let method = Method::of(words)?;
    let weights_alone = Treatment::new(scheme, method.pipeline);
    let mut recipe = Recipe::new();
    if let Some(bits) = options.activations {
        let per_token = Scheme::int(bits).per_row().build()?;
        let with = |inputs| weights_alone.clone().with_activations(inputs);
        if let Some(pattern) = &options.dynamic {
            recipe = recipe.quantize(pattern, with(per_token));
        }
        let inputs = match options.static_activations {
            true => Scheme::int(bits).unsigned().asymmetric().build()?,
            false => per_token,
        };
        recipe = recipe.quantize("model.layers.*", with(inputs));
    } else {
        recipe = recipe.quantize("model.layers.*", weights_alone);
    }

    // Block after block, each calibrated on what the quantized ones before it produce.
    let started = Instant::now();
    let embed = |window: &Window| model.embed(&window.tokens);
    let samples = calibration.iter().map(embed).collect::<Result<Vec<_>>>()?;
    let mut quantization = ModelQuantization::new(&recipe).with_progress(show);
    if options.weigh_tokens {
        quantization = quantization.with_token_weights(TokenWeights::StreamShare);
    }
    if let Some(directory) = &options.checkpoints {
        quantization = quantization.with_checkpoints(directory.join(words));
    }
    let report = method.run(quantization, model, samples)?;
    let seconds = started.elapsed().as_secs_f64();

    Ok(Run {
        method: words.to_owned(),
        bits: options.bits,
        group: options.group,
        bytes: report.bytes(),
        effective_bits: report.effective_bits(),
        seconds,
        score: score(model, eval)?,
        report,
    })
}

/// A line that is written over, where somebody looks.
fn show(progress: &Progress<'_>) -> ControlFlow<()> {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        let layer = progress.layer.map_or("", |report| &report.layer);
        let (block, blocks) = (progress.block + 1, progress.blocks);
        // A terminal that is gone is no reason to stop.
        let _ = write!(terminal, "\r\x1b[Kblock {block} of {blocks} {layer}\r");
    }
    ControlFlow::Continue(())
}
