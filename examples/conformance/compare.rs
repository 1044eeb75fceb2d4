//! Comparing an output with what the case expects.

use ndarray::{ArrayD, Dimension};

use crate::case::Data;

/// How near floats must be; integers must always be equal.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// The same bits (any NaN equals any other).
    Exact,
    /// Relative 1e-5, with an absolute floor of 1e-6 of the tensor's largest magnitude.
    Relative,
}

/// The first difference, in words.
pub fn difference(name: &str, expected: &Data, got: &Data, tolerance: Tolerance) -> Option<String> {
    if expected.shape() != got.shape() {
        return Some(format!(
            "{name}: expected shape {:?}, got {:?}",
            expected.shape(),
            got.shape()
        ));
    }
    match (expected, got) {
        (Data::F32(a), Data::F32(b)) => {
            let same = |a: f32, b: f32| a.to_bits() == b.to_bits();
            floats(name, a, b, tolerance, f64::from, same)
        }
        (Data::F64(a), Data::F64(b)) => {
            let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
            floats(name, a, b, tolerance, |x| x, same)
        }
        (Data::F16(a), Data::F16(b)) => {
            let same = |a: half::f16, b: half::f16| a.to_bits() == b.to_bits();
            floats(name, a, b, tolerance, f64::from, same)
        }
        (Data::BF16(a), Data::BF16(b)) => {
            let same = |a: half::bf16, b: half::bf16| a.to_bits() == b.to_bits();
            floats(name, a, b, tolerance, f64::from, same)
        }
        (Data::I8(a), Data::I8(b)) => integers(name, a, b),
        (Data::U8(a), Data::U8(b)) => integers(name, a, b),
        (Data::I16(a), Data::I16(b)) => integers(name, a, b),
        (Data::U16(a), Data::U16(b)) => integers(name, a, b),
        (Data::I32(a), Data::I32(b)) => integers(name, a, b),
        (Data::I64(a), Data::I64(b)) => integers(name, a, b),
        _ => Some(format!("{name}: another element type than expected")),
    }
}

fn integers<T: PartialEq + std::fmt::Display>(
    name: &str,
    expected: &ArrayD<T>,
    got: &ArrayD<T>,
) -> Option<String> {
    expected
        .indexed_iter()
        .zip(got)
        .find(|((_, e), g)| e != g)
        .map(|((at, e), g)| format!("{name}{:?}: expected {e}, got {g}", at.slice().to_vec()))
}

fn floats<T: Copy>(
    name: &str,
    expected: &ArrayD<T>,
    got: &ArrayD<T>,
    tolerance: Tolerance,
    wide: impl Fn(T) -> f64,
    same: impl Fn(T, T) -> bool,
) -> Option<String> {
    let largest = expected
        .iter()
        .map(|&e| wide(e).abs())
        .filter(|e| e.is_finite())
        .fold(0.0, f64::max);
    let near = |e: T, g: T| {
        let (wide_e, wide_g) = (wide(e), wide(g));
        let limit = (1e-5 * wide_e.abs()).max(1e-6 * largest);
        same(e, g)
            || (wide_e.is_nan() && wide_g.is_nan())
            || (tolerance == Tolerance::Relative && (wide_e - wide_g).abs() <= limit)
    };
    expected
        .indexed_iter()
        .zip(got)
        .find(|((_, e), g)| !near(**e, **g))
        .map(|((at, e), g)| {
            let at = at.slice().to_vec();
            format!("{name}{at:?}: expected {}, got {}", wide(*e), wide(*g))
        })
}
