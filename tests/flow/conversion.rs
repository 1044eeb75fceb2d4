//! The law of converting: the integer layer computes what training computed.

use lowbit::{
    Affine, Granularity, Mapping, ScaleKind, Scheme, SchemeBuilder,
    flow::{FloatWeights, QatPreparation, QatStart},
};
use proptest::prelude::*;

use super::{
    qat::{recipe, statistics},
    support::bell,
};

fn weights() -> impl Strategy<Value = SchemeBuilder> {
    let mapping = prop::sample::select(vec![
        Mapping::Symmetric,
        Mapping::SymmetricHalfRange,
        Mapping::Asymmetric,
        Mapping::AsymmetricFloat,
    ]);
    let granularity = prop_oneof![
        Just(Granularity::PerTensor),
        Just(Granularity::PerAxis(0)),
        (1..20_usize).prop_map(Granularity::PerGroup),
    ];
    (1..=8_u32, any::<bool>(), mapping, granularity)
        .prop_filter("a scheme", |(bits, _, mapping, _)| {
            *bits > 1 || !mapping.is_symmetric()
        })
        .prop_map(|(bits, unsigned, mapping, granularity)| {
            let builder = Scheme::int(bits).mapping(mapping).granularity(granularity);
            if unsigned {
                builder.unsigned()
            } else {
                builder
            }
        })
}

fn activations() -> impl Strategy<Value = SchemeBuilder> {
    (2..=8_u32, any::<[bool; 3]>()).prop_map(|(bits, [unsigned, symmetric, rows])| {
        let builder = Scheme::int(bits);
        let builder = if unsigned {
            builder.unsigned()
        } else {
            builder
        };
        let builder = if symmetric {
            builder
        } else {
            builder.asymmetric()
        };
        if rows { builder.per_row() } else { builder }
    })
}

/// How much greater than a weight the two numbers may be whose difference it is in a layer where
/// zero points are real: the code by the scale, and the zero point by the scale.
fn parts_of_real_zeros(weights: &Affine) -> f32 {
    if weights.scheme().mapping() != Mapping::AsymmetricFloat {
        return 0.0;
    }
    let parameters = weights.scale().iter().zip(weights.zero_point());
    parameters
        .map(|(scale, zero)| 2.0 * scale * zero.abs())
        .fold(0.0, f32::max)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// The law of converting, over schemes, shapes and data.
    #[test]
    fn the_integer_layer_computes_what_training_computed(
        weights in weights(), activations in activations(),
        (rows, inputs, outputs) in (1..5_usize, 1..70_usize, 1..6_usize),
        seed in any::<u64>(), power_of_two in any::<bool>(), moved in -0.5_f32..0.5,
        start in prop::sample::select(vec![QatStart::MeanSquaredError, QatStart::Lsq, QatStart::Method]),
    ) {
        let kind = if power_of_two { ScaleKind::PowerOfTwo } else { ScaleKind::F32 };
        let (weights, activations) = (
            weights.scale_kind(kind).build().unwrap(),
            activations.scale_kind(kind).build().unwrap(),
        );
        let (x, mut w) = (bell(rows, inputs, seed), bell(outputs, inputs, seed ^ 1));
        let recipe = recipe(weights, Some(activations));
        let seen = statistics(&x);
        let (mut qat, _) = QatPreparation::new(&recipe)
            .with_start(start)
            .prepare(&mut [FloatWeights::new("layer", w.view_mut()).with_inputs(&seen)])
            .unwrap();
        // as if training had moved what is learned
        let layer = qat.layer_mut("layer").unwrap();
        let parameters: Vec<f32> = layer.weights().parameters().iter().map(|p| p + moved).collect();
        layer.weights_mut().set_parameters(&parameters).unwrap();
        if let Some(input) = layer.input_mut() {
            let parameters: Vec<f32> = input.parameters().iter().map(|p| p - moved).collect();
            input.set_parameters(&parameters).unwrap();
        }
        let (fake_x, fake_w) = (layer.fake_input(&x).unwrap(), layer.fake_weights(&w).unwrap());
        let simulated = fake_x.dot(&fake_w.t());
        let converted = layer.convert(&w).unwrap();
        prop_assert_eq!(converted.weights().dequantize::<f32>(), fake_w.clone().into_dyn());
        let integer = converted.pack(None).unwrap().forward(&x).unwrap();
        let one_scale = !matches!(weights.granularity(), Granularity::PerGroup(_));
        if power_of_two && one_scale && weights.mapping() != Mapping::AsymmetricFloat {
            prop_assert_eq!(integer, simulated);
        } else {
            let parts = parts_of_real_zeros(&converted.weights().affine());
            let sizes = fake_x.mapv(f32::abs).dot(&fake_w.mapv(|w| w.abs() + parts).t());
            for ((a, b), size) in integer.iter().zip(&simulated).zip(&sizes) {
                let bound = (inputs + 4) as f32 * f32::EPSILON * size;
                prop_assert!((a - b).abs() <= bound, "{} {} {}", a, b, bound);
            }
        }
    }
}
