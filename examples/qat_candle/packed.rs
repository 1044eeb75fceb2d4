//! A trained network as packed integers, without a framework.

use lowbit::{Activations, Affine, PackedLinear, Result};
use ndarray::{Array2, Array4, Axis, s};

/// Each layer's packed weights, with the parameters of its input.
pub struct PackedNetwork {
    pub convolutions: Vec<Convolution>,
    pub last: PackedLinear,
    pub bytes: usize,
}

/// A convolution with a 3×3 kernel and padding 1, followed by a rectifier.
pub struct Convolution {
    pub packed: PackedLinear,
    pub stride: usize,
}

impl PackedNetwork {
    /// The label that each image gets, a row of 64 pixels.
    pub fn predict(&self, images: &Array2<f32>) -> Result<Vec<usize>> {
        let count = images.nrows();
        let mut x = Array4::from_shape_fn((count, 1, 8, 8), |(i, _, y, x)| images[[i, 8 * y + x]]);
        for Convolution { packed, stride } in &self.convolutions {
            // Patches become 8-bit codes, products are exact 32-bit sums, outputs floats.
            let y = packed.forward(&patches(&x, *stride))?.mapv(|v| v.max(0.0));
            let size = (x.dim().2 - 1) / stride + 1;
            let shape = (count, size, size, y.ncols());
            let y = y.into_shape_with_order(shape).expect("as many");
            x = y.permuted_axes([0, 3, 1, 2]);
        }
        let features: Vec<f32> = x.iter().copied().collect();
        let features = Array2::from_shape_vec((count, 256), features).expect("as many");
        let y = self.last.forward(&features)?;
        let best = |row: ndarray::ArrayView1<'_, f32>| {
            let labels = row.iter().enumerate();
            labels
                .max_by(|a, b| a.1.total_cmp(b.1))
                .map_or(0, |(label, _)| label)
        };
        Ok(y.axis_iter(Axis(0)).map(best).collect())
    }
}

/// With 8-bit inputs by these parameters, if there are any.
pub fn with_input(packed: PackedLinear, input: Option<Affine>) -> Result<PackedLinear> {
    match input {
        None => Ok(packed),
        Some(input) => packed.with_activations(Activations::Static(input)),
    }
}

/// What a 3×3 kernel with padding 1 sees, a row for each position: `[images · positions, in · 9]`.
fn patches(images: &Array4<f32>, stride: usize) -> Array2<f32> {
    let (count, channels, size, _) = images.dim();
    let mut padded = Array4::zeros((count, channels, size + 2, size + 2));
    padded
        .slice_mut(s![.., .., 1..=size, 1..=size])
        .assign(images);
    let width = (size - 1) / stride + 1;
    Array2::from_shape_fn((count * width * width, channels * 9), |(row, tap)| {
        let (image, y, x) = (row / (width * width), row / width % width, row % width);
        let (channel, dy, dx) = (tap / 9, tap / 3 % 3, tap % 3);
        padded[[image, channel, y * stride + dy, x * stride + dx]]
    })
}
