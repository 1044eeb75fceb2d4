//! Weights that make up for what the quantized layers before have done to a layer's inputs.

use ndarray::{Array2, ArrayRef2, ArrayView2, Axis};

use super::check_finite;
use crate::{
    affine::same_shape,
    error::{Error, Result},
    linalg::{TILE, Upper, factor, zeros},
    observe::{Hessian, InputDeviation},
    parallel::over_pieces,
};

/// Moves the weights of a layer, before they are quantized, so that on the inputs `X̂` that the
/// quantized layers before it produce it comes near to what it computed on the float model's `X`.
///
/// It is the regression `W' = argmin ‖X W ᵀ + E − X̂ W'ᵀ‖² + λ ‖W' − W‖²`, that is
/// `W' = W + (W (X − X̂)ᵀ X̂ + Eᵀ X̂) (X̂ᵀ X̂ + λI)⁻¹`, of which a share `α` is applied. `E`, where
/// it is given, are deviations that the layer's outputs are added to, such as those of the residual
/// stream of a transformer: the layer then takes them off as far as its inputs can tell. Whatever
/// method quantizes `W'` with the Hessian of `X̂` then works towards the float model's outputs.
///
/// ```
/// use lowbit::{observe::InputDeviation, ptq::Compensation};
/// use ndarray::{Array2, array};
///
/// let x = Array2::from_shape_fn((50, 2), |(t, i)| ((t * 2 + i) as f32 * 0.7).sin());
/// let mut deviation = InputDeviation::new(2)?;
/// deviation.observe(&x, &(&x * 0.8))?; // the layers before lose a fifth
/// let weights = Compensation::new(1.0, 1e-6)?.weights(&array![[1.0_f32, -2.0]], &deviation, None)?;
/// assert!((weights - array![[1.25, -2.5]]).iter().all(|e| e.abs() < 1e-3));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compensation {
    alpha: f64,
    damping: f64,
}

impl Compensation {
    /// A share `α` of the regression, whose `λ` is `damping` of the mean of the Hessian's diagonal.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless `0 <= α <= 1` and the damping is finite and positive.
    pub fn new(alpha: f64, damping: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::option("share of the compensation", "0 to 1", alpha));
        }
        if !(damping > 0.0 && damping.is_finite()) {
            let expected = "a finite, positive number";
            return Err(Error::option(
                "damping of the compensation",
                expected,
                damping,
            ));
        }
        Ok(Self { alpha, damping })
    }

    /// The weights `[out, in]`, moved. `outputs` is `Eᵀ X̂`, `[out, in]`, summed over the rows that
    /// `deviation` has seen. Where the Hessian is not positive definite in spite of the damping, the
    /// weights stay as they are.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the operands fit; [`Error::NonFinite`] for a NaN or an
    /// infinity in the weights or in the result; [`Error::TooLarge`] if there is no memory.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is asked for"
    )]
    pub fn weights(
        &self,
        weights: &ArrayRef2<f32>,
        deviation: &InputDeviation,
        outputs: Option<ArrayView2<'_, f64>>,
    ) -> Result<Array2<f32>> {
        let hessian = deviation.hessian();
        let expected = [weights.nrows(), hessian.columns()];
        same_shape("weights", &expected, weights.shape())?;
        check_finite("weights", weights)?;
        let mut moves = weights.mapv(f64::from).dot(&deviation.cross()?);
        if let Some(outputs) = outputs {
            same_shape("deviation of outputs", &expected, outputs.shape())?;
            moves += &outputs;
        }
        let Some(factor) = damped_factor(hessian, self.damping)? else {
            return Ok(weights.to_owned());
        };
        let columns = hessian.columns();
        if let Some(moves) = moves.as_slice_mut() {
            over_pieces(moves, 8 * columns, |_, rows| {
                rows.chunks_mut(columns)
                    .for_each(|row| solve_row(&factor, row));
            });
        }
        let mut moved = weights.to_owned();
        moved.zip_mut_with(&moves, |weight, &by| {
            *weight = (f64::from(*weight) + self.alpha * by) as f32;
        });
        check_finite("compensated weights", &moved)?;
        Ok(moved)
    }
}

/// `R`, upper triangular and whole, with `H + λI = R Rᵀ`; none if that is not positive definite.
fn damped_factor(hessian: &Hessian, damping: f64) -> Result<Option<Array2<f64>>> {
    let columns = hessian.columns();
    let diagonal = hessian.diagonal();
    let live: Vec<f64> = diagonal.iter().copied().filter(|&d| d > 0.0).collect();
    let lambda = damping * live.iter().sum::<f64>() / (live.len().max(1) as f64);
    let order: Vec<usize> = (0..columns).collect();
    let mut upper: Upper = hessian.upper(&order)?;
    for column in 0..columns {
        *upper.at_mut(column, column) += lambda;
    }
    if lambda == 0.0 || !factor(&mut upper) {
        return Ok(None);
    }
    let mut whole = zeros(columns, columns)?;
    let strips = whole.axis_chunks_iter_mut(Axis(0), TILE);
    for (index, (mut rows, strip)) in strips.zip(upper.strips()).enumerate() {
        let mut right = rows.slice_mut(ndarray::s![.., index * TILE..]);
        right.assign(strip);
    }
    Ok(Some(whole))
}

/// Replaces a row `c` by `c (R Rᵀ)⁻¹`.
fn solve_row(r: &Array2<f64>, row: &mut [f64]) {
    for column in (0..row.len()).rev() {
        let known = r.row(column);
        let beyond = known.iter().zip(&*row).skip(column + 1);
        let sum: f64 = beyond.map(|(r, x)| r * x).sum();
        row[column] = (row[column] - sum) / known[column];
    }
    for column in 0..row.len() {
        let known = r.row(column);
        row[column] /= known[column];
        let solved = row[column];
        for (x, r) in row.iter_mut().zip(known).skip(column + 1) {
            *x -= solved * r;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_compensated_weights_solve_the_normal_equations() {
        let wave = |seed: f32| {
            move |(t, i): (usize, usize)| ((t * 31 + i * 17 + t * i) as f32 * seed).sin()
        };
        let (float, quantized) = (
            Array2::from_shape_fn((90, 7), wave(0.7)),
            Array2::from_shape_fn((90, 7), wave(0.9)),
        );
        let errors = Array2::from_shape_fn((90, 3), wave(0.3));
        let weights = Array2::from_shape_fn((3, 7), wave(1.1));
        let mut deviation = InputDeviation::new(7).unwrap();
        deviation.observe(&float, &quantized).unwrap();
        let outputs = errors.t().dot(&quantized).mapv(f64::from);
        let moved = Compensation::new(1.0, 1e-9)
            .unwrap()
            .weights(&weights, &deviation, Some(outputs.view()))
            .unwrap();
        // At the bottom of ‖X Wᵀ + E − X̂ W'ᵀ‖² the gradient is zero.
        let rest = float.dot(&weights.t()) + &errors - quantized.dot(&moved.t());
        let gradient = rest.t().dot(&quantized);
        assert!(gradient.iter().all(|g| g.abs() < 1e-3), "{gradient}");
    }
}
