//! Codes for the next layer, in floats and in fixed point.

use lowbit::{
    Activations, Affine, Error, PackedLinear, QTensor, Requantization, Scheme, codes::Multiplier,
    quantize,
};
use ndarray::Array2;

use super::support::{Random, affine, codes, layers, quantized, tensor};

fn unsigned() -> Scheme {
    Scheme::int(8).unsigned().asymmetric().build().unwrap()
}

#[test]
fn float_requantization_is_quantizing_the_float_output() {
    let mut random = Random(21);
    for bits in [4, 8] {
        let scheme = Scheme::int(bits).per_group(32).build().unwrap();
        let weights = tensor(scheme, (21, 90), &mut random);
        let input = affine(unsigned(), &[7, 90], &mut random);
        let x = codes(&unsigned(), (7, 90), &mut random).mapv(|code| code as u8);
        let output = Affine::per_tensor(unsigned(), 2.0, 100.0).unwrap();
        for layer in layers(&weights, Some(&[0.25; 21])) {
            let requantization = Requantization::float(output.clone()).unwrap();
            let float = layer.forward(&x.mapv(f32::from)).unwrap();
            let weight_only: Array2<u8> = layer
                .forward_requantized(&x.mapv(f32::from), &requantization)
                .unwrap();
            assert_eq!(weight_only, quantize::<_, u8, _>(&float, &output).unwrap());
            let layer = quantized(&layer, &input);
            let float = layer.forward(&x).unwrap();
            let got: Array2<u8> = layer.forward_requantized(&x, &requantization).unwrap();
            assert_eq!(got, quantize::<_, u8, _>(&float, &output).unwrap());
        }
    }
}

#[test]
fn fixed_point_requantization_is_its_definition() {
    let mut random = Random(22);
    let scheme = Scheme::int(8).per_axis(0).build().unwrap();
    let weights = tensor(scheme, (21, 90), &mut random);
    let input = affine(unsigned(), &[5, 90], &mut random);
    let x = codes(&unsigned(), (5, 90), &mut random).mapv(|code| code as u8);
    let bias: Vec<f32> = (0..21).map(|_| 10.0 * random.float()).collect();
    let output = Affine::per_tensor(Scheme::int(8).asymmetric().build().unwrap(), 3.0, -20.0);
    let output = output.unwrap();
    for layer in layers(&weights, Some(&bias)) {
        let layer = quantized(&layer, &input);
        let requantization = Requantization::fixed_point(output.clone()).unwrap();
        let got: Array2<i8> = layer.forward_requantized(&x, &requantization).unwrap();
        let sums = layer.accumulate(&x).unwrap();
        let floats: Array2<i8> = quantize(&layer.forward(&x).unwrap(), &output).unwrap();
        let mut differing = 0;
        for (((m, n), &got), &float) in got.indexed_iter().zip(&floats) {
            let unit = f64::from(input.scale()[0]) * f64::from(weights.affine().scale()[n]);
            let bias = (f64::from(bias[n]) / unit).round_ties_even() as i32;
            let steps = Multiplier::new(unit / 3.0)
                .unwrap()
                .apply(sums[[m, n]] + bias);
            assert_eq!(i32::from(got), (steps - 20).clamp(-128, 127));
            assert!((i32::from(got) - i32::from(float)).abs() <= 1);
            differing += i32::from(got != float);
        }
        assert!(
            differing < 5,
            "{differing} of {} differ from floats",
            got.len()
        );
    }
}

#[test]
fn what_a_requantization_cannot_serve_is_refused() {
    let weights = |scheme: Scheme, parameters: &[usize]| {
        let n = parameters.iter().product();
        let affine = Affine::symmetric(scheme, parameters, vec![1.0; n]).unwrap();
        let tensor = QTensor::quantize(&Array2::<f32>::ones((2, 64)), &affine).unwrap();
        PackedLinear::pack(&tensor, None).unwrap()
    };
    let per_channel = weights(Scheme::int(8).per_axis(0).build().unwrap(), &[2]);
    let grouped = weights(Scheme::int(8).per_group(32).build().unwrap(), &[2, 2]);
    let input = Affine::per_tensor(unsigned(), 1.0, 0.0).unwrap();
    let fixed = Requantization::fixed_point(input.clone()).unwrap();
    let x = Array2::<f32>::ones((1, 64));
    let is_unsupported = |result: lowbit::Result<Array2<u8>>| {
        assert!(
            matches!(result, Err(Error::Unsupported { .. })),
            "{result:?}"
        );
    };
    is_unsupported(per_channel.forward_requantized(&x, &fixed));
    let dynamic = Activations::Dynamic(unsigned());
    let dynamic = per_channel.clone().with_activations(dynamic).unwrap();
    is_unsupported(dynamic.forward_requantized(&x, &fixed));
    is_unsupported(quantized(&grouped, &input).forward_requantized(&x, &fixed));
    let layer = quantized(&per_channel, &input);
    assert!(layer.forward_requantized::<_, u8, _>(&x, &fixed).is_ok());
    let wrong = layer.forward_requantized::<_, i8, _>(&x, &fixed);
    assert!(matches!(wrong, Err(Error::CodeType { .. })));
    let bad = Affine::per_tensor(Scheme::int(16).build().unwrap(), 1.0, 0.0).unwrap();
    assert!(
        Requantization::float(bad.clone()).is_err() && Requantization::fixed_point(bad).is_err()
    );
    // A multiplier of 2^40.
    let tiny = Affine::per_tensor(unsigned(), 2.0_f32.powi(-40), 0.0).unwrap();
    let tiny = Requantization::fixed_point(tiny).unwrap();
    assert!(
        layer
            .forward_requantized::<_, u8, _>(&Array2::<f32>::ones((1, 64)), &tiny)
            .is_err()
    );
}
