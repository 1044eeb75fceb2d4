//! Memory that products use and leave behind for the next one.

use std::fmt::Debug;

use super::{aligned::Aligned, operand::Operand, requantization::FixedPoint};

/// What products of packed layers need beside their input and output, kept by the caller, so that
/// nothing is allocated call after call.
///
/// It grows with the first calls of a shape and is then reused; one serves any number of layers, one
/// after the other. What it holds between calls means nothing.
///
/// ```
/// use lowbit::{Activations, PackedLinear, RoundToNearest, Scheme, Workspace, prelude::*};
/// use ndarray::Array2;
///
/// let weights = Array2::from_shape_fn((8, 32), |(o, i)| (o as f32 - 3.0) * (i as f32 - 9.0));
/// let quantized = RoundToNearest::new(Scheme::int(4).per_group(16).build()?).quantize(&weights)?;
/// let layer = PackedLinear::pack(&quantized, None)?
///     .with_activations(Activations::Dynamic(Scheme::int(8).per_row().build()?))?;
///
/// let mut workspace = Workspace::new();
/// let mut y = Array2::<f32>::zeros((1, 8));
/// for token in 0..3 {
///     let x = Array2::from_elem((1, 32), token as f32);
///     layer.forward_into(&x, &mut y, &mut workspace)?;
///     assert_eq!(y, layer.forward(&x)?);
/// }
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Workspace {
    pub(super) operand: Operand,
    /// Floats of activations that come as something else.
    pub(super) floats: Vec<f32>,
    pub(super) stage: FixedPoint,
    /// One for each part that may be computed at the same time.
    pub(super) scratch: Vec<Scratch>,
}

impl Workspace {
    /// An empty one, which takes no memory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

/// The memory of one part of a product.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) unpacked: Unpacked,
    /// `[row][column]` of a panel: raw sums, and float sums.
    pub(super) raw: Aligned<i32>,
    pub(super) sums: Aligned<f32>,
    /// Weights as floats, and a block of their codes.
    pub(super) floats: Aligned<f32>,
    pub(super) codes: Aligned<u8>,
}

/// Unpacked weights.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    bytes: Aligned<u8>,
    words: Aligned<i16>,
}

/// A form in which unpacked weights are kept.
pub(super) trait Weight: Copy + Default + Debug + Send + Sync + From<u8> + 'static {
    /// The place of such weights.
    fn place(unpacked: &mut Unpacked) -> &mut Aligned<Self>;
}

impl Weight for u8 {
    fn place(unpacked: &mut Unpacked) -> &mut Aligned<Self> {
        &mut unpacked.bytes
    }
}

impl Weight for i16 {
    fn place(unpacked: &mut Unpacked) -> &mut Aligned<Self> {
        &mut unpacked.words
    }
}
