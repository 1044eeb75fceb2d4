//! GPTQ: each column is quantized in turn, and the columns after it make up for its error.
//!
//! Letters, as in the papers: `W` the weights `[out, in]`, `Q` the quantized ones, `H = XᵀX` the
//! Hessian, `λ` the damping, `D = W − Q`. The papers factor the inverse, `(H + λI)⁻¹ = Uᵀ U`, and
//! move the later columns by `−e U` with `e = (w − q) / U[j, j]`. Here `R = U⁻¹` is used instead, the
//! upper triangle with `H + λI = R Rᵀ`: the error of the outputs is `‖D R‖²`, whose column `j` holds
//! the displacements up to `j` alone; so `q[j]` is to be nearest to
//!
//! ```text
//! w[j] + Σ_{i<j} d[i] R[i, j] / R[j, j]
//! ```
//!
//! which is the papers' moved weight, without the inverse: a quarter of the work of factoring, and
//! less rounding. (Babai's nearest plane; Chen et al. 2025, arXiv:2507.18553.)

mod columns;
mod factor;
mod guard;
mod options;
mod report;
mod search;
mod sweep;

pub use options::{GroupFit, Order, RangeWeights};
pub use report::{Outcome, Reason, Report, Warning};

use std::sync::Arc;

use ndarray::{Array2, ArrayD, ArrayRef2, ArrayView2, ArrayViewD, Ix2};

use super::Quantizer;
use crate::{
    affine::{Affine, Ranges, same_shape},
    calibrate::{Calibrator, FullRange, ranges_of},
    element::Code,
    error::{Error, Result},
    groups::Groups,
    observe::{Hessian, InputDeviation},
    scheme::Scheme,
    tensor::QTensor,
};
use columns::Columns;
use factor::{Factor, factor_in_order};
use guard::{Candidate, Guard};
use sweep::{BLOCK, Sweep};

/// GPTQ (Frantar et al. 2022, arXiv:2210.17323), by blocks of 128 columns whose displacements are
/// carried to the later ones in one product.
///
/// Schemes of every granularity and mapping are served; groups may have a shorter tail. Parameters
/// are fitted on the way ([`GroupFit`]) where a group lies within a row; where rows share them, they
/// are those of the original weights.
///
/// **Never worse than rounding.** The error of the outputs of each row is counted along the way, for
/// GPTQ and for [`RoundToNearest`](super::RoundToNearest) with the same calibrator; a row that GPTQ
/// makes worse is rounded, and counted in the [report](Self::quantize_with_report).
///
/// **A Hessian that cannot be used.** If the damped Hessian is not positive definite, the damping is
/// raised tenfold up to the mean of the diagonal; then small elements of the diagonal are raised to
/// a part of the largest; then weights are rounded to nearest. The report says which. Columns whose
/// inputs were always 0 are rounded: their weights stay what they were, should an input come.
///
/// **Memory**, beside weights and Hessian: `8 in²` bytes, a byte a weight, and some rows.
///
/// ```
/// use lowbit::{QuantizerExt, Scheme, calibrate::MeanSquaredError, observe::Hessian, ptq::Gptq};
/// use ndarray::Array2;
///
/// let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32).sin();
/// let inputs = Array2::from_shape_fn((300, 64), |(t, i)| wave(t, i) + wave(t, i / 8));
/// let weights = Array2::from_shape_fn((32, 64), |(o, i)| wave(i, o));
///
/// let mut hessian = Hessian::new(64)?;
/// hessian.observe(&inputs)?;
/// let gptq = Gptq::new(Scheme::int(3).per_group(32).build()?, &hessian)
///     .with_calibrator(MeanSquaredError::default());
/// let (quantized, report) = gptq.quantize_with_report(&weights)?;
/// assert!(report.output_error < 0.7 * report.rounding_error, "{report}");
/// assert_eq!(gptq.quantize(&weights)?, quantized);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Gptq<'a> {
    scheme: Scheme,
    hessian: &'a Hessian,
    /// With `α`.
    deviation: Option<(&'a InputDeviation, f64)>,
    calibrator: Arc<dyn Calibrator>,
    order: Order,
    group_fit: Option<GroupFit>,
    range_weights: RangeWeights,
    damping: f64,
    /// `β`.
    first_order: f32,
    row_search: u16,
    minimum_tokens: u64,
}

impl<'a> Gptq<'a> {
    /// The method with its defaults: a damping of 0.01, columns in group-aware order, the full range
    /// of each group.
    #[must_use]
    pub fn new(scheme: Scheme, hessian: &'a Hessian) -> Self {
        Self {
            scheme,
            hessian,
            deviation: None,
            calibrator: Arc::new(FullRange),
            order: Order::default(),
            group_fit: None,
            range_weights: RangeWeights::default(),
            damping: 0.01,
            first_order: 0.0,
            row_search: 0,
            minimum_tokens: 1,
        }
    }

