//! What is learned is stepped by burn's optimizers, to the bits of a training without a framework.

use burn::{
    module::{Module, Param},
    nn::{Linear, LinearConfig},
    optim::{AdamWConfig, GradientsParams, SgdConfig},
    store::ModuleRecord,
    tensor::{Device, Tensor, TensorData},
};
use lowbit::{
    Result, RoundToNearest, Scheme,
    burn::{FakeQuantLayer, QatLinear},
    prelude::*,
    qat::{LearnedFakeQuant, Lsq, StepSize},
};
use ndarray::Array2;

fn numbers(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let wave = ((i * 37 + j * 11 + i * j + seed * 101) as f32).sin();
        2.5 * wave * wave * wave
    })
}

fn tensor(array: &Array2<f32>) -> Tensor<2> {
    let values: Vec<f32> = array.iter().copied().collect();
    let data = TensorData::new(values, [array.nrows(), array.ncols()]);
    Tensor::from_data(data, &Device::flex().autodiff())
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    values.into_iter().map(|v| v.to_bits()).collect()
}

fn bits_of<const D: usize>(tensor: Tensor<D>) -> Vec<u32> {
    bits(tensor.into_data().as_slice().expect("numbers of f32"))
}

fn learned(w: &Array2<f32>) -> Result<LearnedFakeQuant<Lsq>> {
    let scheme = Scheme::int(3).per_axis(0).build()?;
    LearnedFakeQuant::new(
        RoundToNearest::new(scheme).quantize(w)?.affine(),
        StepSize,
        Lsq,
    )
}

/// A module of weights and what quantizes them.
#[derive(Module, Debug)]
struct Weights {
    weight: Param<Tensor<2>>,
    fake: FakeQuantLayer,
}

#[test]
fn a_training_has_the_bits_of_one_without_a_framework() -> Result<()> {
    let (mut w, slope) = (numbers(4, 8, 7), numbers(4, 8, 8));
    let rate = 0.125;
    let mut fake = learned(&w)?;
    let mut module = Weights {
        weight: Param::from_tensor(tensor(&w)),
        fake: FakeQuantLayer::new(fake.clone(), &Device::flex().autodiff()),
    };
    let mut optimizer = SgdConfig::new().init();
    for _ in 0..20 {
        let loss = module
            .fake
            .forward(module.weight.val())?
            .mul(tensor(&slope))
            .sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &module);
        assert_eq!(gradients.len(), 2);
        module = optimizer.step(f64::from(rate), module, gradients);

        let gradients = fake.backward(&w, &slope)?;
        let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?;
        w.zip_mut_with(&gradients.input, |w, g| *w -= g * rate);
        let stepped = fake.parameters().into_iter().zip(slopes);
        fake.set_parameters(&stepped.map(|(p, g)| p - g * rate).collect::<Vec<_>>())?;
    }
    assert_eq!(bits_of(module.weight.val()), bits(&w));
    let learned = module.fake.parameters().expect("step sizes");
    assert_eq!(bits_of(learned.val()), bits(&fake.parameters()));
    Ok(())
}

#[test]
fn a_hostile_optimizer_leaves_positive_scales() -> Result<()> {
    let w = numbers(4, 8, 5);
    let fake = learned(&w)?.with_sizes_as_they_are();
    let mut layer = FakeQuantLayer::new(fake, &Device::flex().autodiff());
    let mut optimizer = SgdConfig::new().init();
    for step in 0..200 {
        let slope = tensor(&numbers(4, 8, step));
        let loss = layer.forward(tensor(&w))?.mul(slope).sum();
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        layer = optimizer.step(1.0, layer, gradients);
        layer.convert(&tensor(&w))?; // fails for scales that are not positive
        if step % 2 == 0 {
            layer.update(|_| Ok(()))?; // in the parameters themselves, too
            let sizes = layer.parameters().expect("step sizes").val().into_data();
            assert!(
                sizes
                    .iter::<f32>()
                    .all(|size| size > 0.0 && size.is_finite())
            );
        }
    }
    Ok(())
}

fn layer(linear: Linear) -> Result<QatLinear> {
    QatLinear::from_linear(linear, |w| learned(&w.to_owned()))
}

#[test]
fn a_training_that_was_saved_goes_on_to_the_same_bits() -> Result<()> {
    let device = Device::flex().autodiff();
    device.seed(1);
    let x = tensor(&numbers(16, 8, 9));
    let step = |layer: QatLinear, optimizer: &mut burn::optim::ModuleOptimizer| {
        let loss = layer.forward(x.clone())?.square().mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &layer);
        Ok::<_, lowbit::Error>(optimizer.step(0.05, layer, gradients))
    };
    let config = LinearConfig::new(8, 3);
    let mut optimizer = AdamWConfig::new().with_weight_decay(0.0).init();
    let mut straight = layer(config.init(&device))?;
    for _ in 0..5 {
        straight = step(straight, &mut optimizer)?;
    }
    let bytes = straight
        .clone()
        .into_record()
        .into_bytes()
        .expect("a record");
    let record = ModuleRecord::from_bytes(bytes).expect("a record");
    let mut restored = layer(config.init(&device))?.load_record(record);
    assert_eq!(
        bits_of(restored.forward(x.clone())?),
        bits_of(straight.forward(x.clone())?)
    );
    let (mut one, mut other) = (SgdConfig::new().init(), SgdConfig::new().init());
    for _ in 0..5 {
        straight = step(straight, &mut one)?;
        restored = step(restored, &mut other)?;
    }
    assert_eq!(
        bits_of(restored.forward(x.clone())?),
        bits_of(straight.forward(x.clone())?)
    );
    assert_eq!(restored.convert()?, straight.convert()?);
    Ok(())
}
