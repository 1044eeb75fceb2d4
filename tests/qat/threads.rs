//! The same bits, however the work is shared.

use lowbit::{
    FakeQuantExt, Granularity, Scheme,
    qat::{AffineFakeQuant, Lsq},
};
use ndarray::Array2;

/// Gradients of a large tensor with uneven values, as one number.
fn fingerprint(granularity: Granularity) -> u64 {
    let shape = (257, 1001);
    let wave = |k: usize| (k as u64 * 2_654_435_761 % 100_003) as f32 / 20_000.0 - 2.5;
    let x = Array2::from_shape_fn(shape, |(i, j)| wave(i * 1001 + j));
    let g = Array2::from_shape_fn(shape, |(i, j)| wave(j * 257 + i));
    let scheme = Scheme::int(4)
        .asymmetric()
        .granularity(granularity)
        .build()
        .unwrap();
    let fake = AffineFakeQuant::new(Lsq::initial(&x, &scheme).unwrap(), Lsq);
    let gradients = fake.backward(&x, &g).unwrap();
    let all = gradients
        .input
        .iter()
        .chain(&gradients.scale)
        .chain(&gradients.zero_point);
    all.fold(0xcbf2_9ce4_8422_2325, |hash, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01b3)
    })
}

const GRANULARITIES: [Granularity; 5] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerGroup(7),
    Granularity::PerBlock {
        rows: 3,
        columns: 5,
    },
];

/// The same numbers with rayon and without, since both builds run this.
#[test]
fn gradients_have_the_same_bits_in_every_build() {
    let fingerprints = GRANULARITIES.map(fingerprint);
    let expected = [
        0xd64d_e11c_5938_b9b0,
        0x5eea_9713_98bc_0774,
        0x8cf0_fc07_0d71_a1da,
        0x0b84_e848_01d4_b643,
        0x6d40_6362_7085_86d5,
    ];
    assert_eq!(fingerprints, expected, "{fingerprints:#x?}");
}

#[cfg(feature = "rayon")]
#[test]
fn gradients_have_the_same_bits_with_any_number_of_threads() {
    let in_pool = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| GRANULARITIES.map(fingerprint))
    };
    let alone = in_pool(1);
    for threads in [2, 5] {
        assert_eq!(in_pool(threads), alone);
    }
}
