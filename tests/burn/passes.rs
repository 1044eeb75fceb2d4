//! Forward and backward passes of a fake-quant.

use burn_core::{
    module::Module,
    tensor::{Device, Tensor},
};
use lowbit::{
    Affine, Result, Scheme,
    burn::FakeQuantLayer,
    prelude::*,
    qat::{LearnedFakeQuant, Lsq, StepSize},
};

use crate::support::{bits, bits_of, fakes, learned, linear, numbers, tensor, training, variable};

#[test]
fn passes_have_the_bits_of_those_without_a_framework() -> Result<()> {
    let (x, slope) = (numbers(5, 10, 1), numbers(5, 10, 2));
    let mut learning = 0;
    for device in [training(), training().gradient_checkpointing()] {
        for (fake, same) in fakes(&x).into_iter().zip(fakes(&x)) {
            let y = fake.forward(&x)?;
            let gradients = fake.backward(&x, &slope)?;
            let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point);

            let layer = FakeQuantLayer::new(same, &device);
            let input = tensor(&x, &device).require_grad();
            let output = layer.forward(input.clone())?;
            assert_eq!(bits_of(&output), bits(&y), "{fake:?}");
            let back = output.mul(tensor(&slope, &device)).sum().backward();
            let to_input = input.grad(&back).unwrap();
            assert_eq!(bits_of(&to_input), bits(&gradients.input));
            if let Some(parameters) = layer.parameters() {
                learning += 1;
                let slopes = slopes?;
                assert!(slopes.iter().any(|&slope| slope != 0.0));
                let to_parameters = parameters.val().grad(&back).unwrap();
                assert_eq!(bits_of(&to_parameters), bits(&slopes));
            } else {
                assert!(fake.parameters().is_empty());
            }
            let converted = layer.convert(&input)?.dequantize::<f32>();
            assert_eq!(bits(&converted), bits(&y));
        }
    }
    assert_eq!(learning, 2 * 5);
    Ok(())
}

#[test]
fn any_layout_gives_the_bits_of_the_copied_tensor() -> Result<()> {
    let affine = Affine::per_tensor(Scheme::int(3).build()?, 0.4, 0.0)?;
    let layer = FakeQuantLayer::new(LearnedFakeQuant::new(affine, StepSize, Lsq)?, &training());
    // each in a graph of its own, which a backward pass uses up
    let layouts: [fn(Tensor<2>) -> Tensor<2>; 5] = [
        |x| x.transpose(),
        |x| x.narrow(0, 2, 3),
        |x| x.narrow(0, 2, 3).transpose().narrow(0, 1, 5),
        |x| x.narrow(0, 4, 1).expand([4, 9]),
        |x| x.narrow(0, 4, 1).narrow(1, 3, 1),
    ];
    for layout in layouts {
        let x = variable(&numbers(6, 9, 7));
        let strided = layout(x.clone());
        let copied = Tensor::<2>::from_data(strided.to_data(), &Device::flex());
        let y = layer.forward(strided.clone())?;
        assert_eq!(y.dims(), strided.dims());
        assert_eq!(bits_of(&y), bits_of(&layer.forward(copied)?));
        let back = y.square().sum().backward();
        assert_eq!(x.grad(&back).unwrap().dims(), [6, 9]);
        assert!(layer.parameters().unwrap().val().grad(&back).is_some());
    }
    Ok(())
}

#[test]
fn what_is_learned_has_gradients_where_the_input_has_none() -> Result<()> {
    let x = numbers(4, 8, 8);
    let layer = FakeQuantLayer::new(learned(3, &x), &training());
    let fixed = tensor(&x, &training());
    let on_a_plain_device = tensor(&x, &Device::flex());
    for input in [fixed, on_a_plain_device] {
        let back = layer.forward(input.clone())?.square().sum().backward();
        assert!(input.grad(&back).is_none());
        assert_eq!(
            layer
                .parameters()
                .unwrap()
                .val()
                .grad(&back)
                .unwrap()
                .dims(),
            [4]
        );
    }
    Ok(())
}

#[test]
fn a_valid_layer_has_the_forward_pass_alone() -> Result<()> {
    let w = numbers(3, 8, 9);
    let layer = linear(&w, &[0.5, -1.0, 0.25])?;
    let x = numbers(2, 8, 10);
    let y = layer.forward(tensor(&x, &training()))?;
    let valid = layer.valid();
    let plain = valid.forward(tensor(&x, &Device::flex()))?;
    assert!(!plain.device().is_autodiff() && y.device().is_autodiff());
    assert_eq!(bits_of(&plain), bits_of(&y));
    let trained = valid.train();
    let y = trained.forward(tensor(&x, &training()))?;
    let back = y.sum().backward();
    let step_sizes = trained.weight_fake().parameters().unwrap().val();
    assert!(step_sizes.grad(&back).is_some());
    Ok(())
}

#[test]
fn threads_may_share_a_layer() -> Result<()> {
    let w = numbers(4, 8, 21);
    let fake = learned(3, &w);
    let expected = fake.backward(&w, &numbers(4, 8, 22))?;
    let layer = FakeQuantLayer::new(fake, &training());
    let round = || -> Result<()> {
        // the fake-quant is one, the parameters are the thread's own: graphs of several threads that
        // share one can wait for each other in burn for ever
        let layer = layer.clone().fork(&training());
        for _ in 0..100 {
            let input = variable(&w);
            let y = layer.forward(input.clone())?;
            let back = y
                .mul(tensor(&numbers(4, 8, 22), &training()))
                .sum()
                .backward();
            assert_eq!(bits_of(&input.grad(&back).unwrap()), bits(&expected.input));
            assert!(layer.parameters().unwrap().val().grad(&back).is_some());
            layer.convert(&input)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads = [(); 3].map(|()| scope.spawn(round));
        threads
            .map(|thread| thread.join().unwrap())
            .into_iter()
            .collect()
    })
}