    /// GPTAQ, asymmetric calibration (Li et al. 2025, arXiv:2504.02692): the layer also makes up for
    /// what the quantized layers before it have done to its inputs, at `α = 0.25`.
    ///
    /// As each column is quantized, the later ones take over `α` of what its original weight would
    /// add to the outputs for the deviation of its input. (The published program takes the moved
    /// weight within a block and the quantized one beyond it; here it is the moved one always, as in
    /// the paper.) It takes `16 in²` bytes more.
    ///
    /// Rows are compared with round-to-nearest by the distance of their outputs from those of the float
    /// model.
    ///
    /// ```
    /// use lowbit::{QuantizerExt, Scheme, observe::InputDeviation, ptq::Gptq};
    /// use ndarray::array;
    /// let mut deviation = InputDeviation::new(2)?;
    /// // what the float model feeds the layer, and what the quantized one does
    /// deviation.observe(&array![[1.0_f32, 0.5], [0.2, 1.0]], &array![[0.9_f32, 0.5], [0.2, 1.1]])?;
    /// let gptq = Gptq::asymmetric(Scheme::int(4).per_axis(0).build()?, &deviation);
    /// assert_eq!(gptq.quantize(&array![[0.3_f32, -0.7]])?.shape(), [1, 2]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[must_use]
    pub fn asymmetric(scheme: Scheme, deviation: &'a InputDeviation) -> Self {
        Self {
            deviation: Some((deviation, 0.25)),
            ..Self::new(scheme, deviation.hessian())
        }
    }

    /// Another `α` of [`asymmetric`](Self::asymmetric) calibration; no effect without it.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless `0 <= α <= 1`.
    pub fn with_alpha(mut self, alpha: f64) -> Result<Self> {
        if !(0.0..=1.0).contains(&alpha) {
            return Err(Error::option("alpha", "0 to 1", alpha));
        }
        self.deviation = self.deviation.map(|(deviation, _)| (deviation, alpha));
        Ok(self)
    }

    /// The range of each group that a calibrator chooses. A clipping one pays at 4 bits and below:
    /// [`LeastSquares`](crate::calibrate::LeastSquares), or for less time
    /// [`MeanSquaredError`](crate::calibrate::MeanSquaredError).
    #[must_use]
    pub fn with_calibrator(mut self, calibrator: impl Calibrator + 'static) -> Self {
        self.calibrator = Arc::new(calibrator);
        self
    }

    /// Another order of the columns.
    #[must_use]
    pub fn with_order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// When the parameters of groups are fitted. Unless set: fresh at 3 bits and up, static below,
    /// where fitting to moved weights pays with a clipping calibrator alone.
    #[must_use]
    pub fn with_group_fit(mut self, group_fit: GroupFit) -> Self {
        self.group_fit = Some(group_fit);
        self
    }

    /// How errors in the columns count where the calibrator chooses a range.
    #[must_use]
    pub fn with_range_weights(mut self, range_weights: RangeWeights) -> Self {
        self.range_weights = range_weights;
        self
    }

    /// What is added to the diagonal of the Hessian, as a fraction of the mean of its elements that
    /// are not 0.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] for a negative number or one that is not finite.
    pub fn with_damping(mut self, damping: f64) -> Result<Self> {
        if !(damping >= 0.0 && damping.is_finite()) {
            return Err(Error::option("damping", "a finite number from 0", damping));
        }
        self.damping = damping;
        Ok(self)
    }

    /// FOEM (Zheng et al. 2025, arXiv:2507.11017): `β` of how far a weight has been moved already is
    /// taken off its error, since after many columns the expansion no longer starts at a minimum.
    /// The paper has 0.2.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] unless `0 <= β <= 1`.
    pub fn with_first_order(mut self, beta: f32) -> Result<Self> {
        if !(0.0..=1.0).contains(&beta) {
            return Err(Error::option("first-order correction", "0 to 1", beta));
        }
        self.first_order = beta;
        Ok(self)
    }

