//! What lowbit does.

use std::hint::black_box;

use lowbit::{
    Activations, Affine, Isa, PackedLinear, QTensor, RoundToNearest, Scheme, SchemeBuilder,
    Workspace, prelude::*,
};
use ndarray::{Array2, ArrayView2};

use crate::{
    clock::{Entry, Role, Work},
    options::Options,
};

/// The instruction sets that are shown: the best one and AVX2, or all but portable Rust.
pub(crate) fn instruction_sets(options: &Options) -> Vec<Isa> {
    let best = Isa::selected().expect("an instruction set that is here");
    let wanted = |isa: &Isa| {
        *isa != Isa::Portable && (options.every_isa || *isa == best || *isa == Isa::Avx2)
    };
    let mut sets: Vec<Isa> = Isa::available().iter().copied().filter(wanted).collect();
    if sets.is_empty() {
        sets.push(best);
    }
    sets
}

/// Weights quantized by rounding.
pub(crate) fn quantized(scheme: SchemeBuilder, weights: &Array2<f32>) -> QTensor {
    let quantizer = RoundToNearest::new(scheme.build().expect("a scheme"));
    quantizer.quantize(weights).expect("finite weights")
}

/// A layer; with activations quantized row by row if they are integers.
pub(crate) fn layer(isa: Isa, weights: &QTensor, integer: bool) -> PackedLinear {
    let layer = PackedLinear::pack_for(isa, weights, None).expect("weights that can be packed");
    if !integer {
        return layer;
    }
    let dynamic = Scheme::int(8).per_row().build().expect("a scheme");
    layer
        .with_activations(Activations::Dynamic(dynamic))
        .expect("integer weights")
}

/// The float forward of a layer, rounding of activations included, with memory that is kept.
pub(crate) fn forward(layer: PackedLinear, x: ArrayView2<'_, f32>) -> Work {
    cold(vec![layer], x)
}

/// The same, the weights in as many copies as no cache holds, one after the other.
pub(crate) fn cold(layers: Vec<PackedLinear>, x: ArrayView2<'_, f32>) -> Work {
    let x = x.to_owned();
    let (outputs, inputs) = layers[0].dim();
    let operations = 2.0 * (x.nrows() * outputs * inputs) as f64;
    let mut out = Array2::zeros((x.nrows(), outputs));
    let (mut workspace, mut next) = (Workspace::new(), 0);
    Box::new(move || {
        next = (next + 1) % layers.len();
        let layer = &layers[next];
        layer
            .forward_into(&x, &mut out, &mut workspace)
            .expect("a product");
        black_box(&mut out);
        operations
    })
}

/// A row: one scheme on one instruction set, for some numbers of rows.
pub(crate) fn entry(
    isa: Isa,
    what: &str,
    weights: &QTensor,
    integer: bool,
    x: &Array2<f32>,
    rows: &[usize],
) -> Entry {
    let layer = layer(isa, weights, integer);
    let work = |&rows: &usize| {
        let x = x.slice(ndarray::s![..rows, ..]);
        Some(forward(layer.clone(), x))
    };
    Entry {
        name: format!("lowbit {isa}, {what}"),
        role: Role::Ours,
        cells: rows.iter().map(work).collect(),
    }
}

/// Codes by codes to sums of 32 bits, which is all that some peers compute.
pub(crate) fn exact(isa: Isa, weights: &QTensor, rows: &[usize]) -> Entry {
    let scheme = Scheme::int(8).build().expect("a scheme");
    let codes = Affine::per_tensor(scheme, 1.0, 0.0).expect("parameters");
    let layer = PackedLinear::pack_for(isa, weights, None)
        .and_then(|layer| layer.with_activations(Activations::Static(codes)))
        .expect("integer weights");
    let (outputs, inputs) = layer.dim();
    let work = |&rows: &usize| -> Option<Work> {
        let x = Array2::from_shape_fn((rows, inputs), |(i, j)| {
            ((i * 37 + j * 11) % 251) as u8 as i8
        });
        let mut out = Array2::zeros((rows, outputs));
        let operations = 2.0 * (rows * weights.len()) as f64;
        let (layer, mut workspace) = (layer.clone(), Workspace::new());
        Some(Box::new(move || {
            layer
                .accumulate_into(&x, &mut out, &mut workspace)
                .expect("sums");
            black_box(&mut out);
            operations
        }))
    };
    Entry {
        name: format!("lowbit {isa}, W8A8 of codes, i32"),
        role: Role::Ours,
        cells: rows.iter().map(work).collect(),
    }
}
