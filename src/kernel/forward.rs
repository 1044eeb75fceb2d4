//! Products of a packed layer.

use std::borrow::Cow;

use ndarray::{Array, ArrayRef, Dimension};

use super::{
    Activation, Activations, PackedLinear, Requantization, Workspace,
    checks::output_of,
    integer::Target,
    output::{Codes, Epilogue, Exact, FixedCodes, Floats, Sink, ToCodes},
    ready::{Ready, Rows, weight_only},
    requantization::Arithmetic,
    rows::position,
    scratch::Scratch,
    tasks::{Task, over_parts},
};
use crate::{
    affine::{Affine, fits, same_shape},
    element::Code,
    error::{Error, Result},
};

impl PackedLinear {
    /// `x · wᵀ + bias` for activations `[…, in]`: floats, or codes under the parameters of static
    /// activations. Returns `[…, out]`, in the float type of the input (`f32` for codes).
    ///
    /// Float activations may be anything in a weight-only layer, where NaN and infinity propagate.
    ///
    /// # Errors
    /// [`Error::ShapeMismatch`] if the last axis is not the inputs; [`Error::NonFinite`] for a NaN
    /// that is to be quantized, or an infinity that would choose a range; [`Error::Unsupported`] for
    /// codes in a layer without static activations; [`Error::CodeType`] for codes of the wrong
    /// signedness; [`Error::TooLarge`] for more outputs than memory holds, as rows without inputs
    /// may have.
    pub fn forward<A: Activation, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
    ) -> Result<Array<A::Output, D>> {
        let mut out = self.output(x)?;
        self.forward_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`forward`](Self::forward) into an array that is there already, with memory that the caller
    /// keeps: allocates nothing after the first call of a shape, if both arrays lie in row-major
    /// order.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward), and [`Error::ShapeMismatch`] for an output of another
    /// shape. After an error the output is unspecified.
    pub fn forward_into<A: Activation, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
        out: &mut ArrayRef<A::Output, D>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.write(x, out, workspace, |x, out, workspace| {
            self.floats(x, out, workspace)
        })
    }

    /// The output as codes for the next layer, `[…, in]` to `[…, out]`.
    ///
    /// # Errors
    /// Those of [`forward`](Self::forward); [`Error::CodeType`] if `C` does not hold the codes;
    /// [`Error::NonFinite`] for an output that is NaN; in fixed point [`Error::Unsupported`] unless
    /// activations are static and weights have one scale and an integer zero point an output, and
    /// [`Error::InvalidOption`] for a multiplier out of range.
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
        let mut out = self.output(x)?;
        self.forward_requantized_into(x, requantization, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`forward_requantized`](Self::forward_requantized) into an array that is there already, as
    /// [`forward_into`](Self::forward_into).
    ///
    /// # Errors
    /// Those of the two.
    pub fn forward_requantized_into<A: Activation, C: Code, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
        requantization: &Requantization,
        out: &mut ArrayRef<C, D>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        let output = &requantization.output;
        fits::<C>(output.scheme())?;
        self.write(
            x,
            out,
            workspace,
            |x, out, workspace| match requantization.arithmetic {
                Arithmetic::Float => self.codes(x, output, out, workspace),
                Arithmetic::FixedPoint => self.fixed_codes(x, output, out, workspace),
            },
        )
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
        let mut out = self.output(x)?;
        self.accumulate_into(x, &mut out, &mut Workspace::new())?;
        Ok(out)
    }

    /// [`accumulate`](Self::accumulate) into an array that is there already, as
    /// [`forward_into`](Self::forward_into).
    ///
    /// # Errors
    /// Those of the two.
    pub fn accumulate_into<A: Activation, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
        out: &mut ArrayRef<i32, D>,
        workspace: &mut Workspace,
    ) -> Result<()> {
        self.write(x, out, workspace, |x, out, workspace| {
            let ready = self.ready(x, &mut workspace.operand, &mut workspace.floats)?;
            self.exact(ready, x.rows, out, &mut workspace.scratch, Exact)
        })
    }

    fn floats<A: Activation>(
        &self,
        x: Rows<'_, A>,
        out: &mut [A::Output],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let ready = self.ready(x, &mut workspace.operand, &mut workspace.floats)?;
        let epilogue = self.epilogue(ready);
        let scratch = &mut workspace.scratch;
        self.scaled(ready, x.rows, out, scratch, |task| Floats {
            task,
            epilogue,
        });
        Ok(())
    }

    fn codes<A: Activation, C: Code>(
        &self,
        x: Rows<'_, A>,
        output: &Affine,
        out: &mut [C],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let ready = self.ready(x, &mut workspace.operand, &mut workspace.floats)?;
        let epilogue = self.epilogue(ready);
        let width = self.dim().0;
        let (scale, zero) = (output.scale()[0], output.zero_point()[0]);
        let to = ToCodes::new(output.scheme(), scale, zero, width);
        let scratch = &mut workspace.scratch;
        self.scaled(ready, x.rows, out, scratch, |task| Codes {
            task,
            epilogue,
            to: &to,
        });
        match to.found_nan() {
            None => Ok(()),
            Some(at) => Err(Error::NonFinite {
                what: "output to requantize",
                expected: "numbers",
                position: position(x.shape, at / width, at % width),
                value: f64::NAN,
            }),
        }
    }

    fn fixed_codes<A: Activation, C: Code>(
        &self,
        x: Rows<'_, A>,
        output: &Affine,
        out: &mut [C],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (input, column_scales) = match self.quantized.as_deref() {
            Some(quantized) => match &quantized.activations {
                Activations::Static(input) => (input, &quantized.column_scales),
                dynamic @ Activations::Dynamic(_) => {
                    return Err(not_static(format!("{dynamic:?}")));
                }
            },
            None => return Err(not_static("a weight-only layer".into())),
        };
        if self.dim().1 == 0 {
            // Without inputs there are neither sums nor scales: the outputs are the bias alone.
            return self.codes(x, output, out, workspace);
        }
        let epilogue = Epilogue {
            scale: &[],
            bias: self.bias.as_deref(),
            clamp: self.clamp,
        };
        let stage = &mut workspace.stage;
        stage.prepare(output, input.scale()[0], column_scales, &epilogue)?;
        let stage = &*stage;
        let ready = self.ready(x, &mut workspace.operand, &mut workspace.floats)?;
        let scratch = &mut workspace.scratch;
        self.exact(ready, x.rows, out, scratch, |task| FixedCodes {
            task,
            stage,
        })
    }

    /// Computes float outputs of what `sink` makes of each part.
    fn scaled<'a, O: Send, K: Sink<f32>>(
        &self,
        ready: Ready<'_>,
        rows: usize,
        out: &'a mut [O],
        scratch: &mut Vec<Scratch>,
        sink: impl Fn(Task<'a, O>) -> K + Sync,
    ) {
        let weights = &*self.weights;
        self.over_parts(rows, out, scratch, &|task: Task<'a, O>, scratch| {
            let part = task.part.clone();
            let mut sink = sink(task);
            match ready {
                Ready::Floats(x) => weights.float(x, part, scratch, &mut sink),
                Ready::Codes(x, code_sums) => {
                    weights.integer(x, code_sums, part, scratch, Target::Scaled(&mut sink));
                }
            }
        });
    }

    /// Computes exact sums, of which `sink` makes outputs.
    fn exact<'a, O: Send, K: Sink<i32>>(
        &self,
        ready: Ready<'_>,
        rows: usize,
        out: &'a mut [O],
        scratch: &mut Vec<Scratch>,
        sink: impl Fn(Task<'a, O>) -> K + Sync,
    ) -> Result<()> {
        let layout = self.weights.layout();
        if self.weights.reach().is_none() || layout.groups() > 1 {
            return Err(Error::Unsupported {
                operation: "exact sums",
                expected: "weights with one scale and an integer zero point an output",
                got: format!("{} scales an output, or a real zero point", layout.groups()),
            });
        }
        let Ready::Codes(x, code_sums) = ready else {
            return Err(weight_only());
        };
        self.over_parts(rows, out, scratch, &|task: Task<'a, O>, scratch| {
            let part = task.part.clone();
            let target = Target::Exact(&mut sink(task));
            self.weights.integer(x, code_sums, part, scratch, target);
        });
        Ok(())
    }

    fn over_parts<'a, O: Send>(
        &self,
        rows: usize,
        out: &'a mut [O],
        scratch: &mut Vec<Scratch>,
        work: &(impl Fn(Task<'a, O>, &mut Scratch) + Sync),
    ) {
        let (width, depth) = self.dim();
        let pass = self.weights.pass();
        over_parts(out, [rows, width, depth], pass, self.threads, scratch, work);
    }

    fn epilogue<'a>(&'a self, ready: Ready<'a>) -> Epilogue<'a> {
        Epilogue {
            scale: match ready {
                Ready::Floats(_) => &[],
                Ready::Codes(x, _) => &x.scale,
            },
            bias: self.bias.as_deref(),
            clamp: self.clamp,
        }
    }

    /// Gives `work` the activations and the output in row-major order.
    fn write<A: Activation, O: Copy + Default, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
        out: &mut ArrayRef<O, D>,
        workspace: &mut Workspace,
        work: impl FnOnce(Rows<'_, A>, &mut [O], &mut Workspace) -> Result<()>,
    ) -> Result<()> {
        let (shape, width) = (x.shape(), self.dim().0);
        let rows = self.rows(shape)?;
        let same_rows = out.ndim() == shape.len()
            && out.shape()[..shape.len() - 1] == shape[..shape.len() - 1]
            && out.shape()[shape.len() - 1] == width;
        if !same_rows {
            let expected = self.output_shape(x);
            return same_shape("output", expected.slice(), out.shape());
        }
        // Rows of nothing, of which there may be any number, are not gone through.
        let rows = if x.is_empty() && out.is_empty() {
            0
        } else {
            rows
        };
        let values = match x.as_slice() {
            Some(values) => Cow::Borrowed(values),
            None => Cow::Owned(x.iter().copied().collect()),
        };
        let x = Rows {
            values: &values,
            rows,
            shape,
        };
        if let Some(out) = out.as_slice_mut() {
            return work(x, out, workspace);
        }
        let mut values = vec![O::default(); out.len()];
        work(x, &mut values, workspace)?;
        for (out, value) in out.iter_mut().zip(values) {
            *out = value;
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

    /// The shape of the input with another last axis.
    fn output_shape<A, D: Dimension>(&self, x: &ArrayRef<A, D>) -> D {
        let mut shape = x.raw_dim();
        if let Some(last) = shape.slice_mut().last_mut() {
            *last = self.dim().0;
        }
        shape
    }

    /// An output to be written to.
    fn output<A, O: Clone + Default, D: Dimension>(
        &self,
        x: &ArrayRef<A, D>,
    ) -> Result<Array<O, D>> {
        self.rows(x.shape())?;
        output_of(self.output_shape(x))
    }
}

fn not_static(got: String) -> Error {
    Error::Unsupported {
        operation: "requantization in fixed point",
        expected: "static activations",
        got,
    }
}
