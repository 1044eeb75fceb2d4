//! What is switched on at which step of a training.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// What the parameters of a group are, for rates and decay of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterRole {
    /// Weights of products.
    Weight,
    /// Biases, and the factors and biases of norms.
    Bias,
    /// Anything a fake-quant learns: scales, offsets, clipping values, ends of ranges.
    Quantizer,
}

/// A plan of a training: says by the number of the step what is on, in one call a step.
///
/// A schedule is a function of the step alone. It has no state, so that a training that was
/// interrupted goes on exactly from the number of its next step.
///
/// - **Delay**: weights are fake-quantized from one step on, activations from another.
/// - **Bits**: more at first, then fewer: annealing.
/// - **Freezing** of observed ranges and of batch-norm statistics, late.
/// - **Oscillations**: the strength of the [dampening loss](super::dampening_loss), and the threshold
///   of [freezing](super::Oscillations::freeze), both along a cosine (Nagel et al. 2022,
///   arXiv:2203.11086, section 4).
/// - **Rates**: linear warm-up and a cosine down; a factor for what quantizers learn, and weight
///   decay on weights alone: decay would shrink scales without end.
///
/// ```
/// use lowbit::qat::{ParameterRole, Schedule};
///
/// let schedule = Schedule::new(1000)?
///     .with_delay(100, 300)
///     .with_bits(&[(0, 8), (300, 4), (600, 3)])?
///     .with_range_freeze(800)
///     .with_dampening(0.1, 600)?
///     .with_rates(1e-3, 50, 0.1)?
///     .with_quantizer_rate(0.1)?
///     .with_weight_decay(1e-2)?;
/// for step in 0..schedule.steps() {
///     let stage = schedule.at(step);
///     // … the forward pass, with fake-quants switched as the stage says …
///     let rate = stage.rate(ParameterRole::Weight);
/// #   let _ = rate;
/// }
/// assert!(!schedule.at(99).weights && schedule.at(100).weights);
/// assert_eq!(schedule.at(450).bits, Some(4));
/// assert_eq!(schedule.at(799).observing, true);
/// assert_eq!(schedule.at(10).decay(ParameterRole::Quantizer), 0.0);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    steps: u64,
    weights_from: u64,
    activations_from: u64,
    bits: Vec<(u64, u32)>,
    ranges_until: u64,
    batch_norm_until: u64,
    dampening: Ramp,
    freezing: Option<Ramp>,
    rate: f64,
    warm_up: u64,
    /// The last rate, as a part of the greatest.
    last_rate: f64,
    quantizer_rate: f64,
    weight_decay: f64,
}

/// A number that goes along half a cosine, from one step to the last.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Ramp {
    start: u64,
    from: f64,
    to: f64,
}

impl Ramp {
    fn at(self, step: u64, steps: u64) -> f64 {
        if step <= self.start {
            return self.from;
        }
        let share = share(
            step.saturating_sub(self.start),
            steps.saturating_sub(self.start),
        );
        self.to + (self.from - self.to) * 0.5 * (1.0 + (PI * share).cos())
    }
}

