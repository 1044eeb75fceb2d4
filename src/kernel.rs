//! Packed layers: weights in the form their kernel reads, multiplied without ever being floats as a
//! whole.
//!
//! From above to below: [`PackedLinear`] is what users hold; a private face hides which kernel its
//! weights are packed for; two drivers, for integer sums and for float sums, cut the product into
//! tasks and tiles; a kernel, one an instruction set, sums products of codes over a tile.
//!
//! Integer sums are exact on every instruction set. Where `vpmaddubsw` might saturate, it is not
//! used.

mod activations;
mod aligned;
mod arch;
mod checks;
mod dispatch;
mod float;
mod float_row;
mod forward;
mod input;
mod integer;
mod layer;
mod layout;
mod linear;
mod matmul_integer;
mod operand;
mod output;
mod ready;
mod requantization;
mod rows;
mod scratch;
mod tasks;
mod value;
mod weights;

pub use activations::Activations;
pub use input::Activation;
pub use linear::PackedLinear;
pub use matmul_integer::matmul_integer;
pub use requantization::Requantization;
pub use scratch::Workspace;
