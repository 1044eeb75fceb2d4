//! Accuracies, their averages, and the table they are printed in.

use lowbit::Result;

use crate::{
    digits::Digits,
    network::Network,
    spread::{Spread, accuracy},
};

/// What one quantized network does on the test images.
pub struct Outcome {
    pub bytes: usize,
    /// Accuracy in percent of the fake-quantized network.
    pub simulated: f64,
    /// Accuracy in percent of the packed-integer network.
    pub packed: f64,
    /// Images on which the two differ.
    pub disagree: usize,
}

/// One line of the table, for one seed: a float network, or three ways of quantizing it.
pub struct Row {
    pub name: String,
    pub outcomes: Vec<Outcome>,
}

impl Row {
    pub fn float(name: &str, network: &Network, test: &Digits) -> Result<Self> {
        let accuracy = accuracy(&network.predict(&test.images)?, &test.labels);
        let parameters = |layer: &crate::network::Layer<_>| layer.weights.len() + layer.bias.len();
        Ok(Self {
            name: name.to_owned(),
            outcomes: vec![Outcome {
                bytes: 4 * network.0.iter().map(parameters).sum::<usize>(),
                simulated: accuracy,
                packed: accuracy,
                disagree: 0,
            }],
        })
    }
}

/// One line of the table over all seeds.
pub struct Average {
    pub name: String,
    pub bytes: usize,
    /// Simulated and packed accuracy of each way.
    pub accuracies: Vec<(Spread, Spread)>,
    pub disagree: usize,
}

pub fn average(runs: &[Vec<Row>]) -> Vec<Average> {
    let line = |index: usize| {
        let seeds: Vec<&Row> = runs.iter().map(|run| &run[index]).collect();
        let spread = |way: usize, of: fn(&Outcome) -> f64| {
            Spread::of(
                &seeds
                    .iter()
                    .map(|row| of(&row.outcomes[way]))
                    .collect::<Vec<_>>(),
            )
        };
        let ways = seeds[0].outcomes.len();
        let outcomes = seeds.iter().flat_map(|row| &row.outcomes);
        Average {
            name: seeds[0].name.clone(),
            bytes: seeds[0].outcomes[0].bytes,
            accuracies: (0..ways)
                .map(|way| (spread(way, |o| o.simulated), spread(way, |o| o.packed)))
                .collect(),
            disagree: outcomes.map(|outcome| outcome.disagree).sum(),
        }
    };
    (0..runs[0].len()).map(line).collect()
}

pub fn render(rows: &[Average], images: usize) -> String {
    let mut text = format!(
        "Accuracy in percent on {images} test images, mean ± standard deviation of the seeds\n\n\
         {:<18} {:>6}   {:<19} {:<19} {:<19} {:<10}\n\
         {:<18} {:>6}   {:<19} {:<19} {:<19} {:<10}\n",
        "",
        "",
        "round to nearest",
        "least squares",
        "QAT",
        "packed ≠",
        "bits",
        "bytes",
        "simulated  packed",
        "simulated  packed",
        "simulated  packed",
        "simulated",
    );
    for row in rows {
        let cells: Vec<String> = row
            .accuracies
            .iter()
            .map(|(simulated, packed)| {
                let cell = format!("{:.1} ± {:.1}", simulated.mean, simulated.deviation);
                if row.accuracies.len() == 1 {
                    cell
                } else {
                    format!("{cell:<11} {:.1}", packed.mean)
                }
            })
            .collect();
        let disagree = if row.accuracies.len() == 1 {
            String::new()
        } else {
            format!("{} of {}", row.disagree, 3 * 3 * images)
        };
        text += &format!("{:<18} {:>6}  ", row.name, row.bytes);
        for cell in &cells {
            text += &format!(" {cell:<19}");
        }
        text += &format!(" {disagree}\n");
    }
    text
}
