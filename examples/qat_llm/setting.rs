//! What is quantized to how many bits, and the rates that training takes then.

use lowbit::{Error, Result, Scheme};

use crate::student::Rates;

/// A scheme for weights, perhaps one for inputs, and how fast to train under them.
#[derive(Debug, Clone)]
pub struct Setting {
    pub name: &'static str,
    pub weights: Scheme,
    pub inputs: Option<Scheme>,
    pub rates: Rates,
}

impl Setting {
    /// All that there are.
    pub fn all() -> Result<Vec<Self>> {
        let rows = |bits| Scheme::int(bits).per_axis(0).symmetric().build();
        let per_token = |bits| Scheme::int(bits).per_row().build();
        let groups = Scheme::int(2).per_group(32).unsigned().asymmetric_float();
        Ok(vec![
            Self::new("w3", rows(3)?, None, 2.5e-4),
            Self::new("w2g32", groups.build()?, None, 1e-3),
            Self::new("w4a8", rows(4)?, Some(per_token(8)?), 5e-4),
            Self::new("w4a4", rows(4)?, Some(per_token(4)?), 5e-4),
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

    fn new(name: &'static str, weights: Scheme, inputs: Option<Scheme>, rate: f32) -> Self {
        Self {
            name,
            weights,
            inputs,
            rates: Rates::all(rate),
        }
    }
}
