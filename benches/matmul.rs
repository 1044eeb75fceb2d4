//! Packed layers at the shapes of language models and at small ones, on one thread.
//!
//! ```text
//! cargo bench --bench matmul
//! ```
//!
//! Throughput counts a multiplication and an addition as two operations. Before anything is timed, its
//! result is compared with that of the portable kernel.

#![allow(
    missing_docs,
    clippy::cast_precision_loss,
    reason = "criterion's macros, and numbers that look random"
)]

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use lowbit::{
    Activations, Isa, PackedLinear, QTensor, RoundToNearest, Scheme, SchemeBuilder, prelude::*,
};
use ndarray::{Array2, s};

/// A matrix of numbers that look random.
fn matrix(rows: usize, columns: usize) -> Array2<f32> {
    let mut state = 1_u64;
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}

/// The layers that are timed: a name, the scheme of the weights, whether activations are quantized.
fn layers() -> [(&'static str, SchemeBuilder, bool); 9] {
    let int = |bits| Scheme::int(bits).symmetric();
    [
        ("w8a8", int(8).per_axis(0), true),
        ("w4a8-g32", int(4).per_group(32), true),
        ("w4a8-g128", int(4).per_group(128), true),
        (
            "w4a8-g128-asymmetric",
            int(4).asymmetric().per_group(128),
            true,
        ),
        ("w3a8-g128", int(3).per_group(128), true),
        ("w2a8-g128", int(2).per_group(128), true),
        ("w8-f32", int(8).per_axis(0), false),
        ("w4-f32-g128", int(4).per_group(128), false),
        ("w2-f32-g128", int(2).per_group(128), false),
    ]
}

fn packed(isa: Isa, weights: &QTensor, integer: bool) -> PackedLinear {
    let layer = PackedLinear::pack_for(isa, weights, None).expect("weights that can be packed");
    if !integer {
        return layer;
    }
    let dynamic = Scheme::int(8).per_row().build().expect("a scheme");
    let layer = layer.with_activations(Activations::Dynamic(dynamic));
    layer.expect("integer weights")
}

/// That two results agree: exactly where sums are integers, to rounding where they are floats.
fn check(layer: &PackedLinear, weights: &QTensor, x: &Array2<f32>, integer: bool) {
    let expected = packed(Isa::Portable, weights, integer)
        .forward(x)
        .expect("a product");
    let got = layer.forward(x).expect("a product");
    let near = |(a, b): (&f32, &f32)| {
        if integer {
            a == b
        } else {
            (a - b).abs() <= 1e-3 * (1.0 + b.abs())
        }
    };
    assert!(
        got.iter().zip(&expected).all(near),
        "{} is wrong",
        layer.kernel()
    );
}

fn bench(criterion: &mut Criterion, shapes: &[(usize, usize, &[usize])]) {
    let isa = Isa::selected().expect("the instruction set that was demanded");
    for &(outputs, inputs, rows) in shapes {
        let float = matrix(outputs, inputs);
        for (name, scheme, integer) in layers() {
            let quantizer = RoundToNearest::new(scheme.build().expect("a scheme"));
            let weights = quantizer.quantize(&float).expect("finite weights");
            let layer = packed(isa, &weights, integer);
            let x = matrix(rows[rows.len() - 1], inputs);
            check(
                &layer,
                &weights,
                &x.slice(s![..2.min(x.nrows()), ..]).to_owned(),
                integer,
            );
            let mut group = criterion.benchmark_group(format!("{outputs}x{inputs}/{name}"));
            group.sample_size(10);
            for &rows in rows {
                let x = x.slice(s![..rows, ..]);
                group.throughput(Throughput::Elements((2 * rows * outputs * inputs) as u64));
                group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
                    bencher.iter(|| layer.forward(black_box(&x)).expect("a product"));
                });
            }
            group.finish();
        }
    }
}

fn all(criterion: &mut Criterion) {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1);
    pool.build_global().expect("the first pool of the process");
    bench(
        criterion,
        &[
            (4096, 4096, &[1, 8, 32, 128, 512]),
            (1024, 1024, &[1024]),
            (256, 256, &[1]),
            (64, 64, &[64]),
        ],
    );
}

criterion_group!(benches, all);
criterion_main!(benches);
