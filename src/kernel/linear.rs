//! A linear layer of packed weights.

use std::sync::Arc;

use ndarray::{Array, ArrayRef, Dimension};

use super::{
    Activation, Activations, Requantization,
    activations::integer_zeros,
    arch::Kernel,
    checks::{check_codes, check_depth, matrix},
    dispatch::{Visit, with_kernel},
    input::Input,
    layer::{CodeView, Layer, Quantized},
    requantization::{Arithmetic, FixedPoint},
    weights::Weights,
};
use crate::{
    affine::{fits, quantize},
    element::{Code, Element},
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
    weights: Arc<dyn Layer>,
    bias: Option<Arc<[f32]>>,
    isa: Isa,
    quantized: Option<Arc<QuantizedInput>>,
}

/// What quantized activations need.
#[derive(Debug)]
struct QuantizedInput {
    activations: Activations,
    code_sums: Vec<i32>,
}

impl QuantizedInput {
    fn operand<'a>(
        &'a self,
        codes: CodeView<'a>,
        zero: &'a [i32],
        scale: &'a [f32],
    ) -> Quantized<'a> {
        Quantized {
            codes,
            zero,
            scale,
            code_sums: &self.code_sums,
        }
    }
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
            })),
            ..self
        })
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
        let sums = self.quantized.as_ref().map_or(0, |q| 4 * q.code_sums.len());
        let bias = self.bias.as_ref().map_or(0, |bias| 4 * bias.len());
        self.weights.memory_bytes() + sums + bias
    }

    /// `x · wᵀ + bias` for activations `[…, in]`: floats, or codes under the parameters of static
    /// activations. Returns `[…, out]`, in the float type of the input (`f32` for codes).
    ///
    /// Float activations may be anything in a weight-only layer, where NaN and infinity propagate.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the last axis is not the inputs; [`Error::NonFinite`] for a NaN
    /// that is to be quantized, or an infinity that would choose a range; [`Error::Unsupported`] for
    /// codes in a layer without static activations; [`Error::CodeType`] for codes of the wrong
    /// signedness.
    pub fn forward<A: Activation, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
    ) -> Result<Array<A::Output, D>> {
        let floats = self.floats(A::input(x.view().into_dyn()))?;
        let converted = floats.into_iter().map(A::Output::from_real).collect();
        self.shaped(x, converted)
    }

    /// The output as codes for the next layer, `[…, in]` to `[…, out]`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward); [`Error::CodeType`] if `C` does not hold the codes;
    /// in fixed point [`Error::Unsupported`] unless activations are static and weights have one scale
    /// and an integer zero point an output, and [`Error::InvalidOption`] for a multiplier out of
    /// range.
    ///
    /// ```
    /// use lowbit::{Activations, Affine, PackedLinear, QTensor, Requantization, Scheme, quantize};
    /// use ndarray::array;
    ///
    /// let codes = Scheme::int(8).unsigned().asymmetric().build()?;
    /// let affine = Affine::per_tensor(Scheme::int(8).build()?, 0.5, 0.0)?;
    /// let weights = QTensor::quantize(&array![[1.0_f32, -2.0]], &affine)?;
    /// let input = Affine::per_tensor(codes, 0.25, 10.0)?;
    /// let layer =
    ///     PackedLinear::pack(&weights, None)?.with_activations(Activations::Static(input.clone()))?;
    ///
    /// let x = quantize::<_, u8, _>(&array![[3.0_f32, 1.0]], &input)?;
    /// let output = Requantization::float(Affine::per_tensor(codes, 0.125, 100.0)?)?;
    /// assert_eq!(layer.forward_requantized::<_, u8, _>(&x, &output)?, array![[108]]); // 1.0
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn forward_requantized<A: Activation, C: Code, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
        requantization: &Requantization,
    ) -> Result<Array<C, D>> {
        let output = &requantization.output;
        fits::<C>(output.scheme())?;
        let codes = match requantization.arithmetic {
            Arithmetic::Float => {
                let floats = self.floats(A::input(x.view().into_dyn()))?;
                quantize(&Array::from_vec(floats), output)?
                    .into_raw_vec_and_offset()
                    .0
            }
            Arithmetic::FixedPoint => {
                let Some(Activations::Static(input)) = self.activations() else {
                    return Err(Error::Unsupported {
                        operation: "requantization in fixed point",
                        expected: "static activations",
                        got: format!("{:?}", self.activations()),
                    });
                };
                let bias = self.bias.as_deref();
                let scales = self.weights.column_scales();
                let stage = FixedPoint::new(output, input.scale()[0], &scales, bias)?;
                let sums = self.sums(A::input(x.view().into_dyn()))?;
                let columns = self.dim().0;
                let code = |(index, &sum)| C::truncate(stage.code(index % columns, sum));
                sums.iter().enumerate().map(code).collect()
            }
        };
        self.shaped(x, codes)
    }

    /// The exact sums `Σ (x − x zero) (w − w zero)`, without scales and bias, `[…, in]` to `[…, out]`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward); [`Error::Unsupported`] without quantized activations, and
    /// for weights with more than one scale, or a real zero point, for an output.
    pub fn accumulate<A: Activation, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
    ) -> Result<Array<i32, D>> {
        let sums = self.sums(A::input(x.view().into_dyn()))?;
        self.shaped(x, sums)
    }

    fn activations(&self) -> Option<&Activations> {
        self.quantized
            .as_ref()
            .map(|quantized| &quantized.activations)
    }

    /// The float outputs, in row-major order.
    fn floats(&self, input: Input<'_>) -> Result<Vec<f32>> {
        let rows = self.rows(input.shape())?;
        let mut out = vec![0.0; rows * self.dim().0];
        let bias = self.bias.as_deref();
        match (&self.quantized, input) {
            (None, Input::Floats(x)) => {
                let standard = x.as_standard_layout();
                let x = standard.as_slice().unwrap_or_default();
                self.weights.float(x, rows, bias, &mut out);
            }
            (_, input) => {
                self.with_codes(input, rows, |x| self.weights.scaled(x, bias, &mut out))?
            }
        }
        Ok(out)
    }

    /// The exact sums, in row-major order.
    fn sums(&self, input: Input<'_>) -> Result<Vec<i32>> {
        let layout = self.weights.layout();
        if self.weights.reach().is_none() || layout.groups() > 1 {
            return Err(Error::Unsupported {
                operation: "exact sums",
                expected: "weights with one scale and an integer zero point an output",
                got: format!("{} scales an output, or a real zero point", layout.groups()),
            });
        }
        let rows = self.rows(input.shape())?;
        let mut out = vec![0; rows * layout.columns];
        self.with_codes(input, rows, |x| self.weights.exact(x, &mut out))?;
        Ok(out)
    }

    /// Calls `work` with the codes of the activations.
    fn with_codes(
        &self,
        input: Input<'_>,
        rows: usize,
        work: impl FnOnce(Quantized<'_>),
    ) -> Result<()> {
        let Some(quantized) = &self.quantized else {
            return Err(Error::Unsupported {
                operation: "a product of integers",
                expected: "a layer with static or dynamic activations",
                got: "a weight-only layer".into(),
            });
        };
        let shape = (rows, self.dim().1);
        match (input, &quantized.activations) {
            (Input::Floats(x), activations) => {
                let codes = activations.quantize(matrix(&x.as_standard_layout(), shape)?)?;
                work(quantized.operand(codes.view(), &codes.zero, &codes.scale));
            }
            (Input::Signed(x), Activations::Static(affine)) => {
                check_codes(&x, affine.scheme())?;
                let x = x.as_standard_layout();
                let (zero, scale) = (integer_zeros(affine), affine.scale());
                work(quantized.operand(CodeView::Signed(matrix(&x, shape)?), &zero, scale));
            }
            (Input::Unsigned(x), Activations::Static(affine)) => {
                check_codes(&x, affine.scheme())?;
                let x = x.as_standard_layout();
                let (zero, scale) = (integer_zeros(affine), affine.scale());
                work(quantized.operand(CodeView::Unsigned(matrix(&x, shape)?), &zero, scale));
            }
            (_, Activations::Dynamic(_)) => {
                return Err(Error::Unsupported {
                    operation: "a product of codes",
                    expected: "a layer with static activations, whose parameters the codes have",
                    got: "dynamic activations, which are chosen from floats".into(),
                });
            }
        }
        Ok(())
    }

    /// The rows of `[…, in]`.
    fn rows(&self, shape: &[usize]) -> Result<usize> {
        let inputs = self.dim().1;
        match shape.split_last() {
            Some((&last, rest)) if last == inputs => Ok(rest.iter().product()),
            _ => {
                let mut expected = shape.to_vec();
                expected.pop();
                expected.push(inputs);
                Err(Error::ShapeMismatch {
                    what: "activations",
                    expected,
                    got: shape.to_vec(),
                })
            }
        }
    }

    /// Outputs in row-major order, in the shape of the input with another last axis.
    fn shaped<A, T, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
        values: Vec<T>,
    ) -> Result<Array<T, D>> {
        let mut shape = x.raw_dim();
        if let Some(last) = shape.slice_mut().last_mut() {
            *last = self.dim().0;
        }
        Array::from_shape_vec(shape, values).map_err(Error::other)
    }
}
