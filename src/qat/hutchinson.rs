//! The trace of a Hessian from products with random signs.

use crate::{
    error::{Error, Result},
    random::Random,
};

/// The trace of a symmetric matrix that is known by its products with vectors, by Hutchinson's
/// estimator (1990): the mean of `vᵀ H v` over vectors of random signs.
///
/// Draws at most `probes` vectors from the seed, and stops when one more moves the mean by less than
/// a thousandth of it. The error falls as one over the square root of the vectors; for a diagonal
/// matrix there is none.
///
/// `product` returns `H v` for a vector of `elements` signs. For the Hessian of a loss that is
/// `(∇L(x + εv) − ∇L(x − εv)) / 2ε` with a small `ε`, so two backward passes of the network.
///
/// # Errors
/// [`Error::InvalidOption`] for no elements or no probes, [`Error::TooLarge`] for more than memory
/// holds; [`Error::ShapeMismatch`] for a product of
/// another length, [`Error::NonFinite`] for one that is not finite; those of `product`.
///
/// ```
/// use lowbit::qat::{Ewgs, hutchinson_trace};
///
/// // L = Σ xᵢ⁴ at x = (1, 2): the Hessian has 12x² on its diagonal
/// let gradient = |x: &[f32]| x.iter().map(|x| 4.0 * x.powi(3)).collect::<Vec<f32>>();
/// let x = [1.0_f32, 2.0];
/// let trace = hutchinson_trace(2, 50, 7, |v| {
///     let moved = |by: f32| gradient(&[x[0] + by * v[0], x[1] + by * v[1]]);
///     Ok(moved(0.01).iter().zip(moved(-0.01)).map(|(a, b)| (a - b) / 0.02).collect())
/// })?;
/// assert!((trace - 60.0).abs() < 0.1);
/// let estimator = Ewgs::from_curvature(trace, 2, 100.0)?;
/// # let _ = estimator;
/// # Ok::<(), lowbit::Error>(())
/// ```
#[expect(clippy::cast_precision_loss, reason = "a count of probes")]
pub fn hutchinson_trace(
    elements: usize,
    probes: usize,
    seed: u64,
    mut product: impl FnMut(&[f32]) -> Result<Vec<f32>>,
) -> Result<f64> {
    if elements == 0 {
        return Err(Error::option("elements", "at least 1", elements));
    }
    if probes == 0 {
        return Err(Error::option("probes", "at least 1", probes));
    }
    let mut random = Random::new(seed);
    let mut mean = 0.0_f64;
    let mut signs: Vec<f32> = Vec::new();
    if signs.try_reserve_exact(elements).is_err() {
        return Err(Error::TooLarge {
            what: "a vector of random signs",
            got: format!("{elements} elements"),
        });
    }
    for probe in 0..probes {
        signs.clear();
        signs.extend((0..elements).map(|_| random.sign()));
        let product = product(&signs)?;
        if product.len() != elements {
            return Err(Error::ShapeMismatch {
                what: "product with the Hessian",
                expected: vec![elements],
                got: vec![product.len()],
            });
        }
        if let Some(index) = product.iter().position(|value| !value.is_finite()) {
            return Err(Error::NonFinite {
                what: "product with the Hessian",
                expected: "finite numbers",
                position: vec![index],
                value: product[index].into(),
            });
        }
        let pairs = signs.iter().zip(&product);
        let form: f64 = pairs.map(|(&v, &h)| f64::from(v) * f64::from(h)).sum();
        let moved = (form - mean) / (probe + 1) as f64;
        mean += moved;
        if probe > 0 && moved.abs() <= 1e-3 * mean.abs() {
            break;
        }
    }
    Ok(mean)
}
