//! Depths that a kernel goes through in several stretches, and groups that go on from one to the next.

use lowbit::Scheme;

use super::{
    reference::{self, Explicit},
    support::{Random, activation_schemes, affine, codes, layers, quantized, tensor},
};

#[test]
fn groups_that_span_stretches_are_those_of_the_reference() {
    let mut random = Random(41);
    let (rows, outputs, depth) = (43, 35, 2_700);
    for bits in [2, 4, 7, 8] {
        for group in [96, 700, 1_024, 1_500, depth] {
            for scheme in [
                Scheme::int(bits).per_group(group),
                Scheme::int(bits).asymmetric().per_group(group),
                Scheme::int(bits).asymmetric_float().per_group(group),
            ] {
                let scheme = scheme.build().unwrap();
                let weights = tensor(scheme, (outputs, depth), &mut random);
                let w = Explicit::of(&weights);
                for activation in [activation_schemes()[0], activation_schemes()[3]] {
                    let input = affine(activation, &[rows, depth], &mut random);
                    let x = codes(&activation, (rows, depth), &mut random);
                    let explicit = Explicit::with(x.clone(), &input);
                    let expected = reference::scaled(&explicit, &w, group, None);
                    for layer in layers(&weights, None) {
                        let layer = quantized(&layer, &input);
                        let got = if activation.quant_min() < 0 {
                            layer.forward(&x.mapv(|code| code as i8)).unwrap()
                        } else {
                            layer.forward(&x.mapv(|code| code as u8)).unwrap()
                        };
                        let name = layer.kernel();
                        assert_eq!(got, expected, "{name} {scheme} by {activation}");
                    }
                }
            }
        }
    }
}
