//! What training changes, to be kept and gone on from.

use std::collections::BTreeMap;

use crate::{affine::Affine, observe::MovingAverageMinMax, qat::Oscillations};

/// The state of a [`QatLayer`](super::QatLayer), apart from the weights.
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QatLayerState {
    pub(super) weights_start: Affine,
    pub(super) weights: Vec<f32>,
    pub(super) input_start: Option<Affine>,
    pub(super) input: Option<Vec<f32>>,
    pub(super) observer: Option<MovingAverageMinMax>,
    pub(super) oscillations: Option<Oscillations>,
}

/// The state of a [`QatModel`](super::QatModel), by the names of the layers, apart from the weights.
///
/// With the feature `serde` it is stored and read back; a training goes on from it, the weights, the
/// optimizer's state and the number of the next step, to the same bits.
#[derive(Debug, Clone, PartialEq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct QatState {
    pub(super) layers: BTreeMap<String, QatLayerState>,
}
