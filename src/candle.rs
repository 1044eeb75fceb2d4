//! Quantization-aware training inside [candle](candle_core): any [`FakeQuant`](crate::FakeQuant) as
//! a custom operation with its own gradients, and layers that use it. Feature `candle`.
//!
//! - [`FakeQuantLayer`] is a module around one fake-quant. What the fake-quant learns is a
//!   [`Var`](candle_core::Var), stepped by the optimizer that steps the rest of the network.
//! - [`QatLinear`] and [`QatConv2d`] are candle's layers with fake-quantized weights and, if wanted,
//!   a fake-quantized input; [`qat_linear`] and [`qat_conv2d`] make them from a `VarBuilder`.
//!
//! Values and gradients have the same bits as those of [`qat`](crate::qat) without a framework, which
//! computes them; only a gradient of −0 becomes 0, since candle adds gradients to zeros. Tensors
//! are `f32` on the CPU, of any layout; others are errors.
//!
//! ```
//! use candle_core::{DType, Device, Module, Tensor};
//! use candle_nn::{AdamW, Optimizer, ParamsAdamW, VarBuilder, VarMap};
//! use lowbit::{RoundToNearest, Scheme, prelude::*};
//! use lowbit::candle::qat_linear;
//! use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
//!
//! let variables = VarMap::new();
//! let builder = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
//! let scheme = Scheme::int(4).per_axis(0).build()?;
//! let layer = qat_linear(8, 3, builder.pp("up"), |weights| {
//!     let start = RoundToNearest::new(scheme).quantize(&weights)?;
//!     LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
//! })?;
//!
//! // weights, bias and the three step sizes
//! assert_eq!(variables.all_vars().len(), 3);
//! let no_decay = ParamsAdamW { weight_decay: 0.0, ..Default::default() }; // scales must not decay
//! let mut optimizer = AdamW::new(variables.all_vars(), no_decay)?;
//! let x = Tensor::arange(0_f32, 16.0, &Device::Cpu)?.reshape((2, 8))?;
//! for _ in 0..3 {
//!     let loss = layer.forward(&x)?.sqr()?.mean_all()?;
//!     optimizer.backward_step(&loss)?;
//! }
//!
//! // what was trained, as packed integers
//! let packed = layer.pack()?;
//! let x = ndarray::Array2::from_shape_fn((2, 8), |(i, j)| (8 * i + j) as f32);
//! assert_eq!(packed.forward(&x)?.dim(), (2, 3));
//! # Ok::<(), candle_core::Error>(())
//! ```

mod conv2d;
mod fake_quant;
mod linear;
mod operation;
mod tensors;

pub use conv2d::{QatConv2d, qat_conv2d};
pub use fake_quant::FakeQuantLayer;
pub use linear::{QatLinear, qat_linear};

impl From<crate::Error> for candle_core::Error {
    /// So that `?` takes both in a training loop; the message stays.
    fn from(error: crate::Error) -> Self {
        Self::wrap(error)
    }
}
