//! Layers: what they compute, pack and save.

use burn_core::{module::Module, store::ModuleRecord};
use burn_nn::{PaddingConfig2d, conv::Conv2dConfig};
use lowbit::{
    Result, RoundToNearest, Scheme,
    burn::{FakeQuantLayer, QatConv2d, QatLinear},
    prelude::*,
    qat::{AffineFakeQuant, Clipped, DynamicFakeQuant, LearnedFakeQuant, Lsq, StepSize},
};
use ndarray::ArrayD;

use crate::support::{bits_of, learned, linear, numbers, scheme, tensor, training, values};

#[test]
fn a_layer_computes_with_its_converted_weights() -> Result<()> {
    let (w, x) = (numbers(6, 16, 12), numbers(3, 16, 13));
    let bias = [0.5_f32, -1.0, 0.0, 2.0, 0.25, 1.0];
    let per_row = DynamicFakeQuant::new(Scheme::int(8).per_row().build()?, Clipped);
    let layer = linear(&w, &bias)?.with_input(FakeQuantLayer::new(per_row.clone(), &training()));
    let weights: ArrayD<f32> = layer.convert()?.dequantize();
    let weights = weights.into_dimensionality::<ndarray::Ix2>().unwrap();
    let y = values(&layer.forward(tensor(&x, &training()))?);
    let batched = tensor(&x, &training()).reshape([1, 3, 1, 16]);
    assert_eq!(layer.forward(batched)?.dims(), [1, 3, 1, 6]);
    let exact = per_row
        .forward(&x)?
        .mapv(f64::from)
        .dot(&weights.mapv(f64::from).t());
    let packed = layer
        .pack()?
        .with_activations(lowbit::Activations::Dynamic(
            Scheme::int(8).per_row().build()?,
        ))?;
    let integer = packed.forward(&x)?;
    for (i, row) in y.chunks(6).enumerate() {
        for (o, &y) in row.iter().enumerate() {
            let exact = exact[[i, o]] + f64::from(bias[o]);
            assert!((f64::from(y) - exact).abs() < 1e-4, "{y} is not {exact}");
            assert!((f64::from(integer[[i, o]]) - exact).abs() < 1e-4);
        }
    }
    Ok(())
}

#[test]
fn a_convolution_quantizes_its_weights_as_a_matrix() -> Result<()> {
    let matrix = numbers(4, 2 * 9, 14);
    let config = Conv2dConfig::new([2, 4], [3, 3])
        .with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1))
        .with_bias(false);
    let mut conv = config.init(&training());
    conv.weight = conv.weight.map(|_| {
        tensor(&matrix, &training())
            .reshape([4, 2, 3, 3])
            .detach()
            .require_grad()
    });
    let mut by_hand = conv.clone();
    let layer = QatConv2d::from_conv2d(conv, |weights| {
        assert_eq!(weights, matrix);
        let start = RoundToNearest::new(scheme(2)).quantize(&weights)?;
        LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
    })?;
    let fake = learned(2, &matrix);
    let expected = tensor(&fake.forward(&matrix)?, &training()).reshape([4, 2, 3, 3]);
    by_hand.weight = by_hand.weight.map(|_| expected);

    let images = tensor(&numbers(10, 10, 15), &training()).reshape([1, 2, 5, 10]);
    let y = layer.forward(images.clone())?;
    assert_eq!(bits_of(&y), bits_of(&by_hand.forward(images)));
    let back = y.square().sum().backward();
    let to_weight = layer.conv().weight.val().grad(&back).unwrap();
    assert_eq!(to_weight.dims(), [4, 2, 3, 3]);
    let parameters = layer.weight_fake().parameters().unwrap();
    assert_eq!(parameters.val().grad(&back).unwrap().dims(), [4]);
    assert_eq!(layer.pack()?.dim(), (4, 18));

    let conv = config.with_groups(2).init(&training());
    let grouped = QatConv2d::from_conv2d(conv, |weights| {
        assert_eq!(weights.dim(), (4, 9));
        let start = RoundToNearest::new(scheme(2)).quantize(&weights)?;
        Ok(AffineFakeQuant::new(start.affine(), Clipped))
    })?;
    let error = grouped.pack().unwrap_err().to_string();
    assert!(
        error.contains("expected one group of channels, got 2 groups"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_saved_layer_goes_on_from_its_numbers() -> Result<()> {
    let layer = linear(&numbers(3, 8, 16), &[0.5, -1.0, 0.25])?;
    let mut fake = layer.weight_fake().clone();
    fake.update(|fake| fake.set_parameters(&[-1.0, -2.0, -3.0]))?;
    let saved = QatLinear::new(layer.linear().clone(), fake);
    let bytes = saved.clone().into_record().into_bytes().unwrap();
    let record = ModuleRecord::from_bytes(bytes).unwrap();
    assert_eq!(record.len(), 3);
    let again = linear(&numbers(3, 8, 17), &[0.0; 3])?.load_record(record);
    let x = numbers(2, 8, 18);
    assert_eq!(
        bits_of(&again.forward(tensor(&x, &training()))?),
        bits_of(&saved.forward(tensor(&x, &training()))?)
    );
    assert_eq!(
        values(&again.weight_fake().parameters().unwrap().val()),
        [-1.0, -2.0, -3.0]
    );
    assert_eq!(again.convert()?, saved.convert()?);
    Ok(())
}
