//! Models and data that are not what they should be.

use lowbit::{
    Error, Result,
    flow::{FloatLayer, LayerMethod, ModelQuantization, QuantizedLayer, Recipe, Treatment},
};
use ndarray::Array2;

use super::support::{HIDDEN, Model, recipe, samples, scheme};

#[test]
fn no_sample_is_an_error() {
    let recipe = recipe("gptq", 3);
    for samples in [vec![], vec![Array2::zeros((0, HIDDEN))]] {
        let error = ModelQuantization::new(&recipe)
            .run(&mut Model::random(1, 1), samples)
            .unwrap_err();
        assert!(matches!(error, Error::Empty { .. }), "{error}");
    }
}

#[test]
fn values_that_are_not_finite_name_the_layer() {
    let recipe = recipe("best", 3);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut model = Model::random(2, 1);
        model.0[1].layers[2].weights[[3, 4]] = bad;
        let error = ModelQuantization::new(&recipe)
            .run(&mut model, samples(2))
            .unwrap_err();
        assert!(error.to_string().contains("blocks.1.down"), "{error}");

        let mut data = samples(2);
        data[9][[1, 2]] = bad;
        let error = ModelQuantization::new(&recipe)
            .run(&mut Model::random(2, 1), data)
            .unwrap_err();
        assert!(
            matches!(&error, Error::Layer { layer, .. } if layer == "stream"),
            "{error}"
        );
    }
}

/// Gives every layer the shape of another.
#[derive(Debug)]
struct Careless;

impl LayerMethod for Careless {
    fn name(&self) -> String {
        "careless".into()
    }

    fn quantize(&self, layer: &FloatLayer<'_>, _: &mut Vec<String>) -> Result<QuantizedLayer> {
        use lowbit::QuantizerExt;
        let other = Array2::<f32>::ones((2, 3));
        QuantizedLayer::new(lowbit::RoundToNearest::new(layer.scheme).quantize(&other)?)
    }
}

#[test]
fn a_method_that_returns_another_shape_is_refused() {
    let recipe = Recipe::new().quantize("*", Treatment::new(scheme(4), Careless));
    let error = ModelQuantization::new(&recipe)
        .run(&mut Model::random(1, 1), samples(2))
        .unwrap_err();
    assert!(error.to_string().contains("shape"), "{error}");
}

#[test]
fn a_tensor_of_three_axes_is_no_layer() {
    use lowbit::QuantizerExt;
    let weights = ndarray::Array3::<f32>::ones((2, 3, 4));
    let quantized = lowbit::RoundToNearest::new(scheme(4))
        .quantize(&weights)
        .unwrap();
    assert!(matches!(
        QuantizedLayer::new(quantized),
        Err(Error::Unsupported { .. })
    ));
}
