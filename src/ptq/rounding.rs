//! What the methods that learn codes have in common: rows of a layer, some at a time, whose codes
//! are changed so that the outputs' error falls.
//!
//! With `Δ = Ŵ − W` and `H = XᵀX`, the squared error of the outputs is `tr(Δ H Δᵀ)`: a sum over
//! rows, each of which can be worked on alone, and its gradient is `2 Δ H`. No inputs are needed.

use std::ops::Range;

use ndarray::{Array2, ArrayView2, ArrayViewD, Axis, Ix2, s};

use super::{RoundToNearest, check_finite};
use crate::{
    affine::{
        Affine, Parameter,
        loops::{self, SpanParameters},
        same_shape,
        scalar::Rule,
    },
    calibrate::LeastSquares,
    error::{Error, Result},
    groups::Groups,
    observe::Hessian,
    parallel::map_pieces,
    scheme::{Granularity, Scheme},
    simd::NOTHING,
    tensor::QTensor,
};

/// Where these methods begin unless told: rounding under the parameters that fit the weights best,
/// each counted by the squares of the inputs it meets.
#[expect(
    clippy::cast_possible_truncation,
    reason = "fractions of the largest; the nearest f32 will do"
)]
pub(super) fn fitted(scheme: Scheme, hessian: &Hessian) -> RoundToNearest {
    let squares = hessian.diagonal();
    let largest = squares.fold(f64::MIN_POSITIVE, |most, &square| most.max(square));
    RoundToNearest::new(scheme)
        .with_calibrator(LeastSquares::default())
        .with_importance(&squares.mapv(|square| (square / largest) as f32))
}

/// Rows that are worked on together: the product with the Hessian is then one of matrices.
const ROWS: usize = 64;

/// Consecutive weights of a row that share a parameter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) start: usize,
    pub(super) len: usize,
    /// Which of the block's parameters.
    pub(super) parameter: usize,
}

impl Segment {
    pub(super) fn columns(self) -> Range<usize> {
        self.start..self.start + self.len
    }
}

/// Some rows of a layer, with codes and parameters to be improved.
#[derive(Debug, Clone)]
pub(super) struct Rows<'a> {
    pub(super) scheme: Scheme,
    /// `W`, `[rows, in]`.
    pub(super) weights: ArrayView2<'a, f32>,
    /// Whether no other rows have these parameters.
    pub(super) owns_parameters: bool,
    /// The segments of each row.
    pub(super) segments: Vec<Vec<Segment>>,
    pub(super) parameters: Vec<Parameter>,
    /// `[rows, in]`.
    pub(super) codes: Array2<i32>,
}

/// Rows, and what an error in them costs.
#[derive(Debug, Clone)]
pub(super) struct Block<'a> {
    pub(super) rows: Rows<'a>,
    /// `H / unit`, `[in, in]`; an error of a row is a multiple of `unit`.
    pub(super) moments: &'a Array2<f32>,
}

impl<'a> Rows<'a> {
    /// Some rows of a layer as `start` has them, and which parameters of the layer they use.
    pub(super) fn new(
        weights: ArrayView2<'a, f32>,
        start: &Affine,
        groups: &Groups,
        codes: &Array2<i32>,
        rows: Range<usize>,
    ) -> Result<(Self, Vec<usize>)> {
        let codes = codes.slice(s![rows.clone(), ..]).to_owned();
        let (segments, used) = segments(groups, &rows, weights.ncols());
        let parameters = used.iter().map(|&index| start.parameter(index));
        let rows = Self {
            scheme: *start.scheme(),
            weights: weights.slice_move(s![rows, ..]),
            owns_parameters: lies_within_rows(start.scheme().granularity()),
            segments,
            parameters: parameters.collect::<Result<_>>()?,
            codes,
        };
        Ok((rows, used))
    }

    /// `Ŵ`, bit for bit what the codes stand for.
    pub(super) fn image(&self) -> Array2<f32> {
        let rule = Rule::of(&self.scheme);
        let mut image = Array2::zeros(self.codes.raw_dim());
        for (row, segments) in self.segments.iter().enumerate() {
            for segment in segments {
                let codes = self.codes.slice(s![row, segment.columns()]);
                let mut image = image.slice_mut(s![row, segment.columns()]);
                if let (Some(codes), Some(image)) = (codes.as_slice(), image.as_slice_mut()) {
                    let parameter = &self.parameters[segment.parameter];
                    let parameters = SpanParameters::shared(parameter, codes.len());
                    loops::dequantize(codes, 0, image, parameters, rule, NOTHING);
                }
            }
        }
        image
    }

    /// `Δ`.
    pub(super) fn change(&self) -> Array2<f32> {
        self.image() - self.weights
    }
}

impl Block<'_> {
    /// `Δ H`, half the gradient of the error.
    pub(super) fn gradient(&self, change: &Array2<f32>) -> Array2<f32> {
        change.dot(self.moments)
    }

    /// The error of each row.
    pub(super) fn errors(&self) -> Vec<f64> {
        let change = self.rows.change();
        row_products(&change, &self.gradient(&change))
    }

    /// Takes the rows of another state of the same block where its error is less.
    pub(super) fn take_better_rows(&mut self, errors: &mut [f64], other: &Self, others: &[f64]) {
        for (row, (error, &other_error)) in errors.iter_mut().zip(others).enumerate() {
            if other_error < *error {
                *error = other_error;
                let other = &other.rows;
                self.rows.codes.row_mut(row).assign(&other.codes.row(row));
                for segment in &self.rows.segments[row] {
                    self.rows.parameters[segment.parameter] = other.parameters[segment.parameter];
                }
            }
        }
    }
}

