//! GPTQ and what it needs: `cargo bench --bench gptq [-- FILTER]`.
//!
//! Small by default, so that it runs in a minute. `LOWBIT_BENCH_COLUMNS=4096` gives the layer of the
//! published comparison (4096×4096, 4 bits, groups of 128), and `RAYON_NUM_THREADS=1` one thread.
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![expect(clippy::unwrap_used, reason = "a benchmark of valid arguments")]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lowbit::{
    Scheme,
    calibrate::{LeastSquares, MeanSquaredError},
    observe::{Hessian, InputDeviation},
    ptq::{Gptq, gptq::GroupFit},
};
use ndarray::Array2;

/// Numbers from −1 to 1, the same on every run.
fn numbers(rows: usize, columns: usize, mut state: u64) -> Array2<f32> {
    Array2::from_shape_simple_fn((rows, columns), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 40) as f32 / (1_u64 << 23) as f32 - 1.0
    })
}

fn gptq(criterion: &mut Criterion) {
    let columns = std::env::var("LOWBIT_BENCH_COLUMNS").ok();
    let columns = columns.and_then(|text| text.parse().ok()).unwrap_or(512);
    let tokens = columns / 2;
    let inputs = numbers(tokens, columns, 1);
    let strayed = &inputs + &(numbers(tokens, columns, 2) * 0.1);
    let weights = numbers(columns, columns, 3);

    let mut group = criterion.benchmark_group(format!("gptq/{columns}"));
    group.sample_size(10);
    // A multiply and an add for each element of the whole matrix: GFLOP/s are these, doubled.
    group.throughput(Throughput::Elements((tokens * columns * columns) as u64));
    group.bench_function("hessian", |bencher| {
        bencher.iter(|| {
            let mut hessian = Hessian::new(columns).unwrap();
            hessian.observe(black_box(&inputs)).unwrap();
            hessian
        });
    });

    let mut deviation = InputDeviation::new(columns).unwrap();
    deviation.observe(&inputs, &strayed).unwrap();
    let scheme = Scheme::int(4).per_group(128).build().unwrap();
    let plain = Gptq::new(scheme, deviation.hessian());
    group.throughput(Throughput::Elements(weights.len() as u64));
    for (name, gptq) in [
        ("fresh", plain.clone()),
        ("static", plain.clone().with_group_fit(GroupFit::Static)),
        ("asymmetric", Gptq::asymmetric(scheme, &deviation)),
        (
            "mean squared error",
            plain.clone().with_calibrator(MeanSquaredError::default()),
        ),
        (
            "least squares",
            plain.clone().with_calibrator(LeastSquares::default()),
        ),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| gptq.quantize_with_report(black_box(&weights)).unwrap());
        });
    }
}

criterion_group!(benches, gptq);
criterion_main!(benches);
