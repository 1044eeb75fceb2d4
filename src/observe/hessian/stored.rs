//! A Hessian in a file: the upper triangle and the rows that wait, checked when read.

use ndarray::Array2;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

use super::Hessian;
use crate::{
    error::{Error, Result},
    linalg::{TILE, Upper},
    observe::products::{ROWS, check_finite},
};

/// The rows of the upper triangle, one after the other.
struct Triangle<'a>(Option<&'a Upper>);

impl Serialize for Triangle<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let strips = self.0.map_or(&[][..], Upper::strips);
        let rows = strips.iter().flat_map(|strip| strip.rows());
        let rows = rows.enumerate();
        serializer.collect_seq(rows.flat_map(|(row, values)| {
            let skip = row % TILE;
            values.into_iter().skip(skip)
        }))
    }
}

impl Serialize for Hessian {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut state = serializer.serialize_struct("Hessian", 4)?;
        state.serialize_field("columns", &self.columns)?;
        state.serialize_field("tokens", &self.tokens)?;
        state.serialize_field("upper", &Triangle(self.sum.as_ref()))?;
        state.serialize_field("staged", &self.staged.as_slice().unwrap_or_default())?;
        state.end()
    }
}

/// What a stored Hessian says of itself, before it is believed.
#[derive(Deserialize)]
#[serde(rename = "Hessian")]
struct Unchecked {
    columns: usize,
    tokens: u64,
    upper: Vec<f64>,
    staged: Vec<f32>,
}

impl<'de> Deserialize<'de> for Hessian {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Unchecked::deserialize(deserializer)?;
        stored.check().map_err(serde::de::Error::custom)
    }
}

impl Unchecked {
    fn check(self) -> Result<Hessian> {
        let mut hessian = Hessian::new(self.columns)?;
        let n = self.columns;
        let mismatch = |expected: String, got: String| Error::Mismatch {
            what: "stored Hessian",
            expected,
            got,
        };
        let rows = self.staged.len() / n;
        let triangle = n * (n + 1) / 2;
        if !(self.upper.is_empty() || self.upper.len() == triangle) {
            return Err(mismatch(
                format!("a triangle of {triangle} values"),
                format!("{} values", self.upper.len()),
            ));
        }
        if !self.staged.len().is_multiple_of(n) || rows >= ROWS || self.tokens < rows as u64 {
            return Err(mismatch(
                format!(
                    "less than {ROWS} rows of {n} values, of {} tokens",
                    self.tokens
                ),
                format!("{} values", self.staged.len()),
            ));
        }
        if self.upper.is_empty() != (self.tokens == 0) {
            return Err(mismatch(
                "a triangle if there are tokens".into(),
                format!("{} values of {} tokens", self.upper.len(), self.tokens),
            ));
        }
        hessian.staged = Array2::from_shape_vec((rows, n), self.staged).map_err(Error::other)?;
        check_finite("stored rows", &hessian.staged)?;
        if self.tokens > 0 {
            let mut sum = Upper::zeros(n)?;
            let mut values = self.upper.into_iter();
            for row in 0..n {
                for (column, value) in (row..n).zip(&mut values) {
                    *sum.at_mut(row, column) = value;
                    // The lower half of a tile on the diagonal is there as well.
                    if column < (row / TILE + 1) * TILE {
                        *sum.mirror_mut(row, column) = value;
                    }
                }
            }
            check_moments(&sum)?;
            hessian.sum = Some(sum);
        }
        hessian.tokens = self.tokens;
        Ok(hessian)
    }
}

/// Squares are not negative, and no product is greater than those of the two columns' own.
fn check_moments(sum: &Upper) -> Result<()> {
    let diagonal = sum.diagonal();
    let bound = 1.0 + 1e-3;
    for row in 0..sum.columns() {
        for column in row..sum.columns() {
            let value = sum.symmetric(row, column);
            let (a, b) = (diagonal[row], diagonal[column]);
            let possible = a >= 0.0 && b >= 0.0 && value.abs() <= bound * a.sqrt() * b.sqrt();
            if !(possible && value.is_finite()) {
                return Err(Error::Mismatch {
                    what: "stored Hessian",
                    expected: "sums of products that inputs can have".into(),
                    got: format!("{value} at [{row}, {column}] beside {a} and {b}"),
                });
            }
        }
    }
    Ok(())
}
