//! What a Llama has beside its linear layers, and stays in floats: embedding, head and norms.

use ndarray::{Array1, Array2};

use super::Llama;

/// The gains of a block's norms, or their gradients.
pub type Norms = [Array1<f32>; 2];

/// Gradients of embedding, head and norms.
#[derive(Debug, Clone)]
pub struct Rest {
    pub(super) embedding: Array2<f32>,
    /// None if the head is the embedding.
    pub(super) head: Option<Array2<f32>>,
    pub(super) norm: Array1<f32>,
    /// Those of each block.
    pub norms: Vec<Norms>,
}

impl Rest {
    /// Zeros, for this model.
    pub fn zeros(model: &Llama) -> Self {
        let zeros = |norm: &Array1<f32>| Array1::zeros(norm.len());
        let blocks = model.blocks.iter();
        Self {
            embedding: Array2::zeros(model.embedding.dim()),
            head: model.head.as_ref().map(|head| Array2::zeros(head.dim())),
            norm: zeros(&model.norm),
            norms: blocks
                .map(|block| block.norms.each_ref().map(zeros))
                .collect(),
        }
    }

    /// All of them, in the order of [`Llama::rest_mut`].
    pub fn iter(&self) -> impl Iterator<Item = &f32> {
        let matrices = self.embedding.iter().chain(self.head.iter().flatten());
        let norms = self.norms.iter().flatten().flatten();
        matrices.chain(&self.norm).chain(norms)
    }

    /// As [`iter`](Self::iter).
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        let head = self.head.iter_mut().flatten();
        let norms = self.norms.iter_mut().flatten().flatten();
        self.embedding
            .iter_mut()
            .chain(head)
            .chain(&mut self.norm)
            .chain(norms)
    }
}

impl Llama {
    /// Embedding, head and norms.
    pub fn rest_mut(&mut self) -> impl Iterator<Item = &mut f32> {
        let head = self.head.iter_mut().flatten();
        let norms = self
            .blocks
            .iter_mut()
            .flat_map(|block| block.norms.iter_mut().flatten());
        self.embedding
            .iter_mut()
            .chain(head)
            .chain(&mut self.norm)
            .chain(norms)
    }
}
