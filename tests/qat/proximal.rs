//! Proximal maps against brute force.

use lowbit::{
    Affine, Scheme, fake_quantize,
    qat::{Proximal, ProximalMap},
};

use super::support::{Noise, granularities};

const PARQ: ProximalMap = ProximalMap::Parq { steepness: 10.0 };

#[test]
fn the_map_of_parq_runs_between_the_two_nearest_levels() {
    let mut noise = Noise(14);
    for granularity in granularities() {
        for builder in [
            Scheme::int(2),
            Scheme::int(3).unsigned().asymmetric(),
            Scheme::int(2).asymmetric_float(),
        ] {
            let scheme = builder.granularity(granularity).build().unwrap();
            let x = noise.array(1.0);
            let affine = Affine::of(&scheme, &noise.array(0.7)).unwrap();
            let groups = affine.groups(&[5, 10]).unwrap();
            let proximal = Proximal::new(PARQ, 10, 30).unwrap();
            for step in [10, 15, 20, 29] {
                let inverse = proximal.freedom(step) as f32;
                let got = proximal.weights(step, &x, &affine).unwrap();
                for (index, (&x, &got)) in x.iter().zip(&got).enumerate() {
                    let parameter = groups.parameter_of(index);
                    let (s, z) = (affine.scale()[parameter], affine.zero_point()[parameter]);
                    let levels: Vec<f32> = (scheme.quant_min()..=scheme.quant_max())
                        .map(|code| (code as f32 - z) * s)
                        .collect();
                    let lower = levels
                        .iter()
                        .copied()
                        .filter(|&l| l <= x)
                        .fold(levels[0], f32::max);
                    let last = levels[levels.len() - 1];
                    let upper = levels
                        .iter()
                        .copied()
                        .filter(|&l| l > x)
                        .fold(last, f32::min);
                    let middle = 0.5 * (lower + upper);
                    let expected = (middle + (x - middle) / inverse).clamp(lower, upper);
                    assert!(
                        (got - expected).abs() < 1e-5,
                        "{scheme} {x}: {got} {expected}"
                    );
                }
            }
            let end = proximal.weights(30, &x, &affine).unwrap();
            assert_eq!(end, fake_quantize(&x, &affine).unwrap());
            assert_eq!(proximal.weights(9, &x, &affine).unwrap(), x);
        }
    }
}

#[test]
fn binary_relax_is_the_mean_of_a_weight_and_its_level() {
    let affine = Affine::per_tensor(Scheme::int(2).build().unwrap(), 1.0, 0.0).unwrap();
    let proximal = Proximal::new(ProximalMap::BinaryRelax, 0, 10).unwrap();
    let x = ndarray::array![0.4_f32, -0.8, 5.0, f32::NAN];
    let got = proximal.weights(5, &x, &affine).unwrap();
    assert_eq!(got.to_vec()[..3], [0.2, -0.9, 3.0]);
    assert!(got[3].is_nan());
}

#[test]
fn freedom_falls_from_one_to_nothing() {
    for map in [PARQ, ProximalMap::BinaryRelax] {
        let proximal = Proximal::new(map, 100, 200).unwrap();
        let freedom: Vec<f64> = (90..=210).map(|step| proximal.freedom(step)).collect();
        assert!(freedom.windows(2).all(|pair| pair[0] >= pair[1]));
        assert_eq!((freedom[0], freedom[10], freedom[120]), (1.0, 1.0, 0.0));
        assert!((proximal.freedom(150) - 0.5).abs() < 1e-9);
    }
    assert!(Proximal::new(PARQ, 5, 5).is_err());
    let nan = ProximalMap::Parq {
        steepness: f64::NAN,
    };
    assert!(Proximal::new(nan, 0, 5).is_err());
    let float = Scheme::float(lowbit::FloatFormat::E4M3).build().unwrap();
    let affine = Affine::per_tensor(float, 1.0, 0.0).unwrap();
    let proximal = Proximal::new(PARQ, 0, 5).unwrap();
    assert!(
        proximal
            .weights(1, &ndarray::array![1.0_f32], &affine)
            .is_err()
    );
}
