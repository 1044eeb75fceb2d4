//! Rows of float activations that become codes: the range of a row, then its codes, while it lies in
//! the nearest cache.

use crate::{
    affine::{
        Extent, Parameter,
        loops::{self, SpanParameters},
        scalar::Rule,
    },
    element::{BLOCK, Element},
    error::Error,
    scheme::Scheme,
    simd::{Loops, wide},
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

    /// The fault of a row, if it has one.
    fn fault(&self, row: usize, chooses_range: bool) -> RowFault {
        let x = &self.x[row * self.depth..(row + 1) * self.depth];
        let bad = |x: &A| {
            let x = x.to_real();
            if chooses_range {
                !x.is_finite()
            } else {
                x.is_nan()
            }
        };
        let column = x.iter().position(bad).unwrap_or(0);
        RowFault::Element {
            row,
            column,
            value: x[column].to_real(),
            chooses_range,
        }
    }

    /// With the parameters that the range of all of so many rows gets.
    ///
    /// # Errors
    /// The fault of the first row that has one.
    pub(super) fn with_common_range(mut self, rows: usize) -> Result<Self, RowFault> {
        let all = Self {
            depth: self.depth * rows,
            ..self
        };
        let fault = |fault| match fault {
            RowFault::Element {
                column,
                value,
                chooses_range,
                ..
            } => RowFault::Element {
                row: column / self.depth.max(1),
                column: column % self.depth.max(1),
                value,
                chooses_range,
            },
            other => other,
        };
        let extent = wide(Whole(&all));
        if !extent.is_finite() {
            return Err(fault(all.fault(0, true)));
        }
        let parameter = Parameter::from_range(&self.scheme, extent.range())
            .map_err(|error| RowFault::Range { row: 0, error })?;
        self.shared = Some(parameter);
        Ok(self)
    }

    #[inline(always)]
    fn extent(&self, row: usize) -> Extent {
        let mut extent = Extent::EMPTY;
        let mut buffer = [0.0; BLOCK];
        for x in self.x[row * self.depth..(row + 1) * self.depth].chunks(BLOCK) {
            extent.widen(A::widen(x, &mut buffer));
        }
        extent
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
                let extent = self.extent(row);
                if !extent.is_finite() {
                    return Err(self.fault(row, true));
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
        if loops::quantize(x, out, parameters, self.rule) {
            return Err(self.fault(row, false));
        }
        Ok(())
    }
}

/// The extent of the first row.
struct Whole<'a, 'b, A>(&'a FloatRows<'b, A>);

impl<A: Element<Real = f32>> Loops for Whole<'_, '_, A> {
    type Output = Extent;

    #[inline(always)]
    fn run(self) -> Extent {
        self.0.extent(0)
    }
}
