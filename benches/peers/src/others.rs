//! What the others do, each through its own public interface, with its weights prepared ahead.

use std::{hint::black_box, mem::MaybeUninit};

use candle_core::{
    Device, Module, Tensor,
    quantized::{GgmlDType, QMatMul, QTensor},
};
use ndarray::{Array2, s};
use rten_gemm::{
    BlockQuantizedGemm, BlockQuantizedMatrix, ComputeMode, GemmExecutor, GemmInputA, GemmInputB,
};
use rten_tensor::{AsView, Contiguous, NdTensor, NdTensorView};

use crate::clock::{Entry, Role, Work};

fn peer(name: String, cells: Vec<Option<Work>>) -> Entry {
    Entry {
        name,
        role: Role::Peer,
        cells,
    }
}

fn operations(rows: usize, weights: &Array2<f32>) -> f64 {
    2.0 * (rows * weights.len()) as f64
}

/// rten-gemm's product of codes, weights packed ahead; its output are integers.
pub(crate) fn rten_integer(weights: &Array2<f32>, rows: &[usize]) -> Entry {
    let executor = || GemmExecutor::<u8, i8, i32>::default();
    let (outputs, inputs) = weights.dim();
    let codes: Vec<i8> = weights.t().iter().map(|&w| (w * 127.0) as i8).collect();
    let codes = NdTensor::from_data([inputs, outputs], codes);
    let name = format!("rten-gemm {}", executor().kernel_name());
    let work = |&rows: &usize| -> Option<Work> {
        let executor = executor();
        let packed = executor.prepack_b(codes.view());
        let x: Vec<u8> = (0..rows * inputs).map(|i| (i * 37 % 251) as u8).collect();
        let mut out = vec![0; rows * outputs];
        let operations = operations(rows, weights);
        Some(Box::new(move || {
            let x = NdTensorView::from_data([rows, inputs], x.as_slice());
            let (x, w) = (GemmInputA::Unpacked(x), GemmInputB::Packed(&packed));
            executor
                .gemm(&mut out, x, w, Default::default())
                .expect("a product");
            black_box(&mut out);
            operations
        }))
    };
    peer(name, rows.iter().map(work).collect())
}

/// rten-gemm's product of floats by 4-bit weights in blocks, as ONNX `MatMulNBits` has them.
pub(crate) fn rten_nibbles(
    weights: &Array2<f32>,
    block: usize,
    integer: bool,
    x: &Array2<f32>,
    rows: &[usize],
) -> Entry {
    let (outputs, inputs) = weights.dim();
    let blocks = inputs / block;
    let mode = if integer {
        ComputeMode::Int8
    } else {
        ComputeMode::Float
    };
    let codes: Vec<u8> = (0..outputs * inputs / 2)
        .map(|i| (i * 97 % 256) as u8)
        .collect();
    let work = |&rows: &usize| -> Option<Work> {
        let codes = NdTensor::from_data([outputs, blocks, block / 2], codes.clone());
        let scales = NdTensor::from_data([outputs, blocks], vec![0.01_f32; outputs * blocks]);
        let x: Vec<f32> = x.slice(s![..rows, ..]).iter().copied().collect();
        let mut out = vec![MaybeUninit::new(0.0_f32); rows * outputs];
        let operations = operations(rows, weights);
        Some(Box::new(move || {
            let w = BlockQuantizedMatrix::new(
                Contiguous::new(codes.view()).expect("codes in order"),
                Contiguous::new(scales.view()).expect("scales in order"),
                4,
            )
            .expect("a matrix in blocks");
            let x = NdTensorView::from_data([1, rows, inputs], x.as_slice());
            let gemm = BlockQuantizedGemm::new().with_compute(mode);
            black_box(gemm.batched_gemm_uninit(&mut out, x, w).expect("a product"));
            operations
        }))
    };
    let by = if integer { "int8" } else { "f32" };
    peer(
        format!("rten-gemm 4-bit, block {block}, by {by}"),
        rows.iter().map(work).collect(),
    )
}

/// candle's product by one of ggml's types.
pub(crate) fn candle(
    kind: GgmlDType,
    weights: &Array2<f32>,
    x: &Array2<f32>,
    rows: &[usize],
) -> Entry {
    let device = Device::Cpu;
    let values: Vec<f32> = weights.iter().copied().collect();
    let tensor = Tensor::from_vec(values, weights.dim(), &device).expect("weights");
    let quantized = QTensor::quantize(&tensor, kind).expect("weights that can be quantized");
    let product = QMatMul::from_qtensor(quantized).expect("a product");
    let work = |&rows: &usize| -> Option<Work> {
        let values: Vec<f32> = x.slice(s![..rows, ..]).iter().copied().collect();
        let x = Tensor::from_vec(values, (rows, x.ncols()), &device).expect("activations");
        let product = product.clone();
        let operations = operations(rows, weights);
        Some(Box::new(move || {
            black_box(product.forward(&x).expect("a product"));
            operations
        }))
    };
    peer(format!("candle {kind:?}"), rows.iter().map(work).collect())
}

/// The product of floats of the gemm crate.
pub(crate) fn gemm_floats(
    weights: &Array2<f32>,
    x: &Array2<f32>,
    rows: &[usize],
    threads: usize,
) -> Entry {
    let (outputs, inputs) = weights.dim();
    let parallelism = match threads {
        1 => gemm::Parallelism::None,
        threads => gemm::Parallelism::Rayon(threads),
    };
    let work = |&rows: &usize| -> Option<Work> {
        let (w, x) = (weights.clone(), x.slice(s![..rows, ..]).to_owned());
        let mut out = vec![0.0_f32; rows * outputs];
        let operations = operations(rows, weights);
        Some(Box::new(move || {
            let (row, column) = (inputs as isize, 1);
            // SAFETY: `x` is [rows, inputs], `w` [outputs, inputs] and `out` [rows, outputs], all in
            // row-major order; the strides are those, `w` transposed.
            unsafe {
                gemm::gemm(
                    rows,
                    outputs,
                    inputs,
                    out.as_mut_ptr(),
                    1,
                    outputs as isize,
                    false,
                    x.as_ptr(),
                    column,
                    row,
                    w.as_ptr(),
                    row,
                    column,
                    0.0,
                    1.0,
                    false,
                    false,
                    false,
                    parallelism,
                );
            }
            black_box(&mut out);
            operations
        }))
    };
    peer("gemm f32".into(), rows.iter().map(work).collect())
}

/// ndarray's product of floats, which uses one thread.
pub(crate) fn ndarray_floats(weights: &Array2<f32>, x: &Array2<f32>, rows: &[usize]) -> Entry {
    let work = |&rows: &usize| -> Option<Work> {
        let (w, x) = (weights.clone(), x.slice(s![..rows, ..]).to_owned());
        let operations = operations(rows, weights);
        Some(Box::new(move || {
            black_box(x.dot(&w.t()));
            operations
        }))
    };
    peer("ndarray f32".into(), rows.iter().map(work).collect())
}
