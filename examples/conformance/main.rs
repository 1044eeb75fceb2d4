//! Runs conformance cases: inputs, and the outputs that a public reference program computed.
//!
//! ```text
//! cargo run --release --example conformance -- DIR
//! ```
//!
//! One safetensors file in DIR is one case; its metadata names the operator and its attributes, its
//! tensors `expected.NAME` are the outputs. This program only maps a case to public calls of
//! `lowbit` and compares. Operators it does not know are skipped by name. It ends with one line,
//! `N passed, M failed, K skipped`, and exits with 1 if a case failed.

#![allow(
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a program: its modules are its own, and its numbers small"
)]

mod case;
mod compare;
mod operators;

use std::{path::Path, process::ExitCode};

use case::Case;
use operators::Outcome;

fn main() -> ExitCode {
    let Some(directory) = std::env::args().nth(1) else {
        eprintln!("usage: conformance DIR");
        return ExitCode::from(2);
    };
    let mut files = match list(Path::new(&directory)) {
        Ok(files) => files,
        Err(error) => {
            eprintln!("{directory}: {error}");
            return ExitCode::from(2);
        }
    };
    files.sort();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for file in files {
        let name = file.file_stem().unwrap_or_default().to_string_lossy();
        match run(&file) {
            Ok(Outcome::Equal) => passed += 1,
            Ok(Outcome::Unknown(operator)) => {
                println!("skipped {name}: operator {operator}");
                skipped += 1;
            }
            Ok(Outcome::Different(what)) | Err(what) => {
                println!("FAILED {name}: {what}");
                failed += 1;
            }
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn list(directory: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            files.push(path);
        }
    }
    Ok(files)
}

fn run(file: &Path) -> Result<Outcome, String> {
    let bytes = std::fs::read(file).map_err(|error| error.to_string())?;
    let case = Case::parse(&bytes)?;
    operators::run(&case)
}