/// A part of a whole from 0 to 1; all of nothing is 1.
#[expect(clippy::cast_precision_loss, reason = "counts of steps")]
fn share(part: u64, whole: u64) -> f64 {
    if part >= whole {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

fn check(what: &'static str, value: f64, greatest: f64) -> Result<f64> {
    if (0.0..=greatest).contains(&value) {
        Ok(value)
    } else {
        Err(Error::option(what, format!("0 to {greatest}"), value))
    }
}

impl Schedule {
    /// Everything on from the first step to the last, nothing frozen, a constant rate of 1.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for no steps.
    pub fn new(steps: u64) -> Result<Self> {
        if steps == 0 {
            return Err(Error::option("steps", "at least 1", steps));
        }
        Ok(Self {
            steps,
            weights_from: 0,
            activations_from: 0,
            bits: vec![],
            ranges_until: steps,
            batch_norm_until: steps,
            dampening: Ramp {
                start: 0,
                from: 0.0,
                to: 0.0,
            },
            freezing: None,
            rate: 1.0,
            warm_up: 0,
            last_rate: 1.0,
            quantizer_rate: 1.0,
            weight_decay: 0.0,
        })
    }

    /// Weights are fake-quantized from the one step on, activations from the other; observers watch
    /// from the beginning.
    #[must_use]
    pub fn with_delay(mut self, weights: u64, activations: u64) -> Self {
        (self.weights_from, self.activations_from) = (weights, activations);
        self
    }

    /// Bits of the weights, each from a step on; the last ones are to be those that are deployed.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the first ones are from step 0 on, later ones later, and all 1
    /// to 8.
    pub fn with_bits(mut self, bits: &[(u64, u32)]) -> Result<Self> {
        let in_order = bits.windows(2).all(|pair| pair[0].0 < pair[1].0);
        let from_start = bits.first().is_none_or(|&(step, _)| step == 0);
        let possible = bits.iter().all(|(_, bits)| (1..=8).contains(bits));
        if !(in_order && from_start && possible) {
            let expected =
                "1 to 8 bits each, the first from step 0 on, each later than the one before";
            return Err(Error::option("bits", expected, format!("{bits:?}")));
        }
        self.bits = bits.to_vec();
        Ok(self)
    }

    /// Observed ranges are frozen from this step on.
    #[must_use]
    pub fn with_range_freeze(mut self, step: u64) -> Self {
        self.ranges_until = step;
        self
    }

    /// Batch-norm statistics are frozen from this step on.
    #[must_use]
    pub fn with_batch_norm_freeze(mut self, step: u64) -> Self {
        self.batch_norm_until = step;
        self
    }

    /// The strength of the dampening loss grows from 0 at step `from` to `strength` at the last one.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the strength is from 0 to 10⁶.
    pub fn with_dampening(mut self, strength: f64, from: u64) -> Result<Self> {
        self.dampening = Ramp {
            start: from,
            from: 0.0,
            to: check("strength of the dampening", strength, 1e6)?,
        };
        Ok(self)
    }

    /// Weights that oscillate more often than a threshold are frozen; it falls from `first` at step
    /// `from` to `last` at the last one. Thresholds below two or three momenta of the tracking freeze
    /// what moved once.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless both are from 0 to 1.
    pub fn with_freezing(mut self, first: f64, last: f64, from: u64) -> Result<Self> {
        self.freezing = Some(Ramp {
            start: from,
            from: check("threshold of freezing", first, 1.0)?,
            to: check("threshold of freezing", last, 1.0)?,
        });
        Ok(self)
    }

    /// The learning rate grows evenly from 0 to `greatest` over `warm_up` steps, then falls along a
    /// cosine to `last` times that.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the rate is from 0 to 10⁶ and `last` from 0 to 1.
    pub fn with_rates(mut self, greatest: f64, warm_up: u64, last: f64) -> Result<Self> {
        self.rate = check("learning rate", greatest, 1e6)?;
        self.last_rate = check("last rate", last, 1.0)?;
        self.warm_up = warm_up;
        Ok(self)
    }

    /// What quantizers learn has this many times the rate of the weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is from 0 to 10⁶.
    pub fn with_quantizer_rate(mut self, factor: f64) -> Result<Self> {
        self.quantizer_rate = check("rate of quantizers", factor, 1e6)?;
        Ok(self)
    }

    /// Decay of weights; biases and what quantizers learn have none.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is from 0 to 10⁶.
    pub fn with_weight_decay(mut self, decay: f64) -> Result<Self> {
        self.weight_decay = check("weight decay", decay, 1e6)?;
        Ok(self)
    }

    /// The number of steps.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// What is on at a step; from the last step on, everything stays as it is there.
    #[must_use]
    pub fn at(&self, step: u64) -> Stage {
        let last = self.steps - 1;
        let step = step.min(last);
        let warming = share(step + 1, self.warm_up.saturating_add(1));
        let falling = Ramp {
            start: self.warm_up,
            from: 1.0,
            to: self.last_rate,
        };
        let reached = self.bits.iter().rev().find(|&&(from, _)| from <= step);
        Stage {
            step,
            weights: step >= self.weights_from,
            activations: step >= self.activations_from,
            bits: reached.map(|&(_, bits)| bits),
            observing: step < self.ranges_until,
            batch_norm_frozen: step >= self.batch_norm_until,
            dampening: self.dampening.at(step, last),
            freezing: self
                .freezing
                .filter(|ramp| step >= ramp.start)
                .map(|ramp| ramp.at(step, last)),
            rate: self.rate * warming * falling.at(step, last),
            quantizer_rate: self.quantizer_rate,
            weight_decay: self.weight_decay,
        }
    }
}

/// What is on at one step: [`Schedule::at`].
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Stage {
    /// The step.
    pub step: u64,
    /// Whether weights are fake-quantized.
    pub weights: bool,
    /// Whether activations are fake-quantized.
    pub activations: bool,
    /// Bits of the weights; none if they are what they are.
    pub bits: Option<u32>,
    /// Whether observed ranges move.
    pub observing: bool,
    /// Whether batch-norm statistics stand still.
    pub batch_norm_frozen: bool,
    /// The strength of the dampening loss.
    pub dampening: f64,
    /// The frequency of oscillation above which weights are frozen; none if none are.
    pub freezing: Option<f64>,
    rate: f64,
    quantizer_rate: f64,
    weight_decay: f64,
}

impl Stage {
    /// The learning rate of a group of parameters.
    #[must_use]
    pub fn rate(&self, role: ParameterRole) -> f64 {
        match role {
            ParameterRole::Weight | ParameterRole::Bias => self.rate,
            ParameterRole::Quantizer => self.rate * self.quantizer_rate,
        }
    }

    /// The weight decay of a group of parameters, to be multiplied by its rate.
    #[must_use]
    pub fn decay(&self, role: ParameterRole) -> f64 {
        match role {
            ParameterRole::Weight => self.weight_decay,
            ParameterRole::Bias | ParameterRole::Quantizer => 0.0,
        }
    }
}
