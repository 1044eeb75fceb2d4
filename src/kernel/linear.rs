//! A linear layer of packed weights.

use std::sync::Arc;

use super::{
    Activations,
    arch::Kernel,
    checks::check_depth,
    dispatch::{Visit, with_kernel},
    layer::Layer,
    weights::Weights,
};
use crate::{
    error::{Error, Result},
    simd::Isa,
    tensor::QTensor,
};

/// A linear layer, `x · wᵀ + bias`, of weights packed for the instruction set they run on.
///
/// | activations | computed |
/// |---|---|
/// | floats (the default, "weight-only") | weights become floats in registers and caches; float sums in the order of the inputs |
/// | [static or dynamic](Activations) codes | exact 32-bit sums of products of codes in each group, times the scales, added in floats in the order of the groups |
///
/// Codes of weights have 1 to 8 bits and take as many in the packed form (groups of a length that is
/// not a multiple of 32 are filled up to one). Scales are per tensor, per output, or per group or
/// block along the inputs. The outputs have the same bits on any number of threads, whatever the
/// number of rows; with integer sums on any instruction set too.
///
/// ```
/// use lowbit::{Activations, PackedLinear, QuantizerExt, RoundToNearest, Scheme};
/// use ndarray::{Array2, array};
///
/// let weights = array![[1.0_f32, -2.0, 3.0], [-7.0, 0.5, 3.5]]; // [out, in]
/// let quantized = RoundToNearest::new(Scheme::int(4).per_axis(0).build()?).quantize(&weights)?;
///
/// // weight-only
/// let layer = PackedLinear::pack(&quantized, Some(&[0.5, 0.0]))?;
/// let x = array![[1.0_f32, 0.0, -1.0], [0.5, 0.5, 0.5]];
/// let y: Array2<f32> = layer.forward(&x)?;
/// assert_eq!(y.dim(), (2, 2));
///
/// // activations quantized "per token", integer sums
/// let layer = layer.with_activations(Activations::Dynamic(Scheme::int(8).per_row().build()?))?;
/// let integer = layer.forward(&x)?;
/// assert!((&integer - &y).iter().all(|difference| difference.abs() < 0.05));
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct PackedLinear {
    pub(super) weights: Arc<dyn Layer>,
    pub(super) bias: Option<Arc<[f32]>>,
    isa: Isa,
    pub(super) quantized: Option<Arc<QuantizedInput>>,
    pub(super) clamp: Option<(f32, f32)>,
    /// The most that are used.
    pub(super) threads: usize,
}

/// What quantized activations need.
#[derive(Debug)]
pub(super) struct QuantizedInput {
    pub(super) activations: Activations,
    /// Those of [`Layer::sums_of_codes`].
    pub(super) code_sums: Vec<i32>,
    /// Those of [`Layer::column_scales`].
    pub(super) column_scales: Vec<f32>,
}

struct Pack<'a>(&'a QTensor);

impl Visit for Pack<'_> {
    type Output = Arc<dyn Layer>;

    fn visit<K: Kernel>(self, kernel: K) -> Result<Self::Output> {
        Ok(Arc::new(Weights::pack(kernel, self.0)?))
    }
}

impl PackedLinear {
    /// Packs weights `[out, in]`, and a bias of `out` values, for the instruction set that
    /// [`Isa::selected`] gives.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a tensor that has not two axes, for 16-bit codes, for scales that
    /// change from one input to the next, and for small floats that are infinite or NaN;
    /// [`Error::ShapeMismatch`] or [`Error::NonFinite`] for a bias of another length or with a value
    /// that is not finite; [`Error::TooLarge`] if there is no memory.
    pub fn pack(weights: &QTensor, bias: Option<&[f32]>) -> Result<Self> {
        Self::pack_for(Isa::selected()?, weights, bias)
    }

