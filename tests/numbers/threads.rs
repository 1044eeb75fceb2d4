//! The same bits on any number of threads, for arrays large enough to be shared among them.

use half::f16;
use lowbit::{
    Affine, Granularity, Groups, QTensor, Ranges, Scheme, affine::scalar, dequantize,
    fake_quantize, quantize,
};
use ndarray::Array3;

const SHAPE: [usize; 3] = [7, 129, 211];

const GRANULARITIES: [Granularity; 8] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerAxis(2),
    Granularity::PerRow,
    Granularity::PerGroup(32),
    Granularity::PerGroupAlong { axis: 1, size: 50 },
    Granularity::PerBlock {
        rows: 60,
        columns: 100,
    },
];

fn wave() -> Array3<f32> {
    Array3::from_shape_fn(SHAPE, |(i, j, k)| {
        let element = ((i * 129 + j) * 211 + k) as u64;
        (element * 2_654_435_761 % 1_000_003) as f32 / 100_000.0 - 4.0
    })
}

fn scheme(granularity: Granularity) -> Scheme {
    Scheme::int(4)
        .asymmetric()
        .granularity(granularity)
        .build()
        .unwrap()
}

#[test]
fn large_arrays_follow_the_scalar_definition() {
    let x = wave();
    for granularity in GRANULARITIES {
        let scheme = scheme(granularity);
        let affine = Affine::of(&scheme, &x).unwrap();
        let groups = Groups::new(&SHAPE, granularity).unwrap();
        let codes = quantize::<_, i8, _>(&x, &affine).unwrap();
        let fake = fake_quantize(&x, &affine).unwrap();
        let tensor = QTensor::quantize(&x, &affine).unwrap();
        let packed = tensor.codes::<i8>().unwrap();
        let all = x.iter().zip(&codes).zip(&fake).zip(&packed);
        for (element, (((&x, &code), &fake), &packed)) in all.enumerate() {
            let parameter = affine.parameter(groups.parameter_of(element)).unwrap();
            let (scale, zero) = (parameter.scale, parameter.zero_point);
            assert_eq!(i32::from(code), scalar::quantize(x, scale, zero, &scheme));
            assert_eq!(
                fake,
                scalar::dequantize::<f32>(code.into(), scale, zero, &scheme)
            );
            assert_eq!(packed, code);
        }
    }
}

#[test]
fn the_first_nan_is_named_whichever_thread_finds_one() {
    for at in [[6, 128, 210], [3, 0, 7], [0, 0, 0]] {
        let mut x = wave();
        x[[6, 128, 210]] = f32::NAN;
        x[at] = f32::NAN;
        let affine = Affine::per_tensor(scheme(Granularity::PerTensor), 0.1, 0.0).unwrap();
        for error in [
            quantize::<_, i8, _>(&x, &affine).unwrap_err(),
            QTensor::quantize(&x, &affine).unwrap_err(),
            Ranges::of(&x, Granularity::PerTensor).unwrap_err(),
        ] {
            assert!(
                matches!(&error, lowbit::Error::NonFinite { position, .. } if *position == at),
                "{error}"
            );
        }
    }
}

#[cfg(feature = "rayon")]
#[test]
fn the_number_of_threads_changes_no_bit() {
    let x = wave();
    let halves = x.mapv(f16::from_f32);
    let results = || {
        GRANULARITIES.map(|granularity| {
            let scheme = scheme(granularity);
            let affine = Affine::of(&scheme, &x).unwrap();
            let codes = quantize::<_, i8, _>(&x, &affine).unwrap();
            (
                fake_quantize(&x, &affine).unwrap().mapv(f32::to_bits),
                dequantize::<f64, _, _>(&codes, &affine).unwrap(),
                quantize::<_, i16, _>(&halves, &affine).unwrap(),
                QTensor::quantize(&x, &affine).unwrap(),
                affine,
                codes,
            )
        })
    };
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build().unwrap().install(results)
    };
    let alone = in_pool(1);
    for threads in [2, 5] {
        assert!(in_pool(threads) == alone, "{threads} threads");
    }
}

#[cfg(not(feature = "rayon"))]
#[test]
fn sixteen_bit_floats_are_quantized_as_what_they_widen_to() {
    let halves = wave().mapv(f16::from_f32);
    let affine = Affine::per_tensor(scheme(Granularity::PerTensor), 0.1, 0.0).unwrap();
    let codes = quantize::<_, i8, _>(&halves, &affine).unwrap();
    let wide = quantize::<_, i8, _>(&halves.mapv(f16::to_f32), &affine).unwrap();
    assert_eq!(codes, wide);
    assert_eq!(
        dequantize::<f16, _, _>(&codes, &affine).unwrap(),
        fake_quantize(&halves, &affine).unwrap()
    );
}
