//! Packed weights behind one face, whatever their kernel.

use std::fmt::Debug;

use ndarray::ArrayView2;

use super::{arch::Kernel, float, integer, layout::Layout, operand::Operand, weights::Weights};

/// Codes of activations, signed or unsigned, of at most 8 bits.
#[derive(Debug, Clone, Copy)]
pub(super) enum CodeView<'a> {
    Signed(ArrayView2<'a, i8>),
    Unsigned(ArrayView2<'a, u8>),
}

/// Quantized activations `[rows, depth]`; zero points and scales one for each row, or one for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quantized<'a> {
    pub(super) codes: CodeView<'a>,
    pub(super) zero: &'a [i32],
    pub(super) scale: &'a [f32],
    /// What [`Layer::sums_of_codes`] gives.
    pub(super) code_sums: &'a [i32],
}

/// Weights packed for some kernel.
pub(super) trait Layer: Debug + Send + Sync {
    /// The name of the kernel.
    fn kernel(&self) -> &'static str;

    fn layout(&self) -> Layout;

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

    /// `x · wᵀ + bias` of float activations in row-major order.
    fn float(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, out: &mut [f32]);

    /// `x · wᵀ + bias` of quantized activations.
    fn scaled(&self, x: Quantized<'_>, bias: Option<&[f32]>, out: &mut [f32]);

    /// `Σ (x − zx) (w − zw)`.
    fn exact(&self, x: Quantized<'_>, out: &mut [i32]);
}

impl<K: Kernel> Weights<K> {
    fn operand(&self, x: Quantized<'_>) -> Operand<K::Code> {
        match x.codes {
            CodeView::Signed(codes) => Operand::new(codes, 0, x.zero, x.scale, &self.layout),
            CodeView::Unsigned(codes) => Operand::new(codes, 128, x.zero, x.scale, &self.layout),
        }
    }
}

impl<K: Kernel> Layer for Weights<K> {
    fn kernel(&self) -> &'static str {
        K::NAME
    }

    fn layout(&self) -> Layout {
        self.layout
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

    fn float(&self, x: &[f32], rows: usize, bias: Option<&[f32]>, out: &mut [f32]) {
        float::product(self, x, rows, out, |_, column, sums: &[f32], out| {
            for (index, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
                *out = sum + bias.map_or(0.0, |bias| bias[column + index]);
            }
        });
    }

    fn scaled(&self, x: Quantized<'_>, bias: Option<&[f32]>, out: &mut [f32]) {
        let operand = self.operand(x);
        let finish = |row: usize, column: usize, sums: &[f32], out: &mut [f32]| {
            let scale = operand.scale[row];
            for (index, (out, &sum)) in out.iter_mut().zip(sums).enumerate() {
                *out = sum * scale + bias.map_or(0.0, |bias| bias[column + index]);
            }
        };
        integer::product(self, &operand, x.code_sums, out, finish);
    }

    fn exact(&self, x: Quantized<'_>, out: &mut [i32]) {
        let operand = self.operand(x);
        let finish = |_, _, sums: &[i32], out: &mut [i32]| out.copy_from_slice(sums);
        integer::product(self, &operand, x.code_sums, out, finish);
    }
}