    /// [`pack`](Self::pack) for a given instruction set.
    ///
    /// # Errors
    /// Those of [`pack`](Self::pack), and [`Error::MissingIsa`] if the machine lacks it.
    ///
    /// ```
    /// use lowbit::{Affine, Isa, PackedLinear, QTensor, Scheme};
    /// use ndarray::array;
    ///
    /// let affine = Affine::per_tensor(Scheme::int(8).build()?, 0.5, 0.0)?;
    /// let weights = QTensor::quantize(&array![[1.0_f32, -2.0]], &affine)?;
    /// for &isa in Isa::available() {
    ///     let layer = PackedLinear::pack_for(isa, &weights, None)?;
    ///     assert_eq!(layer.forward(&array![3.0_f32, 1.0])?, array![1.0]);
    /// }
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn pack_for(isa: Isa, weights: &QTensor, bias: Option<&[f32]>) -> Result<Self> {
        let weights = with_kernel(isa, weights.scheme().bits(), Pack(weights))?;
        if let Some(bias) = bias {
            let outputs = weights.layout().columns;
            if bias.len() != outputs {
                return Err(Error::ShapeMismatch {
                    what: "bias",
                    expected: vec![outputs],
                    got: vec![bias.len()],
                });
            }
            if let Some(index) = bias.iter().position(|value| !value.is_finite()) {
                return Err(Error::NonFinite {
                    what: "bias",
                    expected: "finite numbers",
                    position: vec![index],
                    value: bias[index].into(),
                });
            }
        }
        Ok(Self {
            weights,
            bias: bias.map(Arc::from),
            isa,
            quantized: None,
            clamp: None,
            threads: usize::MAX,
        })
    }

    /// The layer with activations that are quantized before the product; it shares the packed
    /// weights.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for weights of small floats, and for activations that are not integers
    /// of at most 8 bits, with an integer zero point, per tensor, or per row at run time;
    /// [`Error::DepthOverflow`] if a sum over a group could exceed 32 bits.
    pub fn with_activations(self, activations: Activations) -> Result<Self> {
        activations.check()?;
        let layout = self.weights.layout();
        if !self.weights.has_integer_codes() {
            return Err(Error::Unsupported {
                operation: "integer products",
                expected: "weights of integers",
                got: "weights of small floats".into(),
            });
        }
        let reach = self.weights.reach().unwrap_or(u32::from(u8::MAX));
        check_depth(layout.group.min(layout.depth), reach, activations.reach())?;
        Ok(Self {
            quantized: Some(Arc::new(QuantizedInput {
                activations,
                code_sums: self.weights.sums_of_codes(),
                column_scales: self.weights.column_scales(),
            })),
            ..self
        })
    }

    /// The layer with outputs clamped to `min ..= max`, in real units, after the bias: a rectifier is
    /// `0.0 ..= f32::INFINITY`. NaN stays NaN.
    ///
    /// # Errors
    /// [`Error::InvalidRange`] unless `min <= max`.
    ///
    /// ```
    /// use lowbit::{Affine, PackedLinear, QTensor, Scheme};
    /// use ndarray::array;
    ///
    /// let affine = Affine::per_tensor(Scheme::int(8).build()?, 1.0, 0.0)?;
    /// let weights = QTensor::quantize(&array![[1.0_f32, -2.0], [5.0, 5.0]], &affine)?;
    /// let relu6 = PackedLinear::pack(&weights, None)?.with_clamp(0.0, 6.0)?;
    /// assert_eq!(relu6.forward(&array![1.0_f32, 1.0])?, array![0.0, 6.0]);
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn with_clamp(self, min: f32, max: f32) -> Result<Self> {
        if min <= max {
            Ok(Self {
                clamp: Some((min, max)),
                ..self
            })
        } else {
            Err(Error::InvalidRange { index: 0, min, max })
        }
    }

    /// The layer with products on at most so many threads (of the caller's rayon pool, if it calls
    /// from within one, else of the global one); with one, on the calling thread alone. The results
    /// have the same bits on any number.
    ///
    /// Small products stay on one thread whatever this says. Without it, all threads are used.
    #[must_use]
    pub fn with_threads(self, most: usize) -> Self {
        Self {
            threads: most.max(1),
            ..self
        }
    }

    /// Outputs and inputs of the layer.
    #[must_use]
    pub fn dim(&self) -> (usize, usize) {
        let layout = self.weights.layout();
        (layout.columns, layout.depth)
    }

    /// The instruction set that the weights are packed for.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The name of the kernel: instruction set, and types of activations, weights and sums.
    #[must_use]
    pub fn kernel(&self) -> &'static str {
        self.weights.kernel()
    }

    /// Bytes that packed codes, scales, zero points, their sums and the bias take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        let of_input = |q: &Arc<QuantizedInput>| 4 * (q.code_sums.len() + q.column_scales.len());
        let sums = self.quantized.as_ref().map_or(0, of_input);
        let bias = self.bias.as_ref().map_or(0, |bias| 4 * bias.len());
        self.weights.memory_bytes() + sums + bias
    }
}
