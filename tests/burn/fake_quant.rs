//! What changes a fake-quant between passes.

use burn_core::module::Module;
use lowbit::{
    Result, Scheme,
    burn::FakeQuantLayer,
    observe::MinMax,
    prelude::*,
    qat::{Clipped, ObservedFakeQuant},
};

use crate::support::{
    Set, bits, bits_of, learned, numbers, scheme, start, tensor, training, values, variable,
};

#[test]
fn passes_and_updates_bring_scales_back_to_positive() -> Result<()> {
    let w = numbers(4, 8, 11);
    let fake = learned(3, &w).with_sizes_as_they_are();
    let mut alone = fake.clone();
    let layer = FakeQuantLayer::new(fake, &training());
    let mut layer = layer.map(&mut Set([-1.0, 0.5, -3.0, 0.0]));
    alone.set_parameters(&[-1.0, 0.5, -3.0, 0.0])?;
    let y = layer.forward(variable(&w))?;
    assert_eq!(bits_of(&y), bits(&alone.forward(&w)?));
    assert_eq!(values(&layer.parameters().unwrap().val())[0], -1.0);

    layer.update(|_| Ok(()))?;
    let parameters = layer.parameters().unwrap();
    assert_eq!(bits_of(&parameters.val()), bits(&alone.parameters()));
    assert!(values(&parameters.val()).iter().all(|&v| v > 0.0));
    let back = layer.forward(variable(&w))?.sum().backward();
    assert!(parameters.val().grad(&back).is_some());
    Ok(())
}

#[test]
fn observed_ranges_and_restarts_reach_the_layer() -> Result<()> {
    let x = tensor(&numbers(4, 8, 19), &training());
    let scheme8 = Scheme::int(8).build()?;
    let observed = ObservedFakeQuant::new(
        scheme8,
        Box::new(MinMax::new(scheme8.granularity())),
        Box::new(lowbit::calibrate::FullRange),
        Clipped,
    )?;
    let mut layer = FakeQuantLayer::new(observed, &training());
    assert!(layer.parameters().is_none());
    layer.observe(&x)?;
    let codes = layer.convert(&x)?;
    assert_eq!(
        bits_of(&layer.forward(x)?),
        bits(&codes.dequantize::<f32>())
    );

    let w = numbers(4, 8, 20);
    let mut layer = FakeQuantLayer::new(learned(8, &w), &training());
    let fewer = start(scheme(2), &w);
    layer.update(|fake| fake.restart(&fewer))?;
    let expected = lowbit::fake_quantize(&w, &fewer)?;
    let close = values(&layer.forward(variable(&w))?);
    for (a, b) in close.iter().zip(&expected) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{a} is not {b}");
    }
    Ok(())
}
