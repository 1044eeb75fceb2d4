//! Rows of activations as codes that fit `i8`: float ones are quantized, the range of a row first, then
//! its codes, while it lies in the nearest cache.

use std::ops::Range;

use crate::{
    affine::{
        Extent, Parameter,
        loops::{self, SpanParameters},
        scalar::Rule,
    },
    element::{BLOCK, Code, Element},
    error::Error,
    scheme::Scheme,
    simd::{Loops, NOTHING, wide},
};

/// Codes that are computed at a time.
pub(super) const CHUNK: usize = BLOCK;

/// Scale and zero point of a row, the latter on the same footing as codes that fit `i8`.
#[derive(Debug, Clone, Copy)]
pub(super) struct RowParameter {
    pub(super) zero: i32,
    pub(super) scale: f32,
}

/// Why a row cannot be quantized.
#[derive(Debug)]
pub(super) enum RowFault {
    /// An element is not finite, or not a number where infinities saturate.
    Element {
        row: usize,
        column: usize,
        value: f32,
        chooses_range: bool,
    },
    /// The range of a row has no scale.
    Range { row: usize, error: Error },
}

impl RowFault {
    /// As an error of activations of a shape `[…, in]`.
    pub(super) fn error(self, shape: &[usize]) -> Error {
        match self {
            Self::Element {
                row,
                column,
                value,
                chooses_range,
            } => {
                let (what, expected) = if chooses_range {
                    ("activations to find the range of", "finite numbers")
                } else {
                    ("activations to quantize", "numbers")
                };
                Error::NonFinite {
                    what,
                    expected,
                    position: position(shape, row, column),
                    value: value.into(),
                }
            }
            Self::Range {
                row,
                error: Error::InvalidScale { expected, got, .. },
            } => Error::InvalidScale {
                index: row,
                expected,
                got,
            },
            Self::Range { error, .. } => error,
        }
    }
}

/// The place of an element of a row, in an array `[…, in]`.
pub(super) fn position(shape: &[usize], mut row: usize, column: usize) -> Vec<usize> {
    let mut position = vec![0; shape.len()];
    if let Some((last, rest)) = position.split_last_mut() {
        *last = column;
        for (at, &len) in rest.iter_mut().zip(shape).rev() {
            *at = row % len.max(1);
            row /= len.max(1);
        }
    }
    position
}

/// Rows of codes that fit `i8`.
pub(super) trait RowSource: Sync {
    /// The parameters of a row; to be marked `#[inline(always)]`, as the next one.
    fn parameter(&self, row: usize) -> Result<RowParameter, RowFault>;

    /// The codes of a row from a place on, at most [`CHUNK`].
    fn codes(
        &self,
        row: usize,
        start: usize,
        parameter: &RowParameter,
        out: &mut [i8],
    ) -> Result<(), RowFault>;
}

/// Float activations `[rows, depth]` in row-major order.
#[derive(Debug, Clone, Copy)]
pub(super) struct FloatRows<'a, A> {
    x: &'a [A],
    depth: usize,
    scheme: Scheme,
    rule: Rule<f32>,
    /// What is taken from codes and zero points alike.
    offset: i32,
    /// Parameters for all rows; each row chooses its own where there are none.
    shared: Option<Parameter>,
}

