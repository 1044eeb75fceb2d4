//! Weights that jump to and fro between two codes.

use ndarray::{ArrayRef, Dimension};

use crate::{
    affine::{Affine, quantize, same_shape},
    error::{Error, Result},
    scheme::Format,
};

/// Tracks which weights oscillate between codes, and freezes those that do: Nagel et al. 2022,
/// arXiv:2203.11086, section 4.
///
/// At low bits, straight-through gradients drive weights near the border of two codes over it and
/// back, for ever. A weight oscillates at a step when its code changes in the direction opposite to
/// that of its last change; the frequency is a moving average of that, `f ← m · o + (1 − m) · f`
///. A frozen weight stays at the code that is the rounded moving average of its codes
/// (algorithm 1).
///
/// Each step of a training, in this order:
/// 1. after the backward pass, [`mask`](Self::mask) the gradient of the weights;
/// 2. after the optimizer's step, [`hold`](Self::hold) the frozen weights, whatever momentum or a
///    changed scale did to them;
/// 3. [`observe`](Self::observe) the weights, and [`freeze`](Self::freeze) the ones that oscillate.
///
/// It takes 14 bytes for each weight, and serializes: what is read back goes on with the same bits.
///
/// ```
/// use lowbit::{Affine, Scheme, qat::Oscillations};
/// use ndarray::array;
///
/// let affine = Affine::per_tensor(Scheme::int(3).build()?, 1.0, 0.0)?;
/// let mut oscillations = Oscillations::new(0.1)?;
/// for step in 0..40 {
///     // the first weight goes to and fro between 1 and 2, the second stays
///     let jumping = if step % 2 == 0 { 1.4 } else { 1.6 };
///     oscillations.observe(&array![jumping, 0.3_f32], &affine)?;
/// }
/// assert_eq!(oscillations.share(0.005), 0.5);
/// assert_eq!(oscillations.freeze(0.5)?, 1);
/// let mut weights = array![7.0, 0.3];
/// oscillations.hold(&mut weights, &affine)?;
/// assert!(weights[0] == 1.0 || weights[0] == 2.0);
/// assert_eq!(weights[1], 0.3);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked", into = "Unchecked")
)]
pub struct Oscillations {
    momentum: f32,
    shape: Vec<usize>,
    weights: Vec<Tracked>,
}

/// What is known of one weight.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Tracked {
    code: i32,
    /// Sign of the last change; 0 before the first.
    direction: i8,
    frequency: f32,
    /// Moving average of the codes.
    average: f32,
    frozen: bool,
}

impl Oscillations {
    /// With the momentum `m` of the moving averages, 0.01 in most of the paper.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is more than 0 and at most 1.
    pub fn new(momentum: f32) -> Result<Self> {
        if momentum > 0.0 && momentum <= 1.0 {
            Ok(Self {
                momentum,
                shape: vec![],
                weights: vec![],
            })
        } else {
            let expected = "more than 0, at most 1";
            Err(Error::option("momentum", expected, momentum))
        }
    }

