//! Token files, their windows, and perplexity.

use std::{path::Path, time::Instant};

use lowbit::{Error, Result};
use rayon::prelude::*;

use crate::llama::Llama;

/// The id that begins a document in the stories files.
const START: u16 = 1;

/// What the model reads, and what it is to predict after each token.
pub struct Window {
    pub tokens: Vec<u16>,
    pub targets: Vec<u16>,
}

/// The windows of a file of 16-bit ids: one a document, cut at `length`, if the file begins with the
/// id of a beginning; else one every `length` ids, each with the id after it as its last target. At
/// most `limit`, after `skip` others.
pub fn windows(path: &Path, length: usize, skip: usize, limit: usize) -> Result<Vec<Window>> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io {
        from: path.display().to_string(),
        source,
    })?;
    let (pairs, rest) = bytes.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(Error::Format {
            what: path.display().to_string(),
            expected: "ids of 16 bits, an even number of bytes".into(),
            got: format!("{} bytes", bytes.len()),
            offset: None,
        });
    }
    let ids: Vec<u16> = pairs.iter().map(|&pair| u16::from_le_bytes(pair)).collect();
    let window = |ids: &[u16]| {
        let (Some((_, tokens)), Some((_, targets))) = (ids.split_last(), ids.split_first()) else {
            return None;
        };
        (!tokens.is_empty()).then(|| Window {
            tokens: tokens.to_vec(),
            targets: targets.to_vec(),
        })
    };
    let windows: Vec<Window> = if ids.first() == Some(&START) {
        let documents = ids.chunk_by(|_, &next| next != START);
        let cut = documents.map(|ids| &ids[..ids.len().min(length)]);
        cut.filter_map(window).skip(skip).take(limit).collect()
    } else {
        let starts = (0..ids.len()).step_by(length).skip(skip).take(limit);
        let end = |start: usize| {
            ids.len()
                .min(start.saturating_add(length).saturating_add(1))
        };
        let cut = starts.map(|start| &ids[start..end(start)]);
        cut.filter_map(window).collect()
    };
    if windows.is_empty() {
        return Err(Error::Empty {
            what: format!("tokens of {}", path.display()),
        });
    }
    Ok(windows)
}

/// How well a model predicts, and how fast it runs.
#[derive(Debug, Clone, Copy)]
pub struct Score {
    pub perplexity: f64,
    pub predictions: usize,
    pub tokens_per_second: f64,
}

/// `exp` of the mean of `−log p` of the targets.
pub fn score(model: &Llama, windows: &[Window]) -> Result<Score> {
    let started = Instant::now();
    let losses: Vec<f64> = windows
        .par_iter()
        .map(|window| loss(model, window))
        .collect::<Result<_>>()?;
    let predictions: usize = windows.iter().map(|window| window.targets.len()).sum();
    Ok(Score {
        perplexity: (losses.iter().sum::<f64>() / predictions as f64).exp(),
        predictions,
        tokens_per_second: predictions as f64 / started.elapsed().as_secs_f64(),
    })
}

fn loss(model: &Llama, window: &Window) -> Result<f64> {
    let logits = model.forward(&window.tokens)?;
    let rows = logits.rows().into_iter().zip(&window.targets);
    let losses = rows.map(|(row, &target)| {
        let most = row.fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        let sum: f64 = row.iter().map(|&x| f64::from(x - most).exp()).sum();
        match row.get(usize::from(target)) {
            Some(&logit) => Ok(sum.ln() - f64::from(logit - most)),
            None => Err(Error::other(format!("no token {target} in the model"))),
        }
    });
    losses.sum()
}
