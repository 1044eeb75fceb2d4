//! What can be chosen.

/// In which order GPTQ quantizes the columns of a layer: errors of early ones are made up for by
/// later ones, so those that count come first.
///
/// The order is a matter of computing alone: the quantized tensor has its columns and its groups
/// where they were, and needs no index of groups (`g_idx`) to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum Order {
    /// From the first to the last.
    Natural,
    /// By the sum of the squares of the inputs, largest first ("act order", `desc_act`). The columns
    /// of a group are then quantized at different times, so the parameters of groups are those of
    /// the original weights ([`GroupFit::Static`](GroupFit::Static)) whatever is asked for,
    /// unless a row is one group.
    Activation,
    /// Group-aware: the groups by their largest sum of squares, and the columns in each by theirs
    /// (GAR, as GPTQModel has it). Groups stay together, so that their parameters can be fitted to
    /// what is left of them. The same as `Activation` where a row is one group.
    #[default]
    GroupAware,
}

/// When the parameters of a group are fitted to its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum GroupFit {
    /// When the turn of the group comes, to the weights as the columns before have moved them.
    Fresh,
    /// The same, but to the weights as they were when the block of (at most 128) columns began: what
    /// most published programs do.
    Stale,
    /// Before anything, to the original weights.
    Static,
}

/// How much an error in each column of a group counts, where a calibrator that weighs errors chooses
/// the range of the group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub enum RangeWeights {
    /// All alike, as published programs have it.
    Even,
    /// By `R[j, j]²`, which is what an error in the column still costs when the later columns have
    /// made up for what they can. On the layers of a small language model the error of outputs is
    /// 1 to 4 % less than with `Even`.
    #[default]
    Remaining,
}
