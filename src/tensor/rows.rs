//! Cutting rows out of a quantized tensor.

use std::ops::Range;

use super::QTensor;
use crate::{
    error::{Error, Result},
    scheme::Granularity,
};

impl QTensor {
    /// The indices `rows` along the first axis, with the parameters they use.
    ///
    /// # Errors
    /// [`Error::NoSuchAxis`] for a tensor of no axes; [`Error::InvalidOption`] if the rows are not
    /// all there, or if they cut a group or block that lies across the first axis.
    ///
    /// ```
    /// use lowbit::{Affine, QTensor, Scheme};
    /// use ndarray::array;
    ///
    /// let affine = Affine::symmetric(Scheme::int(4).per_axis(0).build()?, &[2], vec![1.0, 0.5])?;
    /// let tensor = QTensor::quantize(&array![[1.0_f32, 2.0], [1.5, -0.5]], &affine)?;
    /// assert_eq!(tensor.rows(1..2)?.dequantize::<f32>(), array![[1.5, -0.5]].into_dyn());
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn rows(&self, rows: Range<usize>) -> Result<Self> {
        let Some(&height) = self.shape.first() else {
            return Err(Error::NoSuchAxis {
                axis: 0,
                dimensions: 0,
            });
        };
        if rows.start > rows.end || rows.end > height {
            return Err(Error::option(
                "rows",
                format!("a range within 0..{height}"),
                format!("{rows:?}"),
            ));
        }
        let parameters = match self.rows_of_a_parameter() {
            None => None,
            Some(size) => {
                let aligned = |row: usize| row.is_multiple_of(size) || row == height;
                if rows.start < rows.end && !(aligned(rows.start) && aligned(rows.end)) {
                    return Err(Error::option(
                        "rows",
                        format!("whole groups of {size} along the first axis"),
                        format!("{rows:?}"),
                    ));
                }
                let start = rows.start / size;
                Some(start..start + rows.len().div_ceil(size))
            }
        };
        let width: usize = self.shape[1..].iter().product();
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let codes = self.codes.slice(rows.start * width, rows.end * width)?;
        let mut part = Self {
            shape,
            scheme: self.scheme,
            parameter_shape: self.parameter_shape.clone(),
            scale: self.scale.clone(),
            zero_point: self.zero_point.clone(),
            codes,
        };
        if let Some(parameters) = parameters {
            part.parameter_shape[0] = parameters.len();
            let row: usize = self.parameter_shape[1..].iter().product();
            let range = parameters.start * row..parameters.end * row;
            part.scale = self.scale.slice(range.clone());
            part.zero_point = self.zero_point.slice(range)?;
        }
        Ok(part)
    }

    /// Rows that share parameters along the first axis; `None` if all rows use the same ones.
    fn rows_of_a_parameter(&self) -> Option<usize> {
        let axes = self.shape.len();
        match self.scheme.granularity() {
            Granularity::PerTensor => None,
            Granularity::PerAxis(axis) => (axis == 0).then_some(1),
            Granularity::PerRow => (axes > 1).then_some(1),
            Granularity::PerGroup(size) => Some(if axes == 1 { size } else { 1 }),
            Granularity::PerGroupAlong { axis, size } => Some(if axis == 0 { size } else { 1 }),
            Granularity::PerBlock { rows, .. } => Some(if axes == 2 { rows } else { 1 }),
        }
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{ArrayD, Axis, Slice};

    use crate::{Affine, Granularity, Groups, QTensor, Scheme};

    #[test]
    fn rows_of_the_tensor_are_the_tensor_of_the_rows() {
        let x = ArrayD::from_shape_fn(vec![4, 3, 5], |at| (at[0] * 15 + at[1] * 5 + at[2]) as f32);
        for granularity in [
            Granularity::PerTensor,
            Granularity::PerAxis(0),
            Granularity::PerAxis(1),
            Granularity::PerAxis(2),
            Granularity::PerRow,
            Granularity::PerGroup(2),
            Granularity::PerGroupAlong { axis: 0, size: 2 },
            Granularity::PerGroupAlong { axis: 1, size: 2 },
            Granularity::PerBlock {
                rows: 2,
                columns: 2,
            },
        ] {
            let scheme = Scheme::int(3)
                .unsigned()
                .asymmetric()
                .granularity(granularity);
            let scheme = scheme.build().unwrap();
            let groups = Groups::new(x.shape(), granularity).unwrap();
            let n = groups.parameters();
            let scale = (0..n).map(|i| 1.0 + i as f32).collect();
            let zero_point = (0..n).map(|i| (i % 8) as f32).collect();
            let affine = Affine::new(scheme, &groups.parameter_shape(), scale, zero_point).unwrap();
            let tensor = QTensor::quantize(&x, &affine).unwrap();
            let whole: ArrayD<f32> = tensor.dequantize();
            for (start, end) in [(0, 4), (0, 2), (2, 4), (2, 2), (1, 2), (1, 4)] {
                let part = tensor.rows(start..end);
                let cuts_a_group =
                    matches!(granularity, Granularity::PerGroupAlong { axis: 0, .. })
                        && start % 2 == 1;
                assert_eq!(part.is_err(), cuts_a_group);
                if let Ok(part) = part {
                    let expected = whole.slice_axis(Axis(0), Slice::from(start..end));
                    assert_eq!(
                        part.dequantize::<f32>(),
                        expected,
                        "{granularity:?} {start}..{end}"
                    );
                }
            }
            assert!(tensor.rows(3..5).is_err());
            #[expect(clippy::reversed_empty_ranges, reason = "a bad range is the test")]
            let reversed = tensor.rows(3..2);
            assert!(reversed.is_err());
        }
    }
}
