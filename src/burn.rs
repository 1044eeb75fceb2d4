//! Quantization-aware training inside [burn](https://burn.dev): any [`FakeQuant`](crate::FakeQuant) as
//! an operation of its autodiff with its own gradients, and modules that use it. Feature `burn`, which
//! needs Rust 1.95, as burn 0.22 does.
//!
//! - [`FakeQuantLayer`] is a module around one fake-quant. What the fake-quant learns is a
//!   [`Param`](burn_core::module::Param), stepped by the optimizer that steps the rest of the network.
//! - [`QatLinear`] and [`QatConv2d`] are burn's layers, configured and initialized by burn, with
//!   fake-quantized weights and, if wanted, a fake-quantized input.
//!
//! Values and gradients have the same bits as those of [`qat`](crate::qat) without a framework, which
//! computes them. Tensors are `f32`; on an autodiff device that is [`Device::flex`], on the CPU.
//! On plain devices, after [`valid`](burn_core::module::Module::valid) for example, there is the
//! forward pass alone, for any device, whose tensors go to the CPU and back. Others are errors:
//! forward passes here return a [`Result`](crate::Result), where those of burn panic.
//!
//! The crates are `burn-core` and `burn-nn`, which `burn` re-exports, at the version that `burn` in
//! your dependencies must have: `burn::tensor` is `burn_core::tensor`, and `burn::nn` is `burn_nn`.
//! Enable what else you want of `burn`: `std`, and `optim` for its optimizers.
//!
//! [`Device::flex`]: burn_core::tensor::Device::flex
//!
//! ```
//! # mod burn { pub use burn_core::*; pub use burn_nn as nn; }
//! use burn::{nn::LinearConfig, tensor::{Device, Tensor}};
//! use lowbit::{RoundToNearest, Scheme, prelude::*};
//! use lowbit::burn::QatLinear;
//! use lowbit::qat::{LearnedFakeQuant, Lsq, StepSize};
//!
//! let device = Device::flex().autodiff();
//! let linear = LinearConfig::new(8, 3).init(&device); // or a trained one
//! let scheme = Scheme::int(4).per_axis(0).build()?;
//! let layer = QatLinear::from_linear(linear, |weights| {
//!     let start = RoundToNearest::new(scheme).quantize(&weights)?;
//!     LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
//! })?;
//!
//! let x = Tensor::<2>::ones([2, 8], &device);
//! let loss = layer.forward(x)?.square().mean();
//! let gradients = loss.backward();
//! // In a training loop, for weights, bias and step sizes:
//! // layer = optimizer.step(rate, layer, GradientsParams::from_grads(gradients, &layer));
//! let step_sizes = layer.weight_fake().parameters().unwrap().val();
//! assert_eq!(step_sizes.grad(&gradients).unwrap().dims(), [3]);
//!
//! // what was trained, as packed integers
//! let packed = layer.pack()?;
//! assert_eq!(packed.forward(&ndarray::Array2::<f32>::ones((2, 8)))?.dim(), (2, 3));
//! # Ok::<(), lowbit::Error>(())
//! ```
//!
//! Scales must not decay with the weights: paths of what is learned end in `fake.parameters`, by which
//! a `ParamGroup` gives them an optimizer and a rate of their own.

mod conv2d;
mod fake_quant;
mod linear;
mod operation;
mod tensors;

pub use conv2d::QatConv2d;
pub use fake_quant::FakeQuantLayer;
pub use linear::QatLinear;
