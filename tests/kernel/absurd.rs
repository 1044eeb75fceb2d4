//! Shapes that take no memory, with rows or columns that no memory holds: layers without inputs give
//! an output for each row of nothing.

use lowbit::{
    Activations, Affine, Error, PackedLinear, QTensor, Requantization, Scheme, Workspace,
};
use ndarray::{Array1, Array2, Array3};

use super::support::layers;

/// Rows of which no array of floats has 16 columns.
const ROWS: usize = usize::MAX >> 4;

fn without_inputs(outputs: usize) -> QTensor {
    let affine = Affine::per_tensor(Scheme::int(8).build().unwrap(), 0.5, 0.0).unwrap();
    QTensor::from_codes(&Array2::<i8>::zeros((outputs, 0)), &affine).unwrap()
}

fn codes() -> Affine {
    let scheme = Scheme::int(8).asymmetric().build().unwrap();
    Affine::per_tensor(scheme, 0.25, 10.0).unwrap()
}

fn is_too_large<T>(result: lowbit::Result<T>) -> bool {
    matches!(result, Err(Error::TooLarge { .. }))
}

#[test]
fn an_output_that_no_memory_holds_is_refused() {
    for layer in layers(&without_inputs(16), None) {
        let quantized = layer
            .clone()
            .with_activations(Activations::Static(codes()))
            .unwrap();
        // Some that cannot be counted in bytes, and some that can.
        for rows in [ROWS, usize::MAX >> 7] {
            let x = Array2::<f32>::zeros((rows, 0));
            assert!(is_too_large(layer.forward(&x)));
            assert!(is_too_large(quantized.forward(&x)));
            assert!(is_too_large(quantized.accumulate(&x)));
        }
        let (x, to) = (
            Array2::<f32>::zeros((ROWS, 0)),
            Requantization::float(codes()),
        );
        assert!(is_too_large(
            quantized.forward_requantized::<_, i8, _>(&x, &to.unwrap())
        ));
        // No output at all, of a shape that no array may have.
        let x = Array3::<f32>::zeros((0, ROWS, 0));
        assert!(is_too_large(layer.forward(&x)));
    }
}

#[test]
fn rows_without_inputs_and_outputs_take_no_memory() {
    let x = Array2::<f32>::zeros((ROWS, 0));
    for layer in layers(&without_inputs(0), None) {
        assert_eq!(layer.forward(&x).unwrap().dim(), (ROWS, 0));
        let quantized = layer
            .with_activations(Activations::Static(codes()))
            .unwrap();
        let mut out = Array2::zeros((ROWS, 0));
        quantized
            .forward_into(&x, &mut out, &mut Workspace::new())
            .unwrap();
        assert_eq!(quantized.accumulate(&x).unwrap().dim(), (ROWS, 0));
    }
}

#[test]
fn an_absurd_number_of_outputs_without_inputs_is_refused() {
    assert!(is_too_large(PackedLinear::pack(
        &without_inputs(ROWS),
        None
    )));
}

#[test]
fn a_layer_without_inputs_gives_its_bias() {
    let scheme = Scheme::int(8).per_axis(0).build().unwrap();
    let affine = Affine::symmetric(scheme, &[3], vec![0.5, 1.0, 2.0]).unwrap();
    let weights = QTensor::from_codes(&Array2::<i8>::zeros((3, 0)), &affine).unwrap();
    let bias = [1.0, -0.5, 100.0];
    let x = Array2::<f32>::zeros((2, 0));
    for layer in layers(&weights, Some(&bias)) {
        assert_eq!(
            layer.forward(&x).unwrap().row(1),
            Array1::from(bias.to_vec())
        );
        let layer = layer
            .with_activations(Activations::Static(codes()))
            .unwrap();
        assert_eq!(
            layer.forward(&x).unwrap().row(0),
            Array1::from(bias.to_vec())
        );
        for to in [
            Requantization::float(codes()).unwrap(),
            Requantization::fixed_point(codes()).unwrap(),
        ] {
            let got: Array2<i8> = layer.forward_requantized(&x, &to).unwrap();
            assert_eq!(got.row(1).to_vec(), [14, 8, 127]);
        }
    }
}

#[test]
fn integer_products_of_absurd_shapes_without_elements_are_answered() {
    let tall = Array2::<u8>::zeros((ROWS, 0));
    let wide = Array2::<i8>::zeros((0, ROWS));
    let nothing = |rows, columns| {
        lowbit::matmul_integer(
            &Array2::<u8>::zeros((rows, 0)),
            &[3],
            &Array2::<i8>::zeros((0, columns)),
            &[-5],
        )
    };
    assert!(is_too_large(lowbit::matmul_integer(
        &tall,
        &[0],
        &wide,
        &[0]
    )));
    assert!(is_too_large(nothing(usize::MAX >> 7, 16)));
    assert_eq!(nothing(ROWS, 0).unwrap().dim(), (ROWS, 0));
    assert_eq!(nothing(0, ROWS).unwrap().dim(), (0, ROWS));
    assert_eq!(nothing(2, 3).unwrap(), Array2::<i32>::zeros((2, 3)));
}
