//! What the passes and converting have to do with each other.

use lowbit::{
    Affine, FakeQuant, FakeQuantExt, Ranges, StraightThroughEstimator, fake_quantize,
    qat::{DynamicFakeQuant, Lsq, Partials, Plain, Point},
};
use proptest::prelude::*;

use super::support::{arrays, bits, learned, numbers, schemes};

/// An estimator of another crate, whose "gradient" is the output it was shown.
#[derive(Debug, Clone)]
struct Output;

impl StraightThroughEstimator for Output {
    fn partials(&self, at: &Point, _gradient: f32) -> Partials {
        Partials {
            input: at.output(),
            ..Partials::default()
        }
    }
}

fn moves() -> impl Strategy<Value = Vec<(f32, f32)>> {
    let scale = prop_oneof![1e-3_f32..2.0, -1.0_f32..1e-6, 1.0_f32..60_000.0];
    prop::collection::vec((scale, -300.0_f32..300.0), 1..5)
}

proptest! {
    #[test]
    fn converting_gives_what_the_forward_pass_gave(
        scheme in schemes(), x in arrays(numbers()), moved in moves(),
    ) {
        let fake = learned(scheme, x.shape(), &moved, Lsq);
        let y = fake.forward(&x).unwrap();
        let converted = fake.convert(&x).unwrap().dequantize::<f32>();
        prop_assert_eq!(converted.shape(), x.shape());
        prop_assert_eq!(bits(&y), bits(&converted));
        prop_assert_eq!(bits(&y), bits(&fake_quantize(&x, fake.affine()).unwrap()));
    }

    #[test]
    fn the_backward_pass_sees_what_the_forward_pass_gave(
        scheme in schemes(), x in arrays(prop_oneof![20 => numbers(), 1 => Just(f32::NAN)]),
        moved in moves(),
    ) {
        let fake = learned(scheme, x.shape(), &moved, Output);
        let seen = fake.backward(&x, &x).unwrap().input;
        let y = fake.forward(&x).unwrap();
        for (&seen, &y) in seen.iter().zip(&y) {
            prop_assert!(seen.to_bits() == y.to_bits() || seen.is_nan() && y.is_nan());
        }
        prop_assert_eq!(x.mapv(f32::is_nan), y.mapv(f32::is_nan));
    }

    #[test]
    fn dynamic_ranges_are_those_of_the_input(
        scheme in schemes(), x in arrays(-1e3_f32..1e3),
    ) {
        let fake: Box<dyn FakeQuant> = Box::new(DynamicFakeQuant::new(scheme, Plain));
        let ranges = Ranges::of(&x, scheme.granularity()).unwrap();
        let affine = Affine::from_ranges(&scheme, &ranges).unwrap();
        let y = fake.forward(&x).unwrap();
        prop_assert_eq!(bits(&y), bits(&fake_quantize(&x, &affine).unwrap()));
        prop_assert_eq!(bits(&y), bits(&fake.convert(&x).unwrap().dequantize::<f32>()));
        let gradients = fake.backward(&x, &x).unwrap();
        prop_assert_eq!(gradients.input, x);
        prop_assert!(gradients.scale.is_empty() && gradients.zero_point.is_empty());
    }
}
