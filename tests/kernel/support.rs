//! Schemes, tensors and activations to multiply.

use lowbit::{
    Activations, Affine, Granularity, Groups, Isa, Mapping, PackedLinear, QTensor, Scheme,
};
use ndarray::Array2;

/// Small deterministic random numbers.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// A code: one of the extremes and their neighbours half of the time.
    pub(crate) fn code(&mut self, min: i32, max: i32) -> i32 {
        let extremes = [min, max, 0, 1, -1, min + 1];
        if self.next().is_multiple_of(2) {
            extremes[self.below(6)].clamp(min, max)
        } else {
            min + self.below((max - min + 1) as usize) as i32
        }
    }

    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }
}

/// Parameters of random scales and zero points.
pub(crate) fn affine(scheme: Scheme, shape: &[usize], random: &mut Random) -> Affine {
    let groups = Groups::new(shape, scheme.granularity()).unwrap();
    let (min, max) = (scheme.quant_min(), scheme.quant_max());
    let n = groups.parameters();
    let scale = (0..n)
        .map(|_| 0.01 + 0.02 * (1.0 + random.float()))
        .collect();
    let zero = (0..n)
        .map(|_| match scheme.mapping() {
            Mapping::Asymmetric => random.code(min, max) as f32,
            Mapping::AsymmetricFloat => 3.0 * random.float() + 0.3,
            _ => scheme.middle() as f32,
        })
        .collect();
    Affine::new(scheme, &groups.parameter_shape(), scale, zero).unwrap()
}

/// A matrix of random codes, extremes among them.
pub(crate) fn codes(scheme: &Scheme, shape: (usize, usize), random: &mut Random) -> Array2<i32> {
    let (min, max) = (scheme.quant_min(), scheme.quant_max());
    Array2::from_shape_simple_fn(shape, || random.code(min, max))
}

pub(crate) fn tensor(scheme: Scheme, shape: (usize, usize), random: &mut Random) -> QTensor {
    let affine = affine(scheme, &[shape.0, shape.1], random);
    QTensor::from_codes(&codes(&scheme, shape, random), &affine).unwrap()
}

/// Every way in which weights can be quantized, for some number of bits.
pub(crate) fn weight_schemes(bits: u32) -> Vec<Scheme> {
    let mut schemes = Vec::new();
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerAxis(0),
        Granularity::PerRow,
        Granularity::PerGroup(32),
        Granularity::PerGroup(20),
        Granularity::PerGroupAlong { axis: 1, size: 64 },
        Granularity::PerBlock {
            rows: 3,
            columns: 40,
        },
    ] {
        for mapping in [
            Mapping::Symmetric,
            Mapping::Asymmetric,
            Mapping::AsymmetricFloat,
        ] {
            for signed in [true, false] {
                let scheme = Scheme::int(bits).mapping(mapping).granularity(granularity);
                let scheme = if signed { scheme } else { scheme.unsigned() };
                schemes.extend(scheme.build());
            }
        }
    }
    schemes
}

/// Activations of 8 bits: signed and unsigned, with and without a zero point.
pub(crate) fn activation_schemes() -> [Scheme; 4] {
    let int = Scheme::int(8);
    [
        int,
        int.asymmetric(),
        int.unsigned(),
        int.unsigned().asymmetric(),
    ]
    .map(|scheme| scheme.build().unwrap())
}

pub(crate) fn layers(weights: &QTensor, bias: Option<&[f32]>) -> Vec<PackedLinear> {
    let pack = |&isa: &Isa| PackedLinear::pack_for(isa, weights, bias).unwrap();
    Isa::available().iter().map(pack).collect()
}

pub(crate) fn quantized(layer: &PackedLinear, affine: &Affine) -> PackedLinear {
    let activations = Activations::Static(affine.clone());
    layer.clone().with_activations(activations).unwrap()
}
