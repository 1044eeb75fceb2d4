//! Steps that would break a training.

use crate::error::{Error, Result};

/// Lets no step through whose loss or gradients are not finite, and shortens those that are too
/// long.
///
/// ```
/// use lowbit::qat::StepGuard;
///
/// let mut guard = StepGuard::new().with_greatest_norm(1.0)?;
/// let (mut weights, mut scales) = ([3.0_f32, 0.0], [4.0_f32]);
/// assert!(guard.admit(0.7, &mut [&mut weights, &mut scales])?); // a norm of 5
/// assert!((weights[0] - 0.6).abs() < 1e-6 && (scales[0] - 0.8).abs() < 1e-6);
///
/// scales[0] = f32::NAN;
/// assert!(!guard.admit(0.7, &mut [&mut weights, &mut scales])?); // leave this step out
/// assert_eq!(guard.skipped(), 1);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Unchecked")
)]
pub struct StepGuard {
    greatest_norm: Option<f64>,
    patience: u64,
    skipped: u64,
    /// Steps left out since the last one that was let through.
    in_a_row: u64,
}

impl Default for StepGuard {
    fn default() -> Self {
        Self {
            greatest_norm: None,
            patience: 50,
            skipped: 0,
            in_a_row: 0,
        }
    }
}

impl StepGuard {
    /// Any length of steps; at most 50 left out in a row.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Gradients whose norm over all groups together is greater are shortened to this norm.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless it is finite and positive.
    pub fn with_greatest_norm(mut self, norm: f64) -> Result<Self> {
        if !(norm.is_finite() && norm > 0.0) {
            let expected = "a finite number above 0";
            return Err(Error::option("greatest norm", expected, norm));
        }
        self.greatest_norm = Some(norm);
        Ok(self)
    }

    /// At most so many steps in a row are left out before [`admit`](Self::admit) is an error.
    #[must_use]
    pub fn with_patience(mut self, steps: u64) -> Self {
        self.patience = steps;
        self
    }

    /// Whether to take a step with this loss and these gradients, which are shortened where they are
    /// too long. If not, leave the step out, the optimizer's moments too.
    ///
    /// # Errors
    /// [`Error::NonFinite`] when more steps in a row had to be left out than the patience allows:
    /// the training has diverged, and leaving out steps does not bring it back.
    #[expect(clippy::cast_possible_truncation, reason = "a factor of gradients")]
    pub fn admit(&mut self, loss: f64, gradients: &mut [&mut [f32]]) -> Result<bool> {
        let square = |gradient: &f32| f64::from(*gradient) * f64::from(*gradient);
        let groups = gradients.iter();
        let squares: f64 = groups
            .map(|group| group.iter().map(square).sum::<f64>())
            .sum();
        // Squares of f32 do not overflow f64: the sum is finite if and only if all gradients are.
        if !(loss.is_finite() && squares.is_finite()) {
            self.skipped = self.skipped.saturating_add(1);
            self.in_a_row = self.in_a_row.saturating_add(1);
            if self.in_a_row > self.patience {
                return Err(Error::NonFinite {
                    what: "loss and gradients, step after step",
                    expected: "finite numbers",
                    position: vec![],
                    value: if loss.is_finite() { squares } else { loss },
                });
            }
            return Ok(false);
        }
        self.in_a_row = 0;
        if let Some(greatest) = self.greatest_norm
            && squares.sqrt() > greatest
        {
            let factor = (greatest / squares.sqrt()) as f32;
            for gradient in gradients.iter_mut().flat_map(|group| group.iter_mut()) {
                *gradient *= factor;
            }
        }
        Ok(true)
    }

    /// How many steps were left out in all.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

/// A stored guard before it is believed.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
#[serde(rename = "StepGuard")]
struct Unchecked {
    greatest_norm: Option<f64>,
    patience: u64,
    skipped: u64,
    in_a_row: u64,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for StepGuard {
    type Error = Error;

    fn try_from(stored: Unchecked) -> Result<Self> {
        let guard = Self {
            patience: stored.patience,
            skipped: stored.skipped,
            in_a_row: stored.in_a_row,
            ..Self::new()
        };
        match stored.greatest_norm {
            None => Ok(guard),
            Some(norm) => guard.with_greatest_norm(norm),
        }
    }
}
