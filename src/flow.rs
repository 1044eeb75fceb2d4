//! What composes several parts: calibration sessions over a user's own model, models quantized block
//! by block by a recipe, and layers prepared for training by the same recipe and converted afterwards.

mod block_rounding;
mod block_work;
mod blocks;
mod calibration;
#[cfg(feature = "serde")]
mod checkpoint;
mod layer;
mod layer_report;
mod learned_rounding;
mod method;
mod model;
mod model_rounding;
mod pipeline;
mod qat;
mod recipe;
mod report;
mod run_learning;
mod static_inputs;
mod statistics;

pub use blocks::{
    BlockModel, DifferentiableBlock, DifferentiableModel, QuantizableBlock, SharedInput, Taps,
};
pub use calibration::{Calibrated, Calibration, Site};
pub use layer::{InputTransform, PackedLayer, QuantizedLayer};
pub use layer_report::{BlockReport, LayerReport, LearningReport, ModelReport};
pub use learned_rounding::LearnedRounding;
pub use method::{FloatLayer, LayerMethod};
pub use model::{ModelQuantization, Progress};
pub use pipeline::{Pipeline, Preparation, RangeChoice, Refinement, Rounding};
pub use qat::{
    FloatWeights, QatLayer, QatLayerState, QatModel, QatPreparation, QatSeed, QatStart, QatState,
};
pub use recipe::{Plan, Recipe, Treatment};
pub use report::SiteReport;
pub use statistics::{InputStatistics, TokenWeights};
