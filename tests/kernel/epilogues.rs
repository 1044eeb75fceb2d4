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
fn an_output_that_is_nan_is_named_by_the_first_place_in_the_array() {
    // Two infinite inputs: their difference is no number, their sum is.
    let (outputs, differs) = (70, [41, 43, 68]);
    let weights = Array2::from_shape_fn((outputs, 2), |(o, i)| {
        if i == 1 && differs.contains(&o) {
            -1_i8
        } else {
            1
        }
    });
    let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1.0, 0.0).unwrap();
    let weights = QTensor::from_codes(&weights, &affine).unwrap();
    let output = Requantization::float(Affine::per_tensor(unsigned(), 1.0, 0.0).unwrap()).unwrap();
    for rows in [3, 7] {
        let mut x = Array2::<f32>::ones((rows, 2));
        x.row_mut(2).fill(f32::INFINITY);
        for layer in layers(&weights, None) {
            let error = layer.forward_requantized::<_, u8, _>(&x, &output);
            let Err(Error::NonFinite { position, .. }) = error else {
                panic!("{error:?}");
            };
            assert_eq!(position, [2, 41], "{}", layer.kernel());
        }
    }
}

#[test]
fn no_bias_is_a_bias_of_zeros_to_the_bit() {
    // A product that is too small for a float is 0, of the sign that 0 has after a bias of 0.
    let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1e-30, 0.0).unwrap();
    let weights = QTensor::from_codes(&Array2::from_elem((9, 3), -1_i8), &affine).unwrap();
    let input = Affine::per_tensor(Scheme::int(8).build().unwrap(), 1e-30, 0.0).unwrap();
    let bits = |layer: PackedLinear| {
        let x = Array2::from_elem((2, 3), 1e-30_f32);
        layer.forward(&x).unwrap().mapv(f32::to_bits)
    };
    for (none, zeros) in layers(&weights, None)
        .into_iter()
        .zip(layers(&weights, Some(&[0.0; 9])))
    {
        assert_eq!(
            bits(quantized(&none, &input)),
            bits(quantized(&zeros, &input))
        );
        assert_eq!(bits(none), bits(zeros));
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
    let rows = Scheme::int(8).per_row().build().unwrap();
    let rows = Affine::symmetric(rows, &[1], vec![1.0]).unwrap();
    let real = Scheme::int(8).asymmetric_float().build().unwrap();
    let real = Affine::per_tensor(real, 1.0, 0.5).unwrap();
    let small = Scheme::float(lowbit::FloatFormat::E4M3).build().unwrap();
    let small = Affine::per_tensor(small, 1.0, 0.0).unwrap();
    for bad in [bad, rows, real, small] {
        assert!(Requantization::float(bad.clone()).is_err());
        assert!(Requantization::fixed_point(bad).is_err());
    }
    // Exact sums need integers, of one scale an output.
    let real = Scheme::int(8).asymmetric_float().build().unwrap();
    let real = Affine::per_tensor(real, 1.0, 2.0).unwrap();
    let real = QTensor::quantize(&Array2::<f32>::ones((2, 64)), &real).unwrap();
    let real = PackedLinear::pack(&real, None).unwrap();
    for layer in [
        quantized(&real, &input),
        quantized(&grouped, &input),
        per_channel,
    ] {
        assert!(matches!(
            layer.accumulate(&x),
            Err(Error::Unsupported { .. })
        ));
    }
    assert_eq!(layer.accumulate(&x).unwrap(), Array2::from_elem((1, 2), 64));
    // A multiplier of 2^40.
    let tiny = Affine::per_tensor(unsigned(), 2.0_f32.powi(-40), 0.0).unwrap();
    let tiny = Requantization::fixed_point(tiny).unwrap();
    assert!(
        layer
            .forward_requantized::<_, u8, _>(&Array2::<f32>::ones((1, 64)), &tiny)
            .is_err()
    );
}
