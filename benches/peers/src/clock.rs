//! Interleaved timing.

use std::time::Instant;

use crate::options::Options;

/// Something to time: does some work, and says how much (in operations or bytes).
pub(crate) type Work = Box<dyn FnMut() -> f64>;

/// What a row of a table is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Ours,
    Peer,
    Limit,
}

/// A row of a table: one work for each column that it has.
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) cells: Vec<Option<Work>>,
}

/// A table to be.
pub(crate) struct Group {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) entries: Vec<Entry>,
}

/// A row that was measured: for each column the rate of each round, in units of 10⁹ a second.
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) role: Role,
    pub(crate) rates: Vec<Vec<f64>>,
}

/// A table that was measured.
pub(crate) struct Result {
    pub(crate) title: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Measured>,
}

/// What a sample lasts at least, in seconds.
const SAMPLE: f64 = 0.02;

/// Measures a group, column by column, each round all rows in turn.
pub(crate) fn measure(mut group: Group, options: &Options) -> Result {
    let mut rows: Vec<Measured> = group
        .entries
        .iter()
        .map(|entry| Measured {
            name: entry.name.clone(),
            role: entry.role,
            rates: vec![vec![]; group.columns.len()],
        })
        .collect();
    for column in 0..group.columns.len() {
        // The first round warms up caches and clocks.
        for round in 0..=options.rounds {
            for (entry, row) in group.entries.iter_mut().zip(&mut rows) {
                if let Some(work) = &mut entry.cells[column] {
                    let rate = sample(work);
                    if round > 0 {
                        row.rates[column].push(rate);
                    }
                }
            }
        }
    }
    Result {
        title: group.title,
        columns: group.columns,
        rows,
    }
}

/// The best rate of the calls that a sample has time for.
fn sample(work: &mut Work) -> f64 {
    let begin = Instant::now();
    let mut best = 0.0_f64;
    loop {
        let start = Instant::now();
        let done = work();
        best = best.max(done / start.elapsed().as_secs_f64());
        if begin.elapsed().as_secs_f64() >= SAMPLE {
            return best / 1e9;
        }
    }
}

/// The middle of some numbers, not a number if there are none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len => (sorted[(len - 1) / 2] + sorted[len / 2]) / 2.0,
    }
}
