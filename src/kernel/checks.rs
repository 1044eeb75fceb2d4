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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::SchemeBuilder;

    #[test]
    fn a_code_beyond_either_end_is_refused_whatever_its_type_holds() {
        let check = |codes: &[u8], builder: SchemeBuilder| {
            check_codes(codes, &builder.build().unwrap()).is_ok()
        };
        let unsigned = || Scheme::int(4).unsigned();
        assert!(check(&[0, 15], unsigned()) && !check(&[0, 16], unsigned()));
        assert!(check(&[0, 255], Scheme::int(8).unsigned()));
        let check = |codes: &[i8], builder: SchemeBuilder| {
            check_codes(codes, &builder.build().unwrap()).is_ok()
        };
        let narrow = || Scheme::int(8).narrow_range();
        assert!(check(&[-127, 127], narrow()) && !check(&[-128, 127], narrow()));
        assert!(check(&[-128, 127], Scheme::int(8)));
        assert!(check(&[-8, 7], Scheme::int(4)));
        assert!(!check(&[-9], Scheme::int(4)) && !check(&[8], Scheme::int(4)));
        let Error::InvalidCode { index, .. } =
            check_codes(&[0_i8, 7, 8, 9], &Scheme::int(4).build().unwrap()).unwrap_err()
        else {
            panic!("another error");
        };
        assert_eq!(index, 2);
    }

    #[test]
    fn the_depth_ends_where_a_sum_of_the_greatest_products_would_not_fit() {
        for (weights, activations, limit) in [
            (255, 255, 33_025),
            (8, 128, 2_097_151),
            (128, 8, 2_097_151),
            (1, 255, 8_421_504),
            (0, 255, 8_421_504),
            (255, 0, 8_421_504),
        ] {
            assert!(check_depth(limit, weights, activations).is_ok());
            let error = check_depth(limit + 1, weights, activations).unwrap_err();
            let Error::DepthOverflow { limit: told, got } = error else {
                panic!("{error}");
            };
            assert_eq!((told, got), (limit, limit + 1));
        }
    }
}
