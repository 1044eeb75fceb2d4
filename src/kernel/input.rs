//! What a packed layer takes: floats of three types, or codes that are there already.

use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, CowArray, IxDyn};

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
    fn input(x: ArrayViewD<'_, Self>) -> Input<'_>;
}

/// Activations of a layer; not a public type.
#[doc(hidden)]
#[derive(Debug)]
pub enum Input<'a> {
    Floats(CowArray<'a, f32, IxDyn>),
    Signed(ArrayViewD<'a, i8>),
    Unsigned(ArrayViewD<'a, u8>),
}

impl Input<'_> {
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Floats(x) => x.shape(),
            Self::Signed(x) => x.shape(),
            Self::Unsigned(x) => x.shape(),
        }
    }
}

impl sealed::Sealed for f32 {}
impl Activation for f32 {
    type Output = f32;

    fn input(x: ArrayViewD<'_, f32>) -> Input<'_> {
        Input::Floats(x.into())
    }
}

macro_rules! widened {
    ($($element:ty => $to_f32:expr),*) => {$(
        impl sealed::Sealed for $element {}
        impl Activation for $element {
            type Output = $element;

            fn input(x: ArrayViewD<'_, $element>) -> Input<'_> {
                let widened: ArrayD<f32> = x.mapv($to_f32);
                Input::Floats(widened.into())
            }
        }
    )*};
}

widened!(f16 => f16::to_f32, bf16 => bf16::to_f32);

impl sealed::Sealed for i8 {}
impl Activation for i8 {
    type Output = f32;

    fn input(x: ArrayViewD<'_, i8>) -> Input<'_> {
        Input::Signed(x)
    }
}

impl sealed::Sealed for u8 {}
impl Activation for u8 {
    type Output = f32;

    fn input(x: ArrayViewD<'_, u8>) -> Input<'_> {
        Input::Unsigned(x)
    }
}