    /// Where a row is one group: tries its range at this many multiples too, from 0.7 to 1.2 in even
    /// steps, and keeps the one under which the row ends with the least error of its outputs. Each
    /// takes as long as GPTQ without, and all of them a byte a weight. Elsewhere it has no effect.
    ///
    /// A calibrator knows what rounding a range will cost, not what is left of it when later columns
    /// have made up for what they can.
    ///
    /// ```
    /// use lowbit::{Scheme, observe::Hessian, ptq::Gptq};
    /// use ndarray::Array2;
    /// let wave = |i: usize, j: usize| ((i * 37 + j * 11 + i * j) as f32).sin();
    /// let inputs = Array2::from_shape_fn((300, 64), |(t, i)| wave(t, i) + wave(t, i / 8));
    /// let weights = Array2::from_shape_fn((32, 64), |(o, i)| wave(i, o));
    /// let mut hessian = Hessian::new(64)?;
    /// hessian.observe(&inputs)?;
    /// let gptq = Gptq::new(Scheme::int(3).per_axis(0).build()?, &hessian);
    /// let (_, plain) = gptq.quantize_with_report(&weights)?;
    /// let (_, searched) = gptq.with_row_search(18).quantize_with_report(&weights)?;
    /// assert!(searched.output_error < 0.9 * plain.output_error);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    #[must_use]
    pub fn with_row_search(mut self, multiples: u16) -> Self {
        self.row_search = multiples;
        self
    }

    /// The rows that calibration must have seen; with fewer, weights are rounded to nearest. Unless
    /// set, 1.
    #[must_use]
    pub fn with_minimum_tokens(mut self, tokens: u64) -> Self {
        self.minimum_tokens = tokens;
        self
    }

    /// The quantized weights, `[out, in]`, and what was done and gained.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] unless the weights have as many columns as the Hessian;
    /// [`Error::NonFinite`] for a NaN or an infinity in them; [`Error::NoSuchAxis`] if the scheme
    /// needs axes they do not have; [`Error::TooLarge`] if there is not enough memory; those of the
    /// calibrator.
    pub fn quantize_with_report(&self, weights: &ArrayRef2<f32>) -> Result<(QTensor, Report)> {
        self.check_shape(weights.shape())?;
        let signed = self.scheme.quant_min() < 0;
        match (self.scheme.bits(), signed) {
            (16, true) => self.run::<i16>(weights.view()),
            (16, false) => self.run::<u16>(weights.view()),
            (_, true) => self.run::<i8>(weights.view()),
            (_, false) => self.run::<u8>(weights.view()),
        }
    }

    fn check_shape(&self, shape: &[usize]) -> Result<()> {
        let rows = shape.first().copied().unwrap_or(1);
        same_shape("weights", &[rows, self.hessian.columns()], shape)
    }

    fn run<C: Code>(&self, weights: ArrayView2<'_, f32>) -> Result<(QTensor, Report)> {
        let groups = Groups::new(weights.shape(), self.scheme.granularity())?;
        let ranges = ranges_of(&*self.calibrator, &weights, &self.scheme, None)?;
        let rounding = Affine::from_ranges(&self.scheme, &ranges)?;
        if self.hessian.tokens() < self.minimum_tokens {
            return self.round(weights, &rounding, Reason::FewTokens);
        }
        let diagonal = self.hessian.diagonal().to_vec();
        if diagonal.iter().all(|&square| square == 0.0) {
            return self.round(weights, &rounding, Reason::NoSignal);
        }
        let columns = Columns::new(self.order, self.scheme.granularity(), &diagonal, BLOCK);
        let factor = factor_in_order(self.hessian, &columns.order, self.damping, self.deviation)?;
        let Some(factor) = factor else {
            return self.round(weights, &rounding, Reason::NotPositiveDefinite);
        };
        let fits = columns.is_contiguous && columns.rows_own_parameters;
        let searches = self.row_search > 0
            && columns.rows_own_parameters
            && groups.parameters() == weights.nrows();
        // The one group of a row meets its weights as they were.
        let fit = if fits && !searches {
            self.fit()
        } else {
            GroupFit::Static
        };
        let importance = self.importance(&factor, &columns);
        let ranges = match (&importance, fit) {
            (Some(importance), GroupFit::Static) => {
                self.weighted_ranges(weights, &columns, importance)?
            }
            _ => ranges,
        };
        let fixed = Affine::from_ranges(&self.scheme, &ranges)?;
        let sweep = Sweep {
            weights,
            groups: &groups,
            rounding: &rounding,
            fixed: &fixed,
            fit,
            calibrator: &*self.calibrator,
            importance: importance.as_deref(),
            columns: &columns,
            factor: &factor,
            beta: self.first_order,
        };
        let mut best = self.candidate::<C>(&sweep)?;
        let multiples = if searches { self.row_search } else { 0 };
        for multiple in search::multiples(multiples) {
            // The scales of some schemes do not hold every range.
            let Ok(fixed) = search::scaled(&ranges, multiple)
                .and_then(|ranges| Affine::from_ranges(&self.scheme, &ranges))
            else {
                continue;
            };
            let other = Sweep {
                fixed: &fixed,
                ..sweep
            };
            best.take_better_rows(&self.candidate(&other)?)?;
        }
        let kept = self.guard(&sweep).keep_the_better(best)?;
        let codes = Array2::from_shape_vec(weights.raw_dim(), kept.codes).map_err(Error::other)?;
        let mut report = self.report(Outcome::Gptq {
            damping: factor.damping,
            diagonal_floor: factor.floor,
        });
        report.rounded_rows = kept.rounded_rows;
        report.weight_error = kept.weight_error;
        report.output_error = kept.output_error;
        report.rounding_error = kept.rounding_error;
        Ok((QTensor::from_codes(&codes, &kept.affine)?, report))
    }

