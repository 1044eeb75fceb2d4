//! The results over all seeds, and the tables they are printed in.

use crate::{
    Job, Outcome,
    methods::{ActivationMethod, Bits, WeightMethod},
    spread::Spread,
    stabilised::{Stabiliser, Stability},
};

pub struct Results<'a> {
    jobs: &'a [Job],
    pub float: Spread,
    /// For each job, the outcome of each seed.
    outcomes: Vec<Vec<&'a Outcome>>,
}

impl<'a> Results<'a> {
    pub fn new(jobs: &'a [Job], runs: &'a [(f64, Vec<Option<Outcome>>)]) -> Self {
        let float: Vec<f64> = runs.iter().map(|(float, _)| *float).collect();
        let of = |job: usize| {
            runs.iter()
                .filter_map(|(_, outcomes)| outcomes[job].as_ref())
                .collect()
        };
        Self {
            jobs,
            float: Spread::of(&float),
            outcomes: (0..jobs.len()).map(of).collect(),
        }
    }

    fn find(&self, wanted: impl Fn(&Job) -> bool) -> Option<&[&Outcome]> {
        let job = self.jobs.iter().position(wanted)?;
        Some(&self.outcomes[job])
            .filter(|outcomes| !outcomes.is_empty())
            .map(Vec::as_slice)
    }

    pub fn weights(&self, method: WeightMethod, bits: Bits) -> Option<Spread> {
        let is = |job: &Job| matches!(job, Job::Weights(m, b) if (*m, *b) == (method, bits));
        self.find(is).map(accuracies)
    }

    fn activations(&self, method: ActivationMethod, bits: u32) -> Option<Spread> {
        let is = |job: &Job| matches!(job, Job::Activations(m, b) if (*m, *b) == (method, bits));
        self.find(is).map(accuracies)
    }

    /// Accuracy, and the mean of what was seen of stability.
    pub fn stabilised(&self, stabiliser: Stabiliser, bits: Bits) -> Option<(Spread, Stability)> {
        let is = |job: &Job| matches!(job, Job::Stabilised(s, b) if (*s, *b) == (stabiliser, bits));
        let outcomes = self.find(is)?;
        let mean = |of: fn(&Stability) -> f64| {
            let seen = outcomes
                .iter()
                .filter_map(|outcome| outcome.stability.as_ref());
            seen.map(of).sum::<f64>() / outcomes.len() as f64
        };
        let stability = Stability {
            oscillating: mean(|s| s.oscillating),
            frozen: mean(|s| s.frozen),
            wobble: mean(|s| s.wobble),
        };
        Some((accuracies(outcomes), stability))
    }

    pub fn render(&self, images: usize) -> String {
        let Spread { mean, deviation } = self.float;
        let mut text = format!(
            "Accuracy in percent on {images} test images, mean ± standard deviation of the seeds\n\
             float: {mean:.1} ± {deviation:.1}\n\nweights (activations at 8 bits)\n{:<22}",
            ""
        );
        for bits in Bits::ALL {
            text += &format!("{:<14}", bits.name());
        }
        for method in WeightMethod::ALL {
            text += &format!("\n{:<22}", method.name());
            for bits in Bits::ALL {
                text += &cell(self.weights(method, bits));
            }
        }
        // Why two rows may be the same.
        text += "\n(Clipped and plain STE differ in weights beyond the last codes alone. As long as these\n\
                 stay there, the networks are the same.)";
        text += &format!("\n\nactivations (weights at 4 bits, LSQ)\n{:<22}", "");
        for bits in [4, 3, 2] {
            text += &format!("{:<14}", format!("{bits} bits"));
        }
        for method in ActivationMethod::ALL {
            text += &format!("\n{:<22}", method.name());
            for bits in [4, 3, 2] {
                text += &cell(self.activations(method, bits));
            }
        }
        text += "\n\nstabilisers (LSQ, activations at 8 bits)\n";
        text += &format!(
            "{:<22}{:<14}{:<16}{:<14}deviation of the loss over the last steps\n",
            "", "accuracy", "oscillating, %", "frozen, %"
        );
        for bits in [Bits::Three, Bits::Two, Bits::Ternary] {
            for stabiliser in Stabiliser::ALL {
                let Some((spread, s)) = self.stabilised(stabiliser, bits) else {
                    continue;
                };
                let name = format!("{}, {}", bits.name(), stabiliser.name());
                let percent = 100.0 * s.wobble;
                text += &format!(
                    "{name:<22}{}{:<16.1}{:<14.1}{percent:.2} %\n",
                    cell(Some(spread)),
                    s.oscillating,
                    s.frozen
                );
            }
        }
        let packed = self.outcomes.iter().flatten();
        let packed: Vec<(usize, usize)> = packed.filter_map(|outcome| outcome.packed).collect();
        let (networks, sizes) = (packed.len(), packed.iter().map(|&(_, bytes)| bytes));
        let (least, greatest) = (sizes.clone().min(), sizes.max());
        text += &format!(
            "\n{networks} networks packed as integers, of {} to {} bytes: {} of {} answers differ from training's\n",
            least.unwrap_or(0),
            greatest.unwrap_or(0),
            packed.iter().map(|(disagree, _)| disagree).sum::<usize>(),
            networks * images
        );
        text
    }
}

fn accuracies(outcomes: &[&Outcome]) -> Spread {
    Spread::of(
        &outcomes
            .iter()
            .map(|outcome| outcome.accuracy)
            .collect::<Vec<_>>(),
    )
}

fn cell(spread: Option<Spread>) -> String {
    let text = spread.map_or("—".to_owned(), |s| {
        format!("{:.1} ± {:.1}", s.mean, s.deviation)
    });
    format!("{text:<14}")
}
