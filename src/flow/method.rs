//! How one layer is quantized, given what calibration has seen of its inputs.

use std::fmt::Debug;

use ndarray::ArrayView2;

use super::{InputStatistics, QuantizedLayer};
use crate::{error::Result, scheme::Scheme};

/// A layer that is to be quantized.
#[derive(Debug)]
#[non_exhaustive]
pub struct FloatLayer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its weights, `[out, in]`.
    pub weights: ArrayView2<'a, f32>,
    /// The scheme they are to have.
    pub scheme: Scheme,
    /// What was seen of its inputs.
    pub inputs: &'a InputStatistics,
    /// Whether no other layer reads these inputs.
    pub reads_alone: bool,
}

/// Quantizes one layer of a model: [`Pipeline`](super::Pipeline), or one's own.
///
/// ```
/// use lowbit::{QuantizerExt, Result, RoundToNearest};
/// use lowbit::flow::{FloatLayer, LayerMethod, QuantizedLayer};
///
/// #[derive(Debug)]
/// struct Plain;
///
/// impl LayerMethod for Plain {
///     fn name(&self) -> String {
///         "plain".into()
///     }
///     fn quantize(&self, layer: &FloatLayer<'_>, _: &mut Vec<String>) -> Result<QuantizedLayer> {
///         QuantizedLayer::new(RoundToNearest::new(layer.scheme).quantize(&layer.weights)?)
///     }
/// }
/// # let _: Box<dyn LayerMethod> = Box::new(Plain);
/// ```
pub trait LayerMethod: Debug + Send + Sync {
    /// What reports call it.
    fn name(&self) -> String;

    /// Whether it compares with the float model, which then runs beside the quantized one:
    /// [`InputStatistics::deviation`] is there.
    fn compares_with_float(&self) -> bool {
        false
    }

    /// The quantized layer. What deserves a look goes to `warnings`.
    ///
    /// # Errors
    /// Those of the method.
    fn quantize(
        &self,
        layer: &FloatLayer<'_>,
        warnings: &mut Vec<String>,
    ) -> Result<QuantizedLayer>;
}
