//! The adapter for candle: the same bits as without a framework, and errors where it has them.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use candle_core::{DType, Device, Module, Result, Tensor, Var};
use candle_nn::{Conv2dConfig, Optimizer, SGD, VarBuilder, VarMap};
use lowbit::{
    Affine, RoundToNearest, Scheme,
    candle::{FakeQuantLayer, QatConv2d, QatLinear, qat_linear},
    observe::MinMax,
    prelude::*,
    qat::{
        AffineFakeQuant, Clipped, DynamicFakeQuant, Ends, Ewgs, LearnedFakeQuant, Lsq,
        ObservedFakeQuant, Plain, StepAndOffset, StepSize,
    },
};
use ndarray::{Array2, ArrayD};

const CPU: Device = Device::Cpu;

/// Numbers in and out of range, ties among them.
fn numbers(rows: usize, columns: usize, seed: usize) -> Array2<f32> {
    let mut numbers = Array2::from_shape_fn((rows, columns), |(i, j)| {
        let wave = ((i * 37 + j * 11 + i * j + seed * 101) as f32).sin();
        2.5 * wave * wave * wave
    });
    numbers[[0, 0]] = 0.25;
    numbers[[0, 1]] = -0.375;
    numbers
}

fn tensor(array: &Array2<f32>) -> Tensor {
    let values: Vec<f32> = array.iter().copied().collect();
    Tensor::from_vec(values, array.dim(), &CPU).unwrap()
}

fn bits<'a>(values: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    values.into_iter().map(|v| v.to_bits()).collect()
}

/// Of gradients: candle adds them to zeros, by which −0 becomes 0.
fn bits_of_sum<'a>(gradients: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    gradients.into_iter().map(|v| (v + 0.0).to_bits()).collect()
}

fn bits_of(tensor: &Tensor) -> Vec<u32> {
    bits(&tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap())
}

fn scheme(bits: u32) -> Scheme {
    Scheme::int(bits).per_axis(0).build().unwrap()
}

fn start(scheme: Scheme, w: &Array2<f32>) -> Affine {
    RoundToNearest::new(scheme).quantize(w).unwrap().affine()
}

/// Kinds of fake-quants, learned in every form and not at all.
fn fakes(w: &Array2<f32>) -> Vec<Box<dyn FakeQuant>> {
    let asymmetric = Scheme::int(3).asymmetric().per_group(4).build().unwrap();
    let real = Scheme::int(3)
        .asymmetric_float()
        .per_group(4)
        .build()
        .unwrap();
    let per_row = Scheme::int(4).per_row().build().unwrap();
    let learned = LearnedFakeQuant::new(start(scheme(2), w), StepSize, Lsq).unwrap();
    vec![
        Box::new(learned.clone()),
        Box::new(learned.with_sizes_as_they_are()),
        Box::new(LearnedFakeQuant::new(start(real, w), StepAndOffset, Lsq).unwrap()),
        Box::new(LearnedFakeQuant::new(start(asymmetric, w), Ends, Clipped).unwrap()),
        Box::new(AffineFakeQuant::new(
            start(asymmetric, w),
            Ewgs::new(0.2).unwrap(),
        )),
        Box::new(DynamicFakeQuant::new(per_row, Plain)),
    ]
}

#[test]
fn passes_have_the_bits_of_those_without_a_framework() -> Result<()> {
    let (x, slope) = (numbers(5, 10, 1), numbers(5, 10, 2));
    let mut learning = 0;
    for (fake, same) in fakes(&x).into_iter().zip(fakes(&x)) {
        let y = fake.forward(&x)?;
        let gradients = fake.backward(&x, &slope)?;
        let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point);

        let layer = FakeQuantLayer::new(same, &CPU)?;
        let input = Var::from_tensor(&tensor(&x))?;
        let output = layer.forward(&input)?;
        assert_eq!(bits_of(&output), bits(&y), "{fake:?}");
        let back = output.mul(&tensor(&slope))?.sum_all()?.backward()?;
        assert_eq!(
            bits_of(back.get(&input).unwrap()),
            bits_of_sum(&gradients.input)
        );
        if let Some(parameters) = layer.parameters() {
            learning += 1;
            let slopes = slopes?;
            assert!(slopes.iter().any(|&slope| slope != 0.0));
            assert_eq!(bits_of(back.get(parameters).unwrap()), bits_of_sum(&slopes));
        } else {
            assert!(fake.parameters().is_empty());
        }
        let converted = layer.convert(&input)?.dequantize::<f32>();
        assert_eq!(bits(&converted), bits(&y));
    }
    assert_eq!(learning, 5);
    Ok(())
}

