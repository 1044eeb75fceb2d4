//! Numbers, tensors of them, and fake-quants.

use burn_core::{
    module::{ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};
use burn_nn::LinearConfig;
use lowbit::{
    Affine, Result, RoundToNearest, Scheme,
    burn::QatLinear,
    prelude::*,
    qat::{
        AffineFakeQuant, Clipped, DynamicFakeQuant, Ends, Ewgs, LearnedFakeQuant, Lsq, Plain,
        StepAndOffset, StepSize,
    },
};
use ndarray::Array2;

/// Numbers in and out of range, ties among them.
pub(crate) fn numbers(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    let mut numbers = Array2::from_shape_fn((rows, columns), |(i, j)| {
        let wave = ((i * 37 + j * 11 + i * j + seed * 101) as f32).sin();
        2.5 * wave * wave * wave
    });
    numbers[[0, 0]] = 0.25;
    numbers[[0, 1]] = -0.375;
    numbers
}

pub(crate) fn training() -> Device {
    Device::flex().autodiff()
}

pub(crate) fn tensor(array: &Array2<f32>, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = array.iter().copied().collect();
    Tensor::from_data(
        TensorData::new(values, [array.nrows(), array.ncols()]),
        device,
    )
}

/// A leaf of the graph, of which there is a gradient.
pub(crate) fn variable(array: &Array2<f32>) -> Tensor<2> {
    tensor(array, &training()).require_grad()
}

pub(crate) fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    values.into_iter().map(|v| v.to_bits()).collect()
}

/// Of gradients that a framework has added to zeros, by which −0 becomes 0.
pub(crate) fn bits_of_sum<'a>(gradients: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    gradients.into_iter().map(|v| (v + 0.0).to_bits()).collect()
}

pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor.to_data().try_into_vec().unwrap()
}

pub(crate) fn bits_of<const D: usize>(tensor: &Tensor<D>) -> Vec<u32> {
    bits(&values(tensor))
}

pub(crate) fn scheme(bits: u32) -> Scheme {
    Scheme::int(bits).per_axis(0).build().unwrap()
}

pub(crate) fn start(scheme: Scheme, w: &Array2<f32>) -> Affine {
    RoundToNearest::new(scheme).quantize(w).unwrap().affine()
}

pub(crate) fn learned(bits: u32, w: &Array2<f32>) -> LearnedFakeQuant<Lsq> {
    LearnedFakeQuant::new(start(scheme(bits), w), StepSize, Lsq).unwrap()
}

/// Kinds of fake-quants, learned in every form and not at all.
pub(crate) fn fakes(w: &Array2<f32>) -> Vec<Box<dyn FakeQuant>> {
    let asymmetric = Scheme::int(3).asymmetric().per_group(4).build().unwrap();
    let real = Scheme::int(3)
        .asymmetric_float()
        .per_group(4)
        .build()
        .unwrap();
    let per_row = Scheme::int(4).per_row().build().unwrap();
    vec![
        Box::new(learned(2, w)),
        Box::new(learned(2, w).with_sizes_as_they_are()),
        Box::new(LearnedFakeQuant::new(start(real, w), StepAndOffset, Lsq).unwrap()),
        Box::new(LearnedFakeQuant::new(start(asymmetric, w), Ends, Clipped).unwrap()),
        Box::new(AffineFakeQuant::new(
            start(asymmetric, w),
            Ewgs::new(0.2).unwrap(),
        )),
        Box::new(DynamicFakeQuant::new(per_row, Plain)),
    ]
}

/// A layer of weights `[out, in]`, per output.
pub(crate) fn linear(w: &Array2<f32>, bias: &[f32]) -> Result<QatLinear> {
    let mut linear = LinearConfig::new(w.ncols(), w.nrows()).init(&training());
    let bias = TensorData::new(bias.to_vec(), [bias.len()]);
    linear.weight = linear
        .weight
        .map(|_| variable(&w.t().as_standard_layout().to_owned()));
    linear.bias = linear
        .bias
        .map(|old| old.map(|_| Tensor::from_data(bias, &training()).require_grad()));
    QatLinear::from_linear(linear, |weights| {
        assert_eq!(weights, w);
        let start = RoundToNearest::new(scheme(3)).quantize(&weights)?;
        LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
    })
}

/// Sets what a layer learns, as loading or a step does.
pub(crate) struct Set(pub(crate) [f32; 4]);

impl ModuleMapper for Set {
    fn map_float<const D: usize>(&mut self, parameter: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let numbers = self.0;
        parameter.map(|old| {
            let new = Tensor::from_data(
                TensorData::new(numbers.to_vec(), old.shape()),
                &old.device(),
            );
            new.require_grad()
        })
    }
}