impl<'a, A: Element<Real = f32>> FloatRows<'a, A> {
    /// Rows under parameters that are the same for all, or that each row chooses.
    #[expect(
        clippy::cast_precision_loss,
        reason = "ends of codes of at most 8 bits, and an offset of 128"
    )]
    pub(super) fn new(x: &'a [A], depth: usize, scheme: Scheme, shared: Option<Parameter>) -> Self {
        let offset = if scheme.quant_min() < 0 { 0 } else { 128 };
        Self {
            x,
            depth,
            scheme,
            rule: Rule::Integer {
                quant_min: (scheme.quant_min() - offset) as f32,
                quant_max: (scheme.quant_max() - offset) as f32,
            },
            offset,
            shared,
        }
    }

    /// The elements of a row.
    #[inline(always)]
    fn row(&self, row: usize) -> Range<usize> {
        row * self.depth..(row + 1) * self.depth
    }

    /// The fault of the first bad one of some elements.
    fn fault(&self, elements: Range<usize>, chooses_range: bool) -> RowFault {
        let bad = |x: &A| {
            let x = x.to_real();
            if chooses_range {
                !x.is_finite()
            } else {
                x.is_nan()
            }
        };
        let index = self.x[elements.clone()].iter().position(bad);
        let at = elements.start + index.unwrap_or(0);
        RowFault::Element {
            row: at / self.depth,
            column: at % self.depth,
            value: self.x[at].to_real(),
            chooses_range,
        }
    }

    /// With the parameters that the range of all rows gets.
    ///
    /// # Errors
    /// The fault of the first row that has one.
    pub(super) fn with_common_range(mut self) -> Result<Self, RowFault> {
        let extent = wide(ExtentOf(self.x));
        if !extent.is_finite() {
            return Err(self.fault(0..self.x.len(), true));
        }
        let parameter = Parameter::from_range(&self.scheme, extent.range())
            .map_err(|error| RowFault::Range { row: 0, error })?;
        self.shared = Some(parameter);
        Ok(self)
    }
}

impl<A: Element<Real = f32>> RowSource for FloatRows<'_, A> {
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer zero point of a code of at most 8 bits"
    )]
    fn parameter(&self, row: usize) -> Result<RowParameter, RowFault> {
        let parameter = match self.shared {
            Some(parameter) => parameter,
            None => {
                let extent = ExtentOf(&self.x[self.row(row)]).run();
                if !extent.is_finite() {
                    return Err(self.fault(self.row(row), true));
                }
                Parameter::from_range(&self.scheme, extent.range())
                    .map_err(|error| RowFault::Range { row, error })?
            }
        };
        Ok(RowParameter {
            zero: parameter.zero_point as i32 - self.offset,
            scale: parameter.scale,
        })
    }

    #[inline(always)]
    #[expect(clippy::cast_precision_loss, reason = "a zero point of at most 8 bits")]
    fn codes(
        &self,
        row: usize,
        start: usize,
        parameter: &RowParameter,
        out: &mut [i8],
    ) -> Result<(), RowFault> {
        let x = &self.x[row * self.depth + start..][..out.len()];
        let mut buffer = [0.0; BLOCK];
        let x = A::widen(x, &mut buffer);
        let of = Parameter {
            scale: parameter.scale,
            zero_point: parameter.zero as f32,
        };
        let parameters = SpanParameters::shared(&of, out.len());
        if loops::quantize(x, out, parameters, self.rule, NOTHING) {
            return Err(self.fault(self.row(row), false));
        }
        Ok(())
    }
}

/// The extent of some floats.
struct ExtentOf<'a, A>(&'a [A]);

impl<A: Element<Real = f32>> Loops for ExtentOf<'_, A> {
    type Output = Extent;

    #[inline(always)]
    fn run(self) -> Extent {
        let mut extent = Extent::EMPTY;
        let mut buffer = [0.0; BLOCK];
        for x in self.0.chunks(BLOCK) {
            extent.widen(A::widen(x, &mut buffer), NOTHING);
        }
        extent
    }
}

/// Codes of rows with known parameters.
#[derive(Debug)]
pub(super) struct CodeRows<'a, T> {
    pub(super) codes: &'a [T],
    pub(super) depth: usize,
    /// One for each row, or one for all.
    pub(super) zero: &'a [i32],
    pub(super) scale: f32,
    /// What is taken from codes and zero points alike, so that unsigned codes fit `i8`.
    pub(super) offset: i32,
}

impl<T: Code> RowSource for CodeRows<'_, T> {
    #[inline(always)]
    fn parameter(&self, row: usize) -> Result<RowParameter, RowFault> {
        let zero = self.zero.get(row).or(self.zero.first());
        Ok(RowParameter {
            zero: zero.copied().unwrap_or(0) - self.offset,
            scale: self.scale,
        })
    }

    #[inline(always)]
    fn codes(
        &self,
        row: usize,
        start: usize,
        _: &RowParameter,
        out: &mut [i8],
    ) -> Result<(), RowFault> {
        let codes = &self.codes[row * self.depth + start..][..out.len()];
        for (out, &code) in out.iter_mut().zip(codes) {
            *out = Code::truncate(code.into() - self.offset);
        }
        Ok(())
    }
}