#[test]
fn any_layout_gives_the_bits_of_the_copied_tensor() -> Result<()> {
    let affine = Affine::per_tensor(Scheme::int(3).build()?, 0.4, 0.0)?;
    let layer = FakeQuantLayer::new(LearnedFakeQuant::new(affine, StepSize, Lsq)?, &CPU)?;
    let x = Var::from_tensor(&tensor(&numbers(6, 9, 3)))?;
    let narrow = x.narrow(0, 2, 3)?;
    for strided in [
        x.t()?,
        narrow.clone(),
        narrow.t()?.narrow(0, 1, 5)?,
        x.narrow(0, 4, 1)?.broadcast_as((4, 9))?,
        x.narrow(0, 0, 0)?,
    ] {
        let copied = strided.contiguous()?;
        let (y, expected) = (layer.forward(&strided)?, layer.forward(&copied)?);
        assert_eq!(y.dims(), strided.dims());
        assert_eq!(bits_of(&y), bits_of(&expected));
        let gradient = |y: &Tensor| y.sqr()?.sum_all()?.backward();
        let (strided, copied) = (gradient(&y)?, gradient(&expected)?);
        let same =
            |of: &Tensor| bits_of(strided.get(of).unwrap()) == bits_of(copied.get(of).unwrap());
        assert!(same(&x) && same(layer.parameters().unwrap()));
    }
    Ok(())
}

#[test]
fn a_hostile_optimizer_leaves_positive_scales() -> Result<()> {
    let w = numbers(4, 8, 5);
    let fake = LearnedFakeQuant::new(start(scheme(3), &w), StepSize, Lsq)?.with_sizes_as_they_are();
    let layer = FakeQuantLayer::new(fake, &CPU)?;
    let parameters = layer.parameters().unwrap();
    let input = tensor(&w);
    let mut optimizer = SGD::new(vec![parameters.clone()], 1e6)?;
    for step in 0..200 {
        let slope = tensor(&numbers(4, 8, step));
        optimizer.backward_step(&layer.forward(&input)?.mul(&slope)?.sum_all()?)?;
        layer.forward(&input)?;
        let learned = parameters.to_vec1::<f32>()?;
        assert!(
            learned.iter().all(|&v| v > 0.0 && v.is_finite()),
            "{learned:?}"
        );
    }
    parameters.set(&Tensor::new(&[-1.0_f32, 0.5, -3.0, 0.0], &CPU)?)?;
    layer.forward(&input)?;
    let learned = parameters.to_vec1::<f32>()?;
    assert!(learned.iter().all(|&v| v > 0.0));
    assert_eq!(learned[1], 0.5);
    Ok(())
}

#[test]
fn a_training_has_the_bits_of_one_without_a_framework() -> Result<()> {
    let (mut w, slope) = (numbers(4, 8, 7), numbers(4, 8, 8));
    let rate = 0.125;
    let mut fake = LearnedFakeQuant::new(start(scheme(3), &w), StepSize, Lsq)?;
    let layer = FakeQuantLayer::new(fake.clone(), &CPU)?;
    let variable = Var::from_tensor(&tensor(&w))?;
    let all = vec![variable.clone(), layer.parameters().unwrap().clone()];
    let mut optimizer = SGD::new(all, f64::from(rate))?;
    for _ in 0..20 {
        let loss = layer.forward(&variable)?.mul(&tensor(&slope))?.sum_all()?;
        optimizer.backward_step(&loss)?;

        let gradients = fake.backward(&w, &slope)?;
        let slopes = fake.parameter_gradients(&gradients.scale, &gradients.zero_point)?;
        w.zip_mut_with(&gradients.input, |w, g| *w -= g * rate);
        let stepped = fake.parameters().into_iter().zip(slopes);
        fake.set_parameters(&stepped.map(|(p, g)| p - g * rate).collect::<Vec<_>>())?;
    }
    assert_eq!(bits_of(&variable), bits(&w));
    layer.forward(&variable)?;
    assert_eq!(
        bits_of(layer.parameters().unwrap()),
        bits(&fake.parameters())
    );
    Ok(())
}

