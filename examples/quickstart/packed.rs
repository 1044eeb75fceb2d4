//! The trained network as packed integers.

use lowbit::{Activations, Affine, PackedLinear, QTensor, Result, prelude::*};
use ndarray::Array2;

use crate::network::{Network, labels};

/// The network as integers: each layer's packed weights, with the parameters of its input.
pub struct PackedNetwork<'a, F> {
    network: &'a Network<F>,
    layers: Vec<PackedLinear>,
    pub bytes: usize,
}

impl<'a, F: FakeQuant> PackedNetwork<'a, F> {
    /// Converts what training computed with; nothing is calibrated or rounded anew.
    pub fn new(network: &'a Network<F>) -> Result<Self> {
        let (mut layers, mut bytes) = (Vec::new(), 0);
        for layer in &network.0 {
            let Some(fake) = &layer.fake else { continue };
            let weights: QTensor = fake.weights.convert(&layer.weights)?;
            // One range for the whole input, whatever its shape.
            let input: Affine = fake
                .input
                .affine_view(Array2::zeros((0, 1)).view().into_dyn())?;
            bytes += weights.memory_bytes() + 4 * layer.bias.len();
            let packed = PackedLinear::pack(&weights, layer.bias.as_slice())?;
            layers.push(packed.with_activations(Activations::Static(input))?);
        }
        Ok(Self {
            network,
            layers,
            bytes,
        })
    }

    pub fn predict(&self, images: &Array2<f32>) -> Result<Vec<usize>> {
        let mut x = images.clone();
        for (layer, packed) in self.network.0.iter().zip(&self.layers) {
            // Patches become 8-bit codes, products are exact 32-bit sums, outputs floats.
            x = layer.finish(packed.forward(&layer.patches(&x))?);
        }
        Ok(labels(&x))
    }
}