    /// What a sweep makes of the weights.
    fn candidate<C: Code>(&self, sweep: &Sweep<'_>) -> Result<Candidate<C>> {
        let mut codes = vec![C::default(); sweep.weights.len()];
        let swept = sweep.run(&mut codes)?;
        self.guard(sweep).candidate(codes, &swept)
    }

    fn guard<'s, 'w>(&'s self, sweep: &'s Sweep<'w>) -> Guard<'s, 'w> {
        Guard {
            sweep,
            hessian: self.hessian,
            deviation: self.deviation.map(|(deviation, _)| deviation),
        }
    }

    /// How much an error in each column counts to the calibrator, in the order of the columns.
    fn importance(&self, factor: &Factor, columns: &Columns) -> Option<Vec<f32>> {
        let is_even = self.range_weights == RangeWeights::Even || !columns.rows_own_parameters;
        let squares = factor.pivots.iter().map(|pivot| pivot * pivot);
        (!is_even).then(|| squares.collect())
    }

    /// Ranges of the original weights that heed an importance.
    fn weighted_ranges(
        &self,
        weights: ArrayView2<'_, f32>,
        columns: &Columns,
        importance: &[f32],
    ) -> Result<Ranges> {
        let mut natural = ArrayD::zeros(vec![importance.len()]);
        for (&column, &value) in columns.order.iter().zip(importance) {
            natural[[column]] = value;
        }
        let natural = Some(natural.view());
        ranges_of(&*self.calibrator, &weights, &self.scheme, natural)
    }

    fn fit(&self) -> GroupFit {
        let default = if self.scheme.bits() >= 3 {
            GroupFit::Fresh
        } else {
            GroupFit::Static
        };
        self.group_fit.unwrap_or(default)
    }

    /// What is done where the Hessian cannot be used.
    fn round(
        &self,
        weights: ArrayView2<'_, f32>,
        affine: &Affine,
        reason: Reason,
    ) -> Result<(QTensor, Report)> {
        let quantized = QTensor::quantize(&weights, affine)?;
        let delta = quantized.dequantize::<f32>().into_dimensionality::<Ix2>();
        let delta = &weights - &delta.map_err(Error::other)?;
        let mut report = self.report(Outcome::RoundToNearest(reason));
        report.rounded_rows = weights.nrows();
        report.weight_error = delta.fold(0.0, |sum, &d| sum + f64::from(d) * f64::from(d));
        report.output_error = self.hessian.error(&delta)?;
        report.rounding_error = report.output_error;
        Ok((quantized, report))
    }

    /// A report without the figures.
    fn report(&self, outcome: Outcome) -> Report {
        let (tokens, columns) = (self.hessian.tokens(), self.hessian.columns());
        let diagonal = self.hessian.diagonal();
        let mut warnings = Vec::new();
        if tokens < columns as u64 {
            warnings.push(Warning::FewTokens { tokens, columns });
        }
        match outcome {
            Outcome::Gptq { damping, .. } if damping != self.damping => {
                warnings.push(Warning::RaisedDamping {
                    asked: self.damping,
                    used: damping,
                });
            }
            _ => {}
        }
        Report {
            outcome,
            tokens,
            dead_columns: diagonal.iter().filter(|&&square| square == 0.0).count(),
            rounded_rows: 0,
            weight_error: 0.0,
            output_error: 0.0,
            rounding_error: 0.0,
            warnings,
        }
    }
}

impl Quantizer for Gptq<'_> {
    fn quantize_view(&self, weights: ArrayViewD<'_, f32>) -> Result<QTensor> {
        self.check_shape(weights.shape())?;
        let weights = weights.into_dimensionality::<Ix2>().map_err(Error::other)?;
        Ok(self.quantize_with_report(&weights)?.0)
    }
}
