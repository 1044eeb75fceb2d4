//! The damped Hessian, factored; and what is done where it cannot be.

use ndarray::{Array2, Axis, Zip, s};

use crate::{
    error::Result,
    linalg::{TILE, Upper, factor, solve, zeros},
    observe::{Hessian, InputDeviation},
    parallel::for_each,
};

/// `H + λ I = R Rᵀ` in the form that the sweep needs; rows and columns in the order of the columns.
#[derive(Debug)]
pub(super) struct Factor {
    /// `R[i, k] / R[k, k]` above the diagonal, 0 elsewhere.
    pub(super) couplings: Array2<f32>,
    /// `R[k, k]`, so that `e · R[k, k]` is an error of outputs in `√unit`s; 0 for a dead column.
    pub(super) pivots: Vec<f32>,
    /// The diagonal of `H / unit`, and what was added to it.
    pub(super) diagonal: Vec<Diagonal>,
    /// `α triu(C R⁻ᵀ, 1)` with column `k` divided by `R[k, k]`, for asymmetric calibration.
    pub(super) asymmetry: Option<Array2<f32>>,
    /// The power of two that the Hessian was divided by.
    pub(super) unit: f64,
    /// `λ`, as a fraction of the mean of the diagonal.
    pub(super) damping: f64,
    /// The least element of the diagonal, as a fraction of the largest, where one was needed.
    pub(super) floor: Option<f64>,
}

/// An element of the diagonal; both are 0 for a dead column.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Diagonal {
    pub(super) own: f64,
    pub(super) added: f64,
}

/// Damping and floor of the diagonal to be tried, one after the other.
fn ladder(damping: f64) -> impl Iterator<Item = (f64, Option<f64>)> {
    let raised = std::iter::successors(Some((10.0 * damping).max(1e-4)), |damping| {
        Some(10.0 * damping)
    });
    let raised = raised.take_while(|&damping| damping <= 1.0);
    let most = damping.max(1.0);
    let floors = (0..6).map(move |step| (most, Some(1e-6 * 10.0_f64.powi(step))));
    let dampings = std::iter::once(damping).chain(raised);
    dampings.map(|damping| (damping, None)).chain(floors)
}

/// Factors the Hessian with its columns in the given order; `None` if it is zero, or if it is not
/// positive definite with anything that was tried. `deviation` comes with `α`.
pub(super) fn factor_in_order(
    hessian: &Hessian,
    order: &[usize],
    damping: f64,
    deviation: Option<(&InputDeviation, f64)>,
) -> Result<Option<Factor>> {
    let diagonal = hessian.diagonal();
    let mean = live_mean(diagonal.iter().copied());
    if !(mean > 0.0 && mean.is_finite()) {
        return Ok(None);
    }
    let unit = mean.log2().floor().exp2();
    for (damping, floor) in ladder(damping) {
        let mut upper = hessian.upper(order)?;
        for strip in upper.strips_mut() {
            strip.mapv_inplace(|value| value / unit);
        }
        let own = upper.diagonal();
        let largest = own.iter().copied().fold(0.0, f64::max);
        let lambda = damping * live_mean(own.iter().copied());
        let mut diagonal = vec![Diagonal::default(); order.len()];
        for (position, &value) in own.iter().enumerate() {
            let slot = upper.at_mut(position, position);
            if value > 0.0 {
                let raised = value.max(floor.unwrap_or(0.0) * largest) + lambda;
                diagonal[position] = Diagonal {
                    own: value,
                    added: raised - value,
                };
                *slot = raised;
            } else {
                // No input ever reached it: nothing couples to it.
                *slot = 1.0;
            }
        }
        if factor(&mut upper) {
            let pivots = pivots(&upper, own.as_slice().unwrap_or_default());
            let asymmetry = match deviation {
                Some((deviation, alpha)) => {
                    Some(asymmetry(&upper, deviation, order, alpha / unit)?)
                }
                None => None,
            };
            return Ok(Some(Factor {
                asymmetry,
                couplings: couplings(&upper)?,
                pivots,
                diagonal,
                unit,
                damping,
                floor,
            }));
        }
    }
    Ok(None)
}

/// The mean of the elements above 0.
#[expect(clippy::cast_precision_loss, reason = "a number of columns")]
fn live_mean(diagonal: impl Iterator<Item = f64>) -> f64 {
    let live = diagonal.filter(|&value| value > 0.0);
    let (count, sum) = live.fold((0_usize, 0.0), |(count, sum), value| {
        (count + 1, sum + value)
    });
    sum / count.max(1) as f64
}

fn pivots(r: &Upper, own: &[f64]) -> Vec<f32> {
    let pivots = r.diagonal().into_iter().zip(own);
    pivots
        .map(|(pivot, &own)| if own > 0.0 { narrow(pivot) } else { 0.0 })
        .collect()
}

fn couplings(r: &Upper) -> Result<Array2<f32>> {
    let n = r.columns();
    let mut couplings = zeros(n, n)?;
    let reciprocals = r.diagonal().mapv(f64::recip);
    let strips = couplings.axis_chunks_iter_mut(Axis(0), TILE);
    let strips = strips.zip(r.strips()).enumerate().collect();
    for_each(strips, |(index, (mut out, strip))| {
        let start = index * TILE;
        let reciprocals = reciprocals.slice(s![start..]);
        for (row, (mut out, values)) in out.rows_mut().into_iter().zip(strip.rows()).enumerate() {
            let out = out.slice_mut(s![start + row + 1..]);
            let values = values.slice(s![row + 1..]);
            let reciprocals = reciprocals.slice(s![row + 1..]);
            Zip::from(out)
                .and(values)
                .and(reciprocals)
                .for_each(|out, &value, &reciprocal| *out = narrow(value * reciprocal));
        }
    });
    Ok(couplings)
}

fn asymmetry(
    r: &Upper,
    deviation: &InputDeviation,
    order: &[usize],
    alpha: f64,
) -> Result<Array2<f32>> {
    let mut solved = deviation.cross_in_order(order)?;
    solved *= alpha;
    solve(r, &mut solved);
    let pivots = r.diagonal();
    let mut asymmetry: Array2<f32> = zeros(order.len(), order.len())?;
    for ((row, column), value) in asymmetry.indexed_iter_mut() {
        if column > row {
            *value = narrow(solved[[row, column]] / pivots[column]);
        }
    }
    Ok(asymmetry)
}

#[expect(clippy::cast_possible_truncation, reason = "the nearest f32")]
pub(super) fn narrow(value: f64) -> f32 {
    value as f32
}
