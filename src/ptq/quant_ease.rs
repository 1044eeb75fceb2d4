//! QuantEase: codes improved one at a time, each to the best there is while the others stand.

use std::{ops::Range, sync::Arc};

use ndarray::{Array1, Array2, ArrayView1, ArrayViewD, Axis, s};

use super::{
    Quantizer,
    rounding::{Block, fitted, improve_rows},
};
use crate::{
    affine::{Parameter, scalar, store},
    error::Result,
    observe::Hessian,
    scheme::{Format, Mapping, Scheme},
    tensor::QTensor,
};

/// Cyclic coordinate descent on the error of the outputs, `tr(Δ H Δᵀ)`: Behdin et al. 2023,
/// "QuantEase" (arXiv:2309.01885), algorithm 2.
///
/// With the other weights of a row standing, the error is a parabola in each weight, so that the
/// best code is the one nearest to its bottom, `w_j + Δ_j − (ΔH)_j / H_jj`: no step size, no
/// relaxation, and no step makes anything worse. Sweeps over the columns go on until none changes.
/// Before each of the first four sweeps, the scale of each group (and a real zero point) moves to
/// the bottom of its own parabola while the codes stand, which the paper does not do.
///
/// It starts from round-to-nearest, or, better, from what another method such as GPTQ leaves:
/// [`after`](Self::after). A row never ends with a larger error than it started with. One sweep
/// costs about as much as multiplying weights and Hessian; the memory beside the Hessian is its
/// copy in f32 and the codes.
///
/// ```
/// use lowbit::{QuantizerExt, RoundToNearest, Scheme, observe::Hessian};
/// use lowbit::ptq::{LayerInputs, QuantEase};
/// use ndarray::Array2;
///
/// let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32).sin();
/// let inputs = Array2::from_shape_fn((300, 64), |(t, i)| wave(t, i) + wave(t, i / 8));
/// let weights = Array2::from_shape_fn((32, 64), |(o, i)| wave(i, o));
/// let mut hessian = Hessian::new(64)?;
/// hessian.observe(&inputs)?;
///
/// let scheme = Scheme::int(3).per_group(32).build()?;
/// let inputs = LayerInputs::hessian(hessian.clone());
/// let error = |quantized: lowbit::QTensor| {
///     inputs.error(&(quantized.dequantize::<f32>() - &weights))
/// };
/// let nearest = error(RoundToNearest::new(scheme).quantize(&weights)?)?;
/// assert!(error(QuantEase::new(scheme, &hessian).quantize(&weights)?)? < 0.5 * nearest);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct QuantEase<'a> {
    start: Arc<dyn Quantizer + 'a>,
    hessian: &'a Hessian,
    sweeps: u16,
    fit: Fit,
}

/// Sweeps before which scales move: each fit costs as much as a product of weights and Hessian, and
/// more of them lowered the error by less than 1 % on random layers.
const FITS: u16 = 4;

/// Whether [`QuantEase`] moves scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fit {
    Moves,
    Stays,
}

impl<'a> QuantEase<'a> {
    /// Starting from round-to-nearest under the parameters of
    /// [`LeastSquares`](crate::calibrate::LeastSquares), with the diagonal of the Hessian as
    /// importance.
    #[must_use]
    pub fn new(scheme: Scheme, hessian: &'a Hessian) -> Self {
        Self::after(fitted(scheme, hessian), hessian)
    }

    /// Starting from the codes of another method, with its scheme.
    #[must_use]
    pub fn after(start: impl Quantizer + 'a, hessian: &'a Hessian) -> Self {
        Self {
            start: Arc::new(start),
            hessian,
            sweeps: 20,
            fit: Fit::Moves,
        }
    }

    /// Another number of sweeps, at most; the default is 20.
    #[must_use]
    pub fn with_sweeps(mut self, sweeps: u16) -> Self {
        self.sweeps = sweeps;
        self
    }

    /// Leaves scales and zero points as the start has them, as the paper does.
    #[must_use]
    pub fn with_parameters_of_start(mut self) -> Self {
        self.fit = Fit::Stays;
        self
    }

    fn improve(&self, block: &mut Block<'_>) {
        let fits = self.fit == Fit::Moves && block.rows.owns_parameters;
        for sweep in 0..self.sweeps {
            let mut state = Descent::new(block);
            if fits && sweep < FITS {
                state.fit_parameters(block);
                // The numbers that codes stand for, without what rounding has gathered.
                state = Descent::new(block);
            }
            if !state.sweep(block) {
                break;
            }
        }
    }
}

impl Quantizer for QuantEase<'_> {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        let start = self.start.quantize_view(weights.view())?;
        improve_rows(&weights, &start, self.hessian, |block| self.improve(block))
    }
}

/// `Δ` and `ΔH` of a block, kept up to date.
struct Descent {
    change: Array2<f32>,
    gradient: Array2<f32>,
}

impl Descent {
    fn new(block: &Block<'_>) -> Self {
        let change = block.rows.change();
        let gradient = block.gradient(&change);
        Self { change, gradient }
    }

