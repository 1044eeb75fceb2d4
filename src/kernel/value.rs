//! What unpacked codes stand for: integers, or small floats.

use crate::scheme::{FloatFormat, Format};

/// What an unpacked code stands for before scale and zero point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    /// An integer, the distance from the least code.
    Distance,
    Float(SmallFloat),
}

/// A small float: its bits moved to where an `f32` has them, times a power of two.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct SmallFloat {
    sign: u32,
    magnitude: u32,
    to_sign: u32,
    to_magnitude: u32,
    factor: f32,
}

impl SmallFloat {
    #[inline(always)]
    pub(super) fn value(&self, code: u32) -> f32 {
        let sign = (code & self.sign) << self.to_sign;
        f32::from_bits(sign | (code & self.magnitude) << self.to_magnitude) * self.factor
    }
}

impl Value {
    pub(super) fn of(format: Format) -> Self {
        // The exponent of the code, in the place of the exponent of an f32, is too small by the
        // difference of the two biases; subnormal codes come out right by the same product.
        let float = |bits: u32, mantissa: u32, bias: i32| {
            Self::Float(SmallFloat {
                sign: 1 << (bits - 1),
                magnitude: (1 << (bits - 1)) - 1,
                to_sign: 32 - bits,
                to_magnitude: 23 - mantissa,
                factor: 2.0_f32.powi(127 - bias),
            })
        };
        match format {
            Format::Int(_) => Self::Distance,
            Format::Float(FloatFormat::E4M3) => float(8, 3, 7),
            Format::Float(FloatFormat::E5M2) => float(8, 2, 15),
            Format::Float(FloatFormat::E2M1) => float(4, 1, 1),
        }
    }
}