/// The products of the rows of two matrices, each row of one with the same row of the other.
pub(super) fn row_products(a: &Array2<f32>, b: &Array2<f32>) -> Vec<f64> {
    let rows = a.axis_iter(Axis(0)).zip(b.axis_iter(Axis(0)));
    rows.map(|(a, b)| {
        let pairs = a.into_iter().zip(b);
        pairs.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
    })
    .collect()
}

/// The layer with the codes and parameters that `improve` makes of those of `start`, block by
/// block; rows whose error it does not lower stay as they were.
pub(super) fn improve_rows(
    weights: &ArrayViewD<'_, f32>,
    start: &QTensor,
    hessian: &Hessian,
    improve: impl Fn(&mut Block<'_>) + Send + Sync,
) -> Result<QTensor> {
    let weights = matrix(weights, hessian)?;
    check_finite("weights", &weights)?;
    same_shape("quantized weights", weights.shape(), start.shape())?;
    let Some(moments) = normalized(hessian)? else {
        // No error can be told from another.
        return Ok(start.clone());
    };
    let affine = start.affine();
    let groups = affine.groups(weights.shape())?;
    let codes = codes_of(start)?;
    let pieces = map_pieces(weights.nrows(), ROWS, |rows| {
        let (rows, used) = Rows::new(weights.view(), &affine, &groups, &codes, rows)?;
        let mut best = Block {
            rows,
            moments: &moments,
        };
        let mut errors = best.errors();
        let mut improved = best.clone();
        improve(&mut improved);
        let others = improved.errors();
        best.take_better_rows(&mut errors, &improved, &others);
        Ok((best.rows.codes, used, best.rows.parameters))
    });
    assemble(&affine, weights.shape(), pieces)
}

/// The codes of a layer, `[out, in]`.
pub(super) fn codes_of(layer: &QTensor) -> Result<Array2<i32>> {
    let codes = layer.codes::<i32>()?;
    codes.into_dimensionality::<Ix2>().map_err(Error::other)
}

pub(super) type Improved = (Array2<i32>, Vec<usize>, Vec<Parameter>);

pub(super) fn assemble(
    affine: &Affine,
    shape: &[usize],
    pieces: Vec<Result<Improved>>,
) -> Result<QTensor> {
    let (mut scale, mut zero_point) = (affine.scale().to_vec(), affine.zero_point().to_vec());
    let mut codes = Array2::<i32>::zeros((shape[0], shape[1]));
    let mut row = 0;
    for piece in pieces {
        let (rows, used, parameters) = piece?;
        for (index, parameter) in used.into_iter().zip(parameters) {
            (scale[index], zero_point[index]) = (parameter.scale, parameter.zero_point);
        }
        let end = row + rows.nrows();
        codes.slice_mut(s![row..end, ..]).assign(&rows);
        row = end;
    }
    let affine = Affine::new(*affine.scheme(), affine.shape(), scale, zero_point)?;
    QTensor::from_codes(&codes, &affine)
}

/// The weights as a matrix with a column for each input of the Hessian.
fn matrix<'a>(
    weights: &'a ArrayViewD<'_, f32>,
    hessian: &Hessian,
) -> Result<ndarray::CowArray<'a, f32, Ix2>> {
    let rows = weights.shape().first().copied().unwrap_or(0);
    same_shape("weights", &[rows, hessian.columns()], weights.shape())?;
    let standard = weights.as_standard_layout();
    standard.into_dimensionality::<Ix2>().map_err(Error::other)
}

/// The Hessian divided by a power of two near the mean of its diagonal; none if it is zero.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "f32 is enough for a gradient; columns are far below 2^53"
)]
fn normalized(hessian: &Hessian) -> Result<Option<Array2<f32>>> {
    let mean = hessian.diagonal().sum() / hessian.columns() as f64;
    if !(mean > 0.0 && mean.is_finite()) {
        return Ok(None);
    }
    let unit = mean.log2().floor().exp2();
    Ok(Some(hessian.matrix()?.mapv(|value| (value / unit) as f32)))
}

fn lies_within_rows(granularity: Granularity) -> bool {
    matches!(
        granularity,
        Granularity::PerAxis(0)
            | Granularity::PerRow
            | Granularity::PerGroup(_)
            | Granularity::PerGroupAlong { axis: 1, .. }
    )
}

/// The segments of some rows, and which parameters of the layer they use.
fn segments(
    groups: &Groups,
    rows: &Range<usize>,
    columns: usize,
) -> (Vec<Vec<Segment>>, Vec<usize>) {
    let mut used = Vec::new();
    let mut place = std::collections::BTreeMap::new();
    let mut place_of = |parameter: usize| {
        *place.entry(parameter).or_insert_with(|| {
            used.push(parameter);
            used.len() - 1
        })
    };
    let segments = rows.clone().map(|row| {
        let mut segments = Vec::new();
        for run in groups.runs(row * columns..(row + 1) * columns) {
            let start = run.start - row * columns;
            if run.each {
                segments.extend((0..run.len).map(|at| Segment {
                    start: start + at,
                    len: 1,
                    parameter: place_of(run.parameter + at),
                }));
            } else {
                segments.push(Segment {
                    start,
                    len: run.len,
                    parameter: place_of(run.parameter),
                });
            }
        }
        segments
    });
    let segments = segments.collect();
    (segments, used)
}
