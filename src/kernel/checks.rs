//! What a product asks of what it is given, and of the memory for its output.

use ndarray::{Array, Dimension};

use crate::{
    affine::fits,
    element::Code,
    error::{Error, Result},
    groups::element_count,
    scheme::Scheme,
};

/// An array to be written to. Products without inputs have as many outputs as their shapes say, in
/// no relation to the memory of what they are made of.
///
/// # Errors
/// [`Error::TooLarge`] if no memory holds it.
pub(super) fn output_of<O: Clone + Default, D: Dimension>(shape: D) -> Result<Array<O, D>> {
    let len = element_count("output", shape.slice())?;
    // An array of zeros asks for memory that is 0 already, but cannot be refused it.
    if Vec::<O>::new().try_reserve_exact(len).is_err() {
        return Err(Error::TooLarge {
            what: "output",
            got: format!("{:?}", shape.slice()),
        });
    }
    Ok(Array::from_elem(shape, O::default()))
}

/// That codes are those of the scheme.
pub(super) fn check_codes<C: Code>(x: &[C], scheme: &Scheme) -> Result<()> {
    fits::<C>(scheme)?;
    let (min, max) = (scheme.quant_min(), scheme.quant_max());
    if C::from_i32(min - 1).is_none() && C::from_i32(max + 1).is_none() {
        return Ok(());
    }
    let outside = |&code: &C| !(min..=max).contains(&code.into());
    match x.iter().enumerate().find(|(_, code)| outside(code)) {
        None => Ok(()),
        Some((index, &code)) => Err(Error::InvalidCode {
            index,
            min,
            max,
            got: code.into(),
        }),
    }
}

/// That `depth` products of codes within these distances of their zero points fit a 32-bit sum.
pub(super) fn check_depth(depth: usize, weights: u32, activations: u32) -> Result<()> {
    let greatest = u64::from(weights.max(1)) * u64::from(activations.max(1));
    let limit = u64::from(i32::MAX.unsigned_abs()) / greatest;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if depth <= limit {
        Ok(())
    } else {
        Err(Error::DepthOverflow { limit, got: depth })
    }
}
