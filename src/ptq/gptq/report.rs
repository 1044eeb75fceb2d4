//! What GPTQ did to a layer.

use std::fmt;

/// What GPTQ did to a layer, and what it gained.
///
/// Errors of outputs are sums of squares over all outputs and all calibration rows, as
/// [`Hessian::error`](crate::observe::Hessian::error) has them: the distance from what the float
/// layer makes of the same inputs, with asymmetric calibration too.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Report {
    /// How the layer was quantized in the end.
    pub outcome: Outcome,
    /// Rows that calibration saw.
    pub tokens: u64,
    /// Inputs that were 0 in every row: their weights are rounded, and cost nothing.
    pub dead_columns: usize,
    /// Rows of the weights where round-to-nearest did better, and was kept.
    pub rounded_rows: usize,
    /// `Σ (w − ŵ)²`.
    pub weight_error: f64,
    /// The error of the outputs.
    pub output_error: f64,
    /// The error of the outputs, had every weight been rounded to nearest.
    pub rounding_error: f64,
    /// What deserves a look.
    pub warnings: Vec<Warning>,
}

/// How a layer was quantized in the end.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Outcome {
    /// With the Hessian.
    Gptq {
        /// What was added to the diagonal of the Hessian, as a fraction of its mean.
        damping: f64,
        /// The least element the diagonal was allowed, as a fraction of the largest, where damping
        /// alone did not do.
        diagonal_floor: Option<f64>,
    },
    /// Each weight on its own.
    RoundToNearest(Reason),
}

/// Why the Hessian could not be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Reason {
    /// Calibration saw fewer rows than were asked for.
    FewTokens,
    /// No input was ever other than 0.
    NoSignal,
    /// It is not positive definite, with all the damping there is.
    NotPositiveDefinite,
}

/// What deserves a look.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Warning {
    /// Fewer rows than columns: the Hessian knows nothing of most directions, and the damping alone
    /// holds them.
    FewTokens {
        /// Rows that calibration saw.
        tokens: u64,
        /// Inputs of the layer.
        columns: usize,
    },
    /// The Hessian was not positive definite with the damping asked for.
    RaisedDamping {
        /// What was asked for.
        asked: f64,
        /// What it took.
        used: f64,
    },
}

impl fmt::Display for Report {
    /// One line for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Gptq { damping, .. } => write!(f, "GPTQ (damping {damping})")?,
            Outcome::RoundToNearest(reason) => write!(f, "round to nearest ({reason})")?,
        }
        let Self {
            tokens,
            dead_columns,
            rounded_rows,
            output_error,
            rounding_error,
            ..
        } = self;
        write!(
            f,
            ": output error {output_error:.4e}, of rounding {rounding_error:.4e}; {tokens} tokens, \
             {dead_columns} dead columns, {rounded_rows} rows rounded"
        )?;
        self.warnings
            .iter()
            .try_for_each(|warning| write!(f, "; {warning}"))
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FewTokens => "too few tokens",
            Self::NoSignal => "no input but zeros",
            Self::NotPositiveDefinite => "the Hessian is not positive definite",
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewTokens { tokens, columns } => {
                write!(f, "{tokens} tokens for {columns} columns")
            }
            Self::RaisedDamping { asked, used } => {
                write!(f, "damping raised from {asked} to {used}")
            }
        }
    }
}
