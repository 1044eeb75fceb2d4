//! Elementwise operations on 16 Mi elements (64 MB of f32), one thread, each beside a copy that
//! moves the same bytes.
//!
//! `cargo bench --bench elementwise` measures with criterion; `cargo bench --bench elementwise --
//! --ratios [words of a name]` prints a table instead: medians of interleaved runs from cold caches,
//! and the share of the fastest copy's speed.
#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a benchmark, with numbers of its own"
)]

mod cases;
mod copies;

use std::{
    cell::{LazyCell, RefCell},
    time::Instant,
};

use criterion::Criterion;

use cases::{Inputs, cases};
use copies::Copies;

/// Interleaved runs for the table; the median of each counts.
const RUNS: usize = 15;

fn main() {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    // Cargo adds `--bench` to what it is given.
    let arguments = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench");
    let arguments: Vec<String> = arguments.collect();
    let at = arguments.iter().position(|argument| argument == "--ratios");
    pool.install(|| match at {
        Some(at) => print_ratios(&arguments[at + 1..]),
        None => measure(),
    });
}

fn measure() {
    let mut criterion = Criterion::default().sample_size(10).configure_from_args();
    let inputs = Inputs::new();
    let mut copies = Copies::new();
    for (name, make) in cases() {
        let mut group = criterion.benchmark_group(&name);
        // Made where it is measured, so that a filter skips the rest.
        let case = LazyCell::new(|| RefCell::new(make(&inputs)));
        group.bench_function("run", |bencher| bencher.iter(|| case.borrow_mut().run()));
        group.bench_function("copy", |bencher| {
            let bytes = case.borrow().bytes();
            bencher.iter(|| copies.run(Copies::FASTEST, bytes / 2));
        });
        group.finish();
    }
    criterion.final_summary();
}

fn print_ratios(words: &[String]) {
    let inputs = Inputs::new();
    let mut copies = Copies::new();
    println!(
        "{:44} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7}",
        "", "ms", "GB/s", "memcpy", "copy", "ratio", "best"
    );
    for (name, make) in cases() {
        if !words.iter().all(|word| name.contains(word.as_str())) {
            continue;
        }
        let mut case = make(&inputs);
        let bytes = case.bytes();
        let mut times = vec![vec![]; 1 + Copies::KINDS];
        for _ in 0..RUNS {
            for (kind, times) in times.iter_mut().enumerate() {
                copies.flush();
                let start = Instant::now();
                match kind.checked_sub(1) {
                    None => case.run(),
                    Some(kind) => copies.run(kind, bytes / 2),
                }
                times.push(start.elapsed().as_secs_f64() * 1e3);
            }
        }
        let medians: Vec<f64> = times.iter().cloned().map(median).collect();
        let least: Vec<f64> = times.iter().map(|times| fold_min(times)).collect();
        println!(
            "{name:44} {:8.2} {:8.1} {:8.2} {:8.2} {:6.0}% {:6.0}%",
            medians[0],
            bytes as f64 / medians[0] / 1e6,
            medians[1],
            fold_min(&medians[1..]),
            100.0 * fold_min(&medians[1..]) / medians[0],
            100.0 * fold_min(&least[1..]) / least[0],
        );
    }
}

fn fold_min(times: &[f64]) -> f64 {
    times.iter().copied().fold(f64::INFINITY, f64::min)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
