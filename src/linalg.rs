//! Symmetric matrices and their factors, for methods that need the second moments of inputs.
//!
//! Private: what the crate needs and no more. Products go through ndarray's `general_mat_mul`,
//! which runs at the machine's speed on one thread; here they are cut into tiles by size alone, so
//! that any number of threads gives the same bits.

mod cholesky;
mod upper;

pub(crate) use cholesky::{factor, solve};
pub(crate) use upper::{TILE, Upper, tiles_of, zeros};