    /// Moves each code of each row once, column after column; whether one has moved.
    ///
    /// Columns go outside, so that a row of the Hessian serves all rows of the block while it is in
    /// the cache.
    fn sweep(&mut self, block: &mut Block<'_>) -> bool {
        let mut moved = false;
        let columns = block.moments.ncols();
        let mut at = vec![0; block.rows.segments.len()];
        for column in 0..columns {
            let curvature = block.moments[[column, column]];
            let couplings = block.moments.row(column);
            for (row, at) in at.iter_mut().enumerate() {
                let segments = &block.rows.segments[row];
                while *at + 1 < segments.len() && segments[*at + 1].start <= column {
                    *at += 1;
                }
                let Parameter { scale, zero_point } =
                    block.rows.parameters[segments[*at].parameter];
                let (change, slope) = (self.change[[row, column]], self.gradient[[row, column]]);
                let weight = block.rows.weights[[row, column]];
                // An input that was always 0 has no bottom, and its weight stays what it is.
                let bottom = weight + change - slope / curvature;
                if !bottom.is_finite() {
                    continue;
                }
                let code = scalar::quantize(bottom, scale, zero_point, &block.rows.scheme);
                if code == block.rows.codes[[row, column]] {
                    continue;
                }
                let image: f32 = scalar::dequantize(code, scale, zero_point, &block.rows.scheme);
                let step = image - weight - change;
                // Down by more than rounding, or two codes might take turns for ever.
                if step * (2.0 * slope + step * curvature) >= -1e-6 * step * step * curvature {
                    continue;
                }
                moved = true;
                block.rows.codes[[row, column]] = code;
                self.change[[row, column]] = image - weight;
                self.gradient.row_mut(row).scaled_add(step, &couplings);
            }
        }
        moved
    }

    /// Moves the scale of each group, and a real zero point, to where the error is least while the
    /// codes stand; one group of all rows after the other, since they lie alike in each.
    fn fit_parameters(&mut self, block: &mut Block<'_>) {
        let moves_zero = block.rows.scheme.mapping() == Mapping::AsymmetricFloat
            && matches!(block.rows.scheme.format(), Format::Int(_));
        let groups = block.rows.segments.first().map_or(0, Vec::len);
        for group in 0..groups {
            self.fit_scales(block, group);
            if moves_zero {
                self.fit_zero_points(block, group);
            }
        }
    }

    fn fit_scales(&mut self, block: &mut Block<'_>, group: usize) {
        let columns = block.rows.segments[0][group].columns();
        let mut steps = &self.change.slice(s![.., columns.clone()])
            + &block.rows.weights.slice(s![.., columns.clone()]);
        for (mut steps, segments) in steps.rows_mut().into_iter().zip(&block.rows.segments) {
            steps /= block.rows.parameters[segments[group].parameter].scale;
        }
        let products = steps.dot(&block.moments.slice(s![columns.clone(), ..]));
        for row in 0..block.rows.segments.len() {
            let parameter = &mut block.rows.parameters[block.rows.segments[row][group].parameter];
            let (steps, product) = (steps.row(row), products.row(row));
            let Some(by) = self.bottom(row, &columns, steps, product) else {
                continue;
            };
            let scale = store(block.rows.scheme.scale_kind(), parameter.scale + by);
            // A scale that is far off, or cannot be stored, is no use to these codes.
            if scale.is_normal() && scale > 0.5 * parameter.scale && scale < 2.0 * parameter.scale {
                self.shift(row, &columns, steps, product, scale - parameter.scale);
                parameter.scale = scale;
            }
        }
    }

    fn fit_zero_points(&mut self, block: &mut Block<'_>, group: usize) {
        let columns = block.rows.segments[0][group].columns();
        let ones = Array1::<f32>::ones(columns.len());
        let couplings = block.moments.slice(s![columns.clone(), ..]);
        let product = couplings.sum_axis(Axis(0));
        for row in 0..block.rows.segments.len() {
            let parameter = &mut block.rows.parameters[block.rows.segments[row][group].parameter];
            let Some(by) = self.bottom(row, &columns, ones.view(), product.view()) else {
                continue;
            };
            let zero_point = parameter.zero_point - by / parameter.scale;
            if zero_point.is_finite() {
                self.shift(row, &columns, ones.view(), product.view(), by);
                parameter.zero_point = zero_point;
            }
        }
    }

    /// How far along a direction of some columns the error of a row is least, given the direction's
    /// product with the Hessian; none where that is nowhere, or here.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the nearest f32 is asked for"
    )]
    fn bottom(
        &self,
        row: usize,
        columns: &Range<usize>,
        direction: ArrayView1<'_, f32>,
        product: ArrayView1<'_, f32>,
    ) -> Option<f32> {
        let sum = |other: ArrayView1<'_, f32>| -> f64 {
            let pairs = direction.iter().zip(other);
            pairs.map(|(&d, &x)| f64::from(d) * f64::from(x)).sum()
        };
        let slope = sum(self.gradient.slice(s![row, columns.clone()]));
        let curvature = sum(product.slice(s![columns.clone()]));
        let by = (-slope / curvature) as f32;
        (curvature > 0.0 && by.is_finite() && by != 0.0).then_some(by)
    }

    /// `Δ` and `ΔH` after a step of a row along a direction.
    fn shift(
        &mut self,
        row: usize,
        columns: &Range<usize>,
        direction: ArrayView1<'_, f32>,
        product: ArrayView1<'_, f32>,
        by: f32,
    ) {
        let mut change = self.change.slice_mut(s![row, columns.clone()]);
        change.scaled_add(by, &direction);
        self.gradient.row_mut(row).scaled_add(by, &product);
    }
}