#[test]
fn a_layer_computes_with_its_converted_weights() -> Result<()> {
    let (w, x) = (numbers(6, 16, 11), numbers(3, 16, 12));
    let fake = FakeQuantLayer::new(
        LearnedFakeQuant::new(start(scheme(4), &w), StepSize, Lsq)?,
        &CPU,
    )?;
    let bias = Tensor::new(&[0.5_f32, -1.0, 0.0, 2.0, 0.25, 1.0], &CPU)?;
    let per_row = DynamicFakeQuant::new(Scheme::int(8).per_row().build()?, Clipped);
    let layer = QatLinear::new(tensor(&w), Some(bias), fake)
        .with_input(FakeQuantLayer::new(per_row.clone(), &CPU)?);
    let weights: ArrayD<f32> = layer.convert()?.dequantize();
    let weights = weights.into_dimensionality::<ndarray::Ix2>().unwrap();
    let y = layer.forward(&tensor(&x))?.to_vec2::<f32>()?;
    let bias = layer.bias().unwrap().to_vec1::<f32>()?;
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
    for (i, row) in y.iter().enumerate() {
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
    let matrix = numbers(4, 2 * 9, 13);
    let weight = Var::from_tensor(&tensor(&matrix).reshape((4, 2, 3, 3))?)?;
    let fake = LearnedFakeQuant::new(start(scheme(2), &matrix), StepSize, Lsq)?;
    let expected = tensor(&fake.forward(&matrix)?).reshape((4, 2, 3, 3))?;
    let config = Conv2dConfig {
        padding: 1,
        ..Default::default()
    };
    let fake = FakeQuantLayer::new(fake, &CPU)?;
    let layer = QatConv2d::new(weight.as_tensor().clone(), None, config, fake.clone());
    let images = tensor(&numbers(10, 10, 14)).reshape((1, 2, 5, 10))?;
    let y = layer.forward(&images)?;
    let by_hand = images.conv2d(&expected, 1, 1, 1, 1)?;
    assert_eq!(bits_of(&y), bits_of(&by_hand));
    let gradients = y.sqr()?.sum_all()?.backward()?;
    assert_eq!(gradients.get(&weight).unwrap().dims(), [4, 2, 3, 3]);
    assert_eq!(
        gradients.get(fake.parameters().unwrap()).unwrap().dims(),
        [4]
    );
    assert_eq!(layer.pack()?.dim(), (4, 18));

    let grouped = Conv2dConfig {
        groups: 2,
        ..config
    };
    let layer = QatConv2d::new(weight.as_tensor().clone(), None, grouped, fake);
    let error = layer.pack().unwrap_err().to_string();
    assert!(
        error.contains("expected one group of channels, got 2 groups"),
        "{error}"
    );
    Ok(())
}

#[test]
fn a_saved_layer_goes_on_from_its_numbers() -> Result<()> {
    let variables = VarMap::new();
    let make = || {
        let builder = VarBuilder::from_varmap(&variables, DType::F32, &CPU);
        qat_linear(8, 3, builder.pp("up"), |w| {
            let start = RoundToNearest::new(scheme(4)).quantize(&w)?;
            LearnedFakeQuant::new(start.affine(), StepSize, Lsq)
        })
    };
    let layer = make()?;
    let step_sizes = layer.weight_fake().parameters().unwrap();
    assert!(step_sizes.to_vec1::<f32>()?.iter().all(|v| v.is_finite()));
    step_sizes.set(&Tensor::new(&[-1.0_f32, -2.0, -3.0], &CPU)?)?;
    let again = make()?;
    let x = tensor(&numbers(2, 8, 15));
    assert_eq!(bits_of(&layer.forward(&x)?), bits_of(&again.forward(&x)?));
    assert_eq!(variables.all_vars().len(), 3);
    Ok(())
}

#[test]
fn observed_ranges_and_restarts_reach_the_layer() -> Result<()> {
    let x = tensor(&numbers(4, 8, 16));
    let scheme8 = Scheme::int(8).build()?;
    let observer = Box::new(MinMax::new(scheme8.granularity()));
    let observed = ObservedFakeQuant::new(
        scheme8,
        observer,
        Box::new(lowbit::calibrate::FullRange),
        Clipped,
    )?;
    let layer = FakeQuantLayer::new(observed, &CPU)?;
    assert!(layer.parameters().is_none());
    layer.observe(&x)?;
    let codes = layer.convert(&x)?;
    assert_eq!(
        bits_of(&layer.forward(&x)?),
        bits(&codes.dequantize::<f32>())
    );

    let w = numbers(4, 8, 17);
    let layer = FakeQuantLayer::new(
        LearnedFakeQuant::new(start(scheme(8), &w), StepSize, Lsq)?,
        &CPU,
    )?;
    let fewer = start(scheme(2), &w);
    layer.update(|fake| fake.restart(&fewer))?;
    let expected = lowbit::fake_quantize(&w, &fewer)?;
    let close = layer.forward(&tensor(&w))?.to_vec2::<f32>()?;
    for (a, b) in close.iter().flatten().zip(&expected) {
        assert!((a - b).abs() <= 1e-5 * b.abs(), "{a} is not {b}");
    }
    Ok(())
}

#[test]
fn threads_may_share_a_layer_whose_parameters_are_brought_back() -> Result<()> {
    let w = numbers(4, 8, 20);
    let fake = LearnedFakeQuant::new(start(scheme(3), &w), StepSize, Lsq)?.with_sizes_as_they_are();
    let layer = FakeQuantLayer::new(fake, &CPU)?;
    let parameters = layer.parameters().unwrap();
    let input = Var::from_tensor(&tensor(&w))?;
    let round = || -> Result<()> {
        for _ in 0..300 {
            parameters.set(&Tensor::new(&[-1.0_f32, -1.0, -1.0, -1.0], &CPU)?)?;
            layer.forward(&input)?.sum_all()?.backward()?;
            layer.convert(&input)?;
            layer.observe(parameters).unwrap();
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

#[test]
fn what_is_wrong_is_an_error() -> Result<()> {
    let w = numbers(4, 8, 18);
    let layer = FakeQuantLayer::new(
        LearnedFakeQuant::new(start(scheme(4), &w), StepSize, Lsq)?,
        &CPU,
    )?;
    let fails = |result: Result<Tensor>, message: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(message), "{error}");
    };
    // wrong shapes and types
    fails(
        layer.forward(&tensor(&numbers(5, 8, 19))),
        "shape of parameters",
    );
    let double = tensor(&w).to_dtype(DType::F64)?;
    fails(
        layer.forward(&double),
        "expected a tensor of f32 on the CPU, got one of F64",
    );
    assert!(layer.convert(&double).is_err() && layer.observe(&double).is_err());

    // NaN in the input is seen in the output, and does not become a code
    let mut broken = w.clone();
    broken[[1, 2]] = f32::NAN;
    let y = layer.forward(&tensor(&broken))?.to_vec2::<f32>()?;
    assert!(y[1][2].is_nan());
    let error = layer.convert(&tensor(&broken)).unwrap_err().to_string();
    assert!(error.contains("NaN at position [1, 2]"), "{error}");

    // NaN in what is learned, before the forward pass and after it
    let parameters = layer.parameters().unwrap();
    let input = Var::from_tensor(&tensor(&w))?;
    let loss = layer.forward(&input)?.sum_all()?;
    parameters.set(&Tensor::new(&[0.0_f32, f32::NAN, 0.0, 0.0], &CPU)?)?;
    fails(
        layer.forward(&input),
        "learned parameters: expected finite numbers, got NaN",
    );
    assert!(loss.backward().is_err());
    assert!(layer.update(|_| Ok(())).is_err());
    parameters.set(&Tensor::zeros(4, DType::F32, &CPU)?)?;
    assert!(layer.forward(&input).is_ok());
    Ok(())
}
