//! Vectors of x86-64.
#![allow(
    unsafe_code,
    reason = "instructions that not every machine has; each block says what proves them"
)]

mod bits256;
mod bits512;

/// Four words side by side, in the order of memory.
#[inline(always)]
fn four_words(x: [i16; 4]) -> i64 {
    let [a, b, c, d] = x.map(|word| u64::from(word.cast_unsigned()));
    (a | b << 16 | c << 32 | d << 48).cast_signed()
}

/// One of eight shifts by a number that is a constant where this is inlined.
macro_rules! shifted {
    ($intrinsic:ident, $bytes:expr, $by:expr) => {
        match $by {
            0 => $bytes,
            1 => $intrinsic::<1>($bytes),
            2 => $intrinsic::<2>($bytes),
            3 => $intrinsic::<3>($bytes),
            4 => $intrinsic::<4>($bytes),
            5 => $intrinsic::<5>($bytes),
            6 => $intrinsic::<6>($bytes),
            _ => $intrinsic::<7>($bytes),
        }
    };
}

use shifted;