    /// Takes the weights after a step into account. The first call fixes their shape.
    ///
    /// # Errors
    /// [`Error::NonFinite`] for a NaN; [`Error::ShapeMismatch`] for weights of another shape than
    /// before, or with other parameters; [`Error::Unsupported`] for small floats, whose codes are not in
    /// the order of their values. Nothing has changed then.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub fn observe<D: Dimension>(
        &mut self,
        weights: &ArrayRef<f32, D>,
        affine: &Affine,
    ) -> Result<()> {
        if let Format::Float(_) = affine.scheme().format() {
            return Err(Error::Unsupported {
                operation: "tracking of oscillations",
                expected: "integers",
                got: affine.scheme().to_string(),
            });
        }
        let codes = quantize::<f32, i32, D>(weights, affine)?;
        if self.weights.is_empty() {
            self.shape = weights.shape().to_vec();
            let first = codes.iter().map(|&code| Tracked {
                code,
                direction: 0,
                frequency: 0.0,
                average: code as f32,
                frozen: false,
            });
            self.weights = first.collect();
            return Ok(());
        }
        same_shape("weights", &self.shape, weights.shape())?;
        let momentum = self.momentum;
        for (tracked, &code) in self.weights.iter_mut().zip(&codes) {
            if tracked.frozen {
                continue;
            }
            let direction: i8 = match code.cmp(&tracked.code) {
                std::cmp::Ordering::Less => -1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => 1,
            };
            let oscillated = f32::from(u8::from(direction * tracked.direction < 0));
            tracked.frequency += momentum * (oscillated - tracked.frequency);
            tracked.average += momentum * (code as f32 - tracked.average);
            if direction != 0 {
                tracked.direction = direction;
            }
            tracked.code = code;
        }
        Ok(())
    }

    /// Freezes the weights that oscillate more often than `threshold`, and returns how many.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless the threshold is from 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an average of codes is between codes"
    )]
    pub fn freeze(&mut self, threshold: f64) -> Result<usize> {
        if !(0.0..=1.0).contains(&threshold) {
            return Err(Error::option("threshold of freezing", "0 to 1", threshold));
        }
        let mut count = 0;
        for tracked in &mut self.weights {
            if !tracked.frozen && f64::from(tracked.frequency) > threshold {
                tracked.frozen = true;
                tracked.code = tracked.average.round_ties_even() as i32;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Moves the frozen weights to where their codes are, `(code − zero point) · scale`.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for weights of another shape, or with other parameters.
    #[expect(clippy::cast_precision_loss, reason = "codes have at most 16 bits")]
    pub fn hold<D: Dimension>(
        &self,
        weights: &mut ArrayRef<f32, D>,
        affine: &Affine,
    ) -> Result<()> {
        let groups = affine.groups(weights.shape())?;
        if self.weights.is_empty() {
            return Ok(());
        }
        same_shape("weights", &self.shape, weights.shape())?;
        let tracked = self.weights.iter().zip(groups.parameters_of_elements());
        for ((tracked, parameter), weight) in tracked.zip(weights.iter_mut()) {
            if tracked.frozen {
                let (scale, zero) = (affine.scale()[parameter], affine.zero_point()[parameter]);
                *weight = (tracked.code as f32 - zero) * scale;
            }
        }
        Ok(())
    }

    /// Sets the gradient of the frozen weights to 0; that of the scale is to be taken before.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] for a gradient of another shape.
    pub fn mask<D: Dimension>(&self, gradient: &mut ArrayRef<f32, D>) -> Result<()> {
        if self.weights.is_empty() {
            return Ok(());
        }
        same_shape("gradient of the weights", &self.shape, gradient.shape())?;
        for (tracked, gradient) in self.weights.iter().zip(gradient.iter_mut()) {
            if tracked.frozen {
                *gradient = 0.0;
            }
        }
        Ok(())
    }

    /// Forgets codes and frequencies, as is due when the bits change; frozen weights are free again.
    pub fn reset(&mut self) {
        self.shape.clear();
        self.weights.clear();
    }

    /// The part of the weights that oscillate more often than `threshold` and are not frozen; the
    /// paper counts from 0.005 on.
    #[must_use]
    pub fn share(&self, threshold: f32) -> f64 {
        self.part(|tracked| !tracked.frozen && tracked.frequency > threshold)
    }

    /// The part of the weights that are frozen.
    #[must_use]
    pub fn frozen_share(&self) -> f64 {
        self.part(|tracked| tracked.frozen)
    }

    /// The frequency of each weight, in row-major order; none before the first step.
    pub fn frequencies(&self) -> impl ExactSizeIterator<Item = f32> + '_ {
        self.weights.iter().map(|tracked| tracked.frequency)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of weights")]
    fn part(&self, counts: impl Fn(&Tracked) -> bool) -> f64 {
        let count = self
            .weights
            .iter()
            .filter(|&tracked| counts(tracked))
            .count();
        count as f64 / self.weights.len().max(1) as f64
    }
}

/// The state as it is stored, an array for each number, before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename = "Oscillations")]
struct Unchecked {
    momentum: f32,
    shape: Vec<usize>,
    code: Vec<i32>,
    direction: Vec<i8>,
    frequency: Vec<f32>,
    average: Vec<f32>,
    frozen: Vec<bool>,
}

#[cfg(feature = "serde")]
impl From<Oscillations> for Unchecked {
    fn from(state: Oscillations) -> Self {
        let weights = &state.weights;
        Self {
            momentum: state.momentum,
            code: weights.iter().map(|tracked| tracked.code).collect(),
            direction: weights.iter().map(|tracked| tracked.direction).collect(),
            frequency: weights.iter().map(|tracked| tracked.frequency).collect(),
            average: weights.iter().map(|tracked| tracked.average).collect(),
            frozen: weights.iter().map(|tracked| tracked.frozen).collect(),
            shape: state.shape,
        }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Oscillations {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let mut state = Self::new(stored.momentum)?;
        let count = crate::groups::element_count("weights", &stored.shape)?;
        let count = if stored.code.is_empty() { 0 } else { count };
        for (what, len) in [
            ("codes", stored.code.len()),
            ("directions", stored.direction.len()),
            ("frequencies", stored.frequency.len()),
            ("averages", stored.average.len()),
            ("frozen weights", stored.frozen.len()),
        ] {
            same_shape(what, &[count], &[len])?;
        }
        for index in 0..count {
            let (frequency, average) = (stored.frequency[index], stored.average[index]);
            if !(0.0..=1.0).contains(&frequency) || !(-65_536.0..=65_536.0).contains(&average) {
                return Err(Error::NonFinite {
                    what: "state of a weight",
                    expected: "a frequency from 0 to 1 and an average of codes",
                    position: vec![index],
                    value: if average.is_finite() {
                        frequency
                    } else {
                        average
                    }
                    .into(),
                });
            }
            state.weights.push(Tracked {
                code: stored.code[index],
                direction: stored.direction[index].signum(),
                frequency,
                average,
                frozen: stored.frozen[index],
            });
        }
        state.shape = stored.shape;
        Ok(state)
    }
}
