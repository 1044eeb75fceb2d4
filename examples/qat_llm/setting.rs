//! What is quantized to how many bits, and the rates that training takes then.

use lowbit::{Error, Result, Scheme, qat::Ewgs};

use crate::student::Rates;

/// A scheme for weights, perhaps one for inputs, and how fast to train under them.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: &'static str,
    pub weights: Scheme,
    pub inputs: Option<Scheme>,
    pub rates: Rates,
    /// What stands for the derivative of rounding. Its `δ` is large: beside the noise of gradients it
    /// draws weights to the middle of their step, so that few of them oscillate between two codes.
    pub estimator: Ewgs,
}

/// `δ` of the estimator for each step of the range: at the edge of a step gradients are a seventh
/// larger or smaller.
const DELTA: f32 = 0.3;

impl Setting {
    /// All that there are.
    pub fn all() -> Result<Vec<Self>> {
        let rows = |bits| Scheme::int(bits).per_axis(0).symmetric().build();
        let per_token = |bits| Scheme::int(bits).per_row().build();
        let groups = Scheme::int(2).per_group(32).unsigned().asymmetric_float();
        Ok(vec![
            Self::new("w3", rows(3)?, None, 7.5e-4)?,
            Self::new("w2g32", groups.build()?, None, 2e-3)?,
            Self::new("w4a8", rows(4)?, Some(per_token(8)?), 5e-4)?,
            Self::new("w4a4", rows(4)?, Some(per_token(4)?), 5e-4)?,
        ])
    }

    /// The one of this name.
    pub fn named(name: &str) -> Result<Self> {
        let all = Self::all()?;
        let names: Vec<&str> = all.iter().map(|setting| setting.name).collect();
        let unknown = Error::other(format!(
            "no setting {name:?}: there are {}",
            names.join(", ")
        ));
        all.into_iter()
            .find(|setting| setting.name == name)
            .ok_or(unknown)
    }

    fn new(name: &'static str, weights: Scheme, inputs: Option<Scheme>, rate: f32) -> Result<Self> {
        let steps = weights.format().quant_max() - weights.format().quant_min();
        Ok(Self {
            name,
            weights,
            inputs,
            rates: Rates::of(rate),
            estimator: Ewgs::new(DELTA * steps as f32)?,
        })
    }
}
