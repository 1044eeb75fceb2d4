//! Packed weights behind one face, whatever their kernel.

use std::fmt::Debug;

use super::{
    arch::Kernel,
    float, float_row,
    integer::{Product, Target},
    layout::Layout,
    operand::{ActivationCode, Operand, Stacks},
    output::Sink,
    rows::{RowFault, RowSource},
    scratch::Scratch,
    tasks::{Part, Pass},
    value::Value,
    weights::Weights,
};

/// Weights packed for some kernel.
pub(super) trait Layer: Debug + Send + Sync {
    /// The name of the kernel.
    fn kernel(&self) -> &'static str;

    fn layout(&self) -> Layout;

    fn pass(&self) -> Pass;

    /// See [`Weights::x_factor`].
    fn x_factor(&self) -> i32;

    /// How so many rows are to lie.
    fn stacks(&self, rows: usize) -> Stacks;

    /// Whether activations are taken as 16-bit words.
    fn takes_words(&self) -> bool;

    /// Bytes of codes and parameters.
    fn memory_bytes(&self) -> usize;

    /// See [`Weights::reach`].
    fn reach(&self) -> Option<u32>;

    /// See [`Weights::has_integer_codes`].
    fn has_integer_codes(&self) -> bool;

    /// See [`Weights::sums_of_codes`].
    fn sums_of_codes(&self) -> Vec<i32>;

    /// The scale of each column in the first group.
    fn column_scales(&self) -> Vec<f32>;

    /// A part of `x · wᵀ` of float activations in row-major order.
    fn float(&self, x: &[f32], part: Part, scratch: &mut Scratch, sink: &mut dyn Sink<f32>);

    /// A part of the product with quantized activations, in units of their steps; `code_sums` are
    /// those of [`sums_of_codes`](Self::sums_of_codes).
    fn integer(
        &self,
        x: &Operand,
        code_sums: &[i32],
        part: Part,
        scratch: &mut Scratch,
        target: Target<'_>,
    );
}

/// Fills an operand in the form that a layer takes.
///
/// # Errors
/// The fault of the first row that has one.
pub(super) fn fill(
    layer: &dyn Layer,
    operand: &mut Operand,
    source: &impl RowSource,
    rows: usize,
    threads: usize,
) -> Result<(), RowFault> {
    let layout = (&layer.layout(), layer.x_factor());
    let stacks = layer.stacks(rows);
    if layer.takes_words() {
        operand.fill::<i16>(source, rows, layout, stacks, threads)
    } else {
        operand.fill::<i8>(source, rows, layout, stacks, threads)
    }
}

impl<K: Kernel> Layer for Weights<K> {
    fn kernel(&self) -> &'static str {
        K::NAME
    }

    fn layout(&self) -> Layout {
        self.layout
    }

    fn pass(&self) -> Pass {
        Pass {
            rows: K::rows_of_pass(self.layout.depth),
            columns: K::COLUMNS,
        }
    }

    fn x_factor(&self) -> i32 {
        self.x_factor()
    }

    fn stacks(&self, rows: usize) -> Stacks {
        K::stacks(&self.layout, rows)
    }

    fn takes_words(&self) -> bool {
        K::Code::IS_WORD
    }

    fn memory_bytes(&self) -> usize {
        self.memory_bytes()
    }

    fn reach(&self) -> Option<u32> {
        self.reach()
    }

    fn has_integer_codes(&self) -> bool {
        self.has_integer_codes()
    }

    fn sums_of_codes(&self) -> Vec<i32> {
        self.sums_of_codes()
    }

    fn column_scales(&self) -> Vec<f32> {
        let panels = (0..self.panels()).flat_map(|panel| self.scale(panel, 0));
        panels.take(self.layout.columns).copied().collect()
    }

    fn float(&self, x: &[f32], part: Part, scratch: &mut Scratch, sink: &mut dyn Sink<f32>) {
        let is_row = part.rows.len() == 1 && matches!(self.value(), Value::Distance);
        if is_row && self.fills_finitely() {
            float_row::product(self, x, &part, scratch, sink);
        } else {
            float::product(self, x, part, scratch, sink);
        }
    }

    fn integer(
        &self,
        x: &Operand,
        code_sums: &[i32],
        part: Part,
        scratch: &mut Scratch,
        target: Target<'_>,
    ) {
        self.kernel.run(Product {
            weights: self,
            x,
            code_sums,
            part,
            scratch,
            target,
        });
    }
}
