//! The trained network as packed integers, without candle.

use candle_nn::Conv2dConfig;
use lowbit::{Activations, PackedLinear, Result, candle::FakeQuantLayer};
use ndarray::{Array2, Array4, ArrayD, Axis, IxDyn, s};

use crate::network::Network;

/// Each layer's packed weights, with the parameters of its input.
pub struct PackedNetwork {
    convolutions: Vec<(PackedLinear, Conv2dConfig)>,
    last: PackedLinear,
    pub bytes: usize,
}

impl PackedNetwork {
    /// Converts what training computed with; nothing is calibrated or rounded anew.
    pub fn new(network: &Network) -> candle_core::Result<Self> {
        let mut bytes = 0;
        let mut convolutions = vec![];
        for layer in &network.convolutions {
            bytes += layer.convert()?.memory_bytes();
            let packed = with_input(layer.pack()?, layer.input_fake())?;
            convolutions.push((packed, *layer.config()));
        }
        bytes += network.last.convert()?.memory_bytes();
        Ok(Self {
            convolutions,
            last: with_input(network.last.pack()?, network.last.input_fake())?,
            bytes,
        })
    }

    /// The label that each image gets, a row of 64 pixels.
    pub fn predict(&self, images: &Array2<f32>) -> Result<Vec<usize>> {
        let count = images.nrows();
        let mut x = Array4::from_shape_fn((count, 1, 8, 8), |(i, _, y, x)| images[[i, 8 * y + x]]);
        for (packed, config) in &self.convolutions {
            // Patches become 8-bit codes, products are exact 32-bit sums, outputs floats.
            let y = packed.forward(&patches(&x, config))?.mapv(|v| v.max(0.0));
            let size = (x.dim().2 - 1) / config.stride + 1;
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

fn with_input(
    packed: PackedLinear,
    fake: Option<&FakeQuantLayer>,
) -> candle_core::Result<PackedLinear> {
    let Some(fake) = fake else { return Ok(packed) };
    // One range for the whole input, whatever its shape.
    let any = ArrayD::zeros(IxDyn(&[0, 1]));
    let input = fake.update(|fake| fake.affine_view(any.view()))?;
    Ok(packed.with_activations(Activations::Static(input))?)
}

/// What a 3×3 kernel with padding 1 sees, a row for each position: `[images · positions, in · 9]`.
fn patches(images: &Array4<f32>, config: &Conv2dConfig) -> Array2<f32> {
    let (count, channels, size, _) = images.dim();
    let mut padded = Array4::zeros((count, channels, size + 2, size + 2));
    padded
        .slice_mut(s![.., .., 1..=size, 1..=size])
        .assign(images);
    let width = (size - 1) / config.stride + 1;
    Array2::from_shape_fn((count * width * width, channels * 9), |(row, tap)| {
        let (image, y, x) = (row / (width * width), row / width % width, row % width);
        let (channel, dy, dx) = (tap / 9, tap / 3 % 3, tap % 3);
        padded[[
            image,
            channel,
            y * config.stride + dy,
            x * config.stride + dx,
        ]]
    })
}
