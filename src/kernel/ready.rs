//! Activations made ready for a product: floats in row-major order, or codes.

use super::{
    Activation, Activations, PackedLinear,
    checks::check_codes,
    input::Input,
    layer::fill,
    operand::Operand,
    rows::{CodeRows, FloatRows},
};
use crate::{
    affine::{Affine, Parameter},
    element::{BLOCK, Code, Element},
    error::{Error, Result},
    scheme::Granularity,
};

/// Activations in row-major order.
pub(super) struct Rows<'a, A> {
    pub(super) values: &'a [A],
    pub(super) rows: usize,
    pub(super) shape: &'a [usize],
}

impl<A> Clone for Rows<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Rows<'_, A> {}

/// Activations that are ready for a product.
#[derive(Clone, Copy)]
pub(super) enum Ready<'a> {
    Floats(&'a [f32]),
    Codes(&'a Operand, &'a [i32]),
}

impl PackedLinear {
    /// Activations as the layer takes them.
    pub(super) fn ready<'a, A: Activation>(
        &'a self,
        x: Rows<'a, A>,
        operand: &'a mut Operand,
        floats: &'a mut Vec<f32>,
    ) -> Result<Ready<'a>> {
        let Some(quantized) = self.quantized.as_deref() else {
            return match A::input(x.values) {
                Input::F32(values) => Ok(Ready::Floats(values)),
                Input::F16(values) => Ok(Ready::Floats(widened(values, floats))),
                Input::Bf16(values) => Ok(Ready::Floats(widened(values, floats))),
                Input::Signed(_) | Input::Unsigned(_) => Err(weight_only()),
            };
        };
        let activations = &quantized.activations;
        match (A::input(x.values), activations) {
            (Input::F32(values), _) => self.quantize(values, x, activations, operand),
            (Input::F16(values), _) => self.quantize(values, x, activations, operand),
            (Input::Bf16(values), _) => self.quantize(values, x, activations, operand),
            (Input::Signed(codes), Activations::Static(affine)) => {
                self.take_codes(codes, x, affine, 0, operand)
            }
            (Input::Unsigned(codes), Activations::Static(affine)) => {
                self.take_codes(codes, x, affine, 128, operand)
            }
            (_, Activations::Dynamic(_)) => Err(Error::Unsupported {
                operation: "a product of codes",
                expected: "a layer with static activations, whose parameters the codes have",
                got: "dynamic activations, which are chosen from floats".into(),
            }),
        }?;
        Ok(Ready::Codes(operand, &quantized.code_sums))
    }

    /// Quantizes float activations.
    fn quantize<A: Activation, E: Element<Real = f32>>(
        &self,
        values: &[E],
        x: Rows<'_, A>,
        activations: &Activations,
        operand: &mut Operand,
    ) -> Result<()> {
        let depth = self.dim().1;
        let source = match activations {
            Activations::Static(affine) => {
                let shared = Parameter {
                    scale: affine.scale()[0],
                    zero_point: affine.zero_point()[0],
                };
                Ok(FloatRows::new(
                    values,
                    depth,
                    *affine.scheme(),
                    Some(shared),
                ))
            }
            Activations::Dynamic(scheme) => {
                let each = FloatRows::new(values, depth, *scheme, None);
                match scheme.granularity() {
                    Granularity::PerTensor => each.with_common_range(),
                    _ => Ok(each),
                }
            }
        };
        source
            .and_then(|source| fill(&*self.weights, operand, &source, x.rows, self.threads))
            .map_err(|fault| fault.error(x.shape))
    }

    /// Takes codes as they are.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an integer zero point of a code of at most 8 bits"
    )]
    fn take_codes<A: Activation, C: Code>(
        &self,
        codes: &[C],
        x: Rows<'_, A>,
        affine: &Affine,
        offset: i32,
        operand: &mut Operand,
    ) -> Result<()> {
        check_codes(codes, affine.scheme())?;
        let source = CodeRows {
            codes,
            depth: self.dim().1,
            zero: &[affine.zero_point()[0] as i32],
            scale: affine.scale()[0],
            offset,
        };
        fill(&*self.weights, operand, &source, x.rows, self.threads)
            .map_err(|fault| fault.error(x.shape))
    }
}

fn widened<'a, A: Element<Real = f32>>(values: &[A], floats: &'a mut Vec<f32>) -> &'a [f32] {
    floats.clear();
    let mut buffer = [0.0; BLOCK];
    for values in values.chunks(BLOCK) {
        floats.extend_from_slice(A::widen(values, &mut buffer));
    }
    floats
}

/// That a layer without quantized activations has no integer products.
pub(super) fn weight_only() -> Error {
    Error::Unsupported {
        operation: "a product of integers",
        expected: "a layer with static or dynamic activations",
        got: "a weight-only layer".into(),
    }
}
