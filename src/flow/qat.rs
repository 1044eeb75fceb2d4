//! Quantization-aware training by a recipe: the fake-quants of a model's layers are prepared from
//! what post-training quantization gives, and converted to what post-training quantization gives.

mod layer;
mod model;
mod preparation;
mod state;

pub use layer::QatLayer;
pub use model::QatModel;
pub use preparation::{FloatWeights, QatPreparation, QatSeed, QatStart};
pub use state::{QatLayerState, QatState};
