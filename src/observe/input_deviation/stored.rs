//! A deviation in a file, checked when read.

use ndarray::Array2;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeStruct};

use super::{Hessian, InputDeviation};
use crate::{
    error::{Error, Result},
    observe::products::{ROWS, check_finite},
};

impl Serialize for InputDeviation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let values = |rows: &Array2<f32>| rows.as_slice().unwrap_or_default().to_vec();
        let sum = self.sum.as_ref().and_then(|sum| sum.as_slice());
        let mut state = serializer.serialize_struct("InputDeviation", 4)?;
        state.serialize_field("hessian", &self.hessian)?;
        state.serialize_field("cross", sum.unwrap_or_default())?;
        state.serialize_field("staged", &values(&self.staged))?;
        state.serialize_field("staged_inputs", &values(&self.staged_inputs))?;
        state.end()
    }
}

/// What a stored deviation says of itself, before it is believed.
#[derive(Deserialize)]
#[serde(rename = "InputDeviation")]
struct Unchecked {
    hessian: Hessian,
    cross: Vec<f64>,
    staged: Vec<f32>,
    staged_inputs: Vec<f32>,
}

impl<'de> Deserialize<'de> for InputDeviation {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let stored = Unchecked::deserialize(deserializer)?;
        stored.check().map_err(serde::de::Error::custom)
    }
}

impl Unchecked {
    fn check(self) -> Result<InputDeviation> {
        let n = self.hessian.columns();
        let is_seen = self.hessian.tokens() > 0;
        let rows = self.staged.len() / n;
        let expected = if is_seen { n * n } else { 0 };
        let fits = self.cross.len() == expected
            && self.staged.len() == rows * n
            && self.staged_inputs.len() == rows * n
            && rows < ROWS
            && (is_seen || rows == 0);
        if !fits {
            return Err(Error::Mismatch {
                what: "stored deviation",
                expected: format!("{expected} products, and rows of {n} twice"),
                got: format!(
                    "{} products, and {} and {} values",
                    self.cross.len(),
                    self.staged.len(),
                    self.staged_inputs.len()
                ),
            });
        }
        if let Some(index) = self.cross.iter().position(|value| !value.is_finite()) {
            return Err(Error::NonFinite {
                what: "stored deviation",
                expected: "finite numbers",
                position: vec![index / n, index % n],
                value: self.cross[index],
            });
        }
        let rows_of = |values| Array2::from_shape_vec((rows, n), values).map_err(Error::other);
        let (staged, staged_inputs) = (rows_of(self.staged)?, rows_of(self.staged_inputs)?);
        check_finite("stored rows", &staged)?;
        check_finite("stored rows", &staged_inputs)?;
        let sum = is_seen.then(|| Array2::from_shape_vec((n, n), self.cross));
        Ok(InputDeviation {
            sum: sum.transpose().map_err(Error::other)?,
            hessian: self.hessian,
            staged,
            staged_inputs,
        })
    }
}
