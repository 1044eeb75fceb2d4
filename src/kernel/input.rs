//! What a packed layer takes: floats of three types, or codes that are there already.

use half::{bf16, f16};

use crate::element::Element;

mod sealed {
    pub trait Sealed {}
}

/// A type of activations that a [`PackedLinear`](super::PackedLinear) takes: `f32`, `f16` and
/// `bf16`, or `i8` and `u8` codes under the parameters of static activations.
pub trait Activation: sealed::Sealed + Copy + Send + Sync + 'static {
    /// The float type of the output: the same as that of the input, `f32` for codes.
    type Output: Element<Real = f32>;

    #[doc(hidden)]
    fn input(x: &[Self]) -> Input<'_>;
}

/// Activations of a layer in row-major order; not a public type.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
    Bf16(&'a [bf16]),
    Signed(&'a [i8]),
    Unsigned(&'a [u8]),
}

macro_rules! activations {
    ($($element:ty => $output:ty, $input:ident;)*) => {$(
        impl sealed::Sealed for $element {}
        impl Activation for $element {
            type Output = $output;

            fn input(x: &[Self]) -> Input<'_> {
                Input::$input(x)
            }
        }
    )*};
}

activations! {
    f32 => f32, F32;
    f16 => f16, F16;
    bf16 => bf16, Bf16;
    i8 => f32, Signed;
    u8 => f32, Unsigned;
}
