//! The bits of the adapter for candle.

use candle_core::{Device, Module, Tensor, Var};
use lowbit::{Result, burn::FakeQuantLayer, candle};
use ndarray::Array2;

use crate::support::{
    bits, bits_of, bits_of_sum, fakes, learned, linear, numbers, tensor, training, values, variable,
};

fn in_candle(array: &Array2<f32>) -> Var {
    let values: Vec<f32> = array.iter().copied().collect();
    Var::from_vec(values, array.dim(), &Device::Cpu).unwrap()
}

fn flat(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn passes_have_the_bits_of_those_in_candle() -> Result<()> {
    let (x, slope) = (numbers(5, 10, 3), numbers(5, 10, 4));
    for (fake, same) in fakes(&x).into_iter().zip(fakes(&x)) {
        let theirs = candle::FakeQuantLayer::new(fake, &Device::Cpu).unwrap();
        let their_x = in_candle(&x);
        let their_y = theirs.forward(&their_x).unwrap();
        let loss = their_y.mul(&in_candle(&slope)).unwrap().sum_all().unwrap();
        let their_back = loss.backward().unwrap();

        let layer = FakeQuantLayer::new(same, &training());
        let input = variable(&x);
        let y = layer.forward(input.clone())?;
        assert_eq!(bits_of(&y), bits(&flat(&their_y)));
        let back = y.mul(tensor(&slope, &training())).sum().backward();
        assert_eq!(
            bits_of_sum(&values(&input.grad(&back).unwrap())),
            bits(&flat(their_back.get(&their_x).unwrap()))
        );
        assert_eq!(layer.parameters().is_some(), theirs.parameters().is_some());
        if let (Some(ours), Some(theirs)) = (layer.parameters(), theirs.parameters()) {
            assert_eq!(
                bits_of_sum(&values(&ours.val().grad(&back).unwrap())),
                bits(&flat(their_back.get(theirs).unwrap()))
            );
        }
    }
    Ok(())
}

#[test]
fn layers_have_the_bits_of_those_in_candle() -> Result<()> {
    let (w, bias) = (numbers(3, 8, 5), [0.5_f32, -1.0, 0.25]);
    // Products with the identity are the same in whatever order they are summed.
    let (x, slope) = (Array2::<f32>::eye(8), numbers(8, 3, 6));
    let fake = candle::FakeQuantLayer::new(learned(3, &w), &Device::Cpu).unwrap();
    let their_w = in_candle(&w);
    let their_bias = Tensor::new(&bias, &Device::Cpu).unwrap();
    let theirs = candle::QatLinear::new(their_w.as_tensor().clone(), Some(their_bias), fake);
    let their_y = theirs.forward(&in_candle(&x)).unwrap();
    let loss = their_y.mul(&in_candle(&slope)).unwrap().sum_all().unwrap();
    let their_back = loss.backward().unwrap();

    let layer = linear(&w, &bias)?;
    let y = layer.forward(tensor(&x, &training()))?;
    assert_eq!(bits_of(&y), bits(&flat(&their_y)));
    let back = y.mul(tensor(&slope, &training())).sum().backward();
    // [in, out] in burn
    let to_w = layer.linear().weight.val().grad(&back).unwrap();
    assert_eq!(to_w.dims(), [8, 3]);
    assert_eq!(
        bits_of_sum(&values(&to_w.transpose())),
        bits(&flat(their_back.get(&their_w).unwrap()))
    );
    let ours = layer.weight_fake().parameters().unwrap();
    let theirs_learned = theirs.weight_fake().parameters().unwrap();
    assert_eq!(
        bits_of_sum(&values(&ours.val().grad(&back).unwrap())),
        bits(&flat(their_back.get(theirs_learned).unwrap()))
    );
    assert_eq!(layer.convert()?, theirs.convert().unwrap());
    Ok(())
}
