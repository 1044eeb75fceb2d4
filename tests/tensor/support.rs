//! Schemes and tensors of every kind.

use half::f16;
use lowbit::{
    Affine, FloatFormat, Granularity, Groups, Mapping, QTensor, ScaleKind, Scheme, SchemeBuilder,
};
use ndarray::ArrayD;
use proptest::prelude::*;

pub(super) const WIDTHS: [u32; 9] = [1, 2, 3, 4, 5, 6, 7, 8, 16];

/// Every bit width, mapping, sign and range there is, and the small floats.
pub(super) fn builders() -> Vec<SchemeBuilder> {
    let mut builders = vec![];
    for bits in WIDTHS {
        for mapping in [
            Mapping::Symmetric,
            Mapping::SymmetricHalfRange,
            Mapping::Asymmetric,
            Mapping::AsymmetricFloat,
        ] {
            let builder = Scheme::int(bits).mapping(mapping);
            builders.extend([
                builder,
                builder.unsigned(),
                builder.narrow_range(),
                builder.unsigned().narrow_range(),
            ]);
        }
    }
    builders.retain(|builder| builder.build().is_ok());
    for format in [FloatFormat::E4M3, FloatFormat::E5M2, FloatFormat::E2M1] {
        builders.push(Scheme::float(format));
    }
    builders
}

pub(super) const SCALE_KINDS: [ScaleKind; 3] =
    [ScaleKind::F32, ScaleKind::F16, ScaleKind::PowerOfTwo];

/// Granularities of a tensor of three axes.
pub(super) const GRANULARITIES: [Granularity; 8] = [
    Granularity::PerTensor,
    Granularity::PerAxis(0),
    Granularity::PerAxis(1),
    Granularity::PerAxis(2),
    Granularity::PerRow,
    Granularity::PerGroup(3),
    Granularity::PerGroupAlong { axis: 0, size: 2 },
    Granularity::PerBlock {
        rows: 2,
        columns: 4,
    },
];

/// Parameters that differ from each other, as the scheme allows them.
pub(super) fn affine(scheme: Scheme, shape: &[usize]) -> Affine {
    let groups = Groups::new(shape, scheme.granularity()).unwrap();
    let (low, high) = (scheme.quant_min(), scheme.quant_max());
    let parameters = (0_i16..).take(groups.parameters()).map(|index| {
        let scale = match scheme.scale_kind() {
            ScaleKind::PowerOfTwo => 2_f32.powi(i32::from(index % 5) - 2),
            _ => f16::from_f32(0.1 + f32::from(index % 7)).to_f32(),
        };
        let code = low + i32::from(index) % (high - low + 1);
        let zero_point = match scheme.mapping() {
            Mapping::Asymmetric => code as f32,
            Mapping::AsymmetricFloat => 0.3 * f32::from(index),
            _ => scheme.middle() as f32,
        };
        (scale, zero_point)
    });
    let (scale, zero_point) = parameters.unzip();
    Affine::new(scheme, &groups.parameter_shape(), scale, zero_point).unwrap()
}

/// Codes from the least to the greatest and around again.
pub(super) fn codes(scheme: &Scheme, shape: &[usize]) -> ArrayD<i32> {
    let (low, high) = (scheme.quant_min(), scheme.quant_max());
    // Coprime with every number of codes, or nearly so.
    let mut next = (0..).map(|index: i32| low + index * 7 % (high - low + 1));
    ArrayD::from_shape_simple_fn(shape, || next.next().unwrap())
}

pub(super) fn tensor(scheme: Scheme, shape: &[usize]) -> QTensor {
    QTensor::from_codes(&codes(&scheme, shape), &affine(scheme, shape)).unwrap()
}

/// Schemes for tensors of three axes.
pub(super) fn schemes() -> impl Strategy<Value = Scheme> {
    let builders = prop::sample::select(builders());
    let kinds = prop::sample::select(SCALE_KINDS.to_vec());
    let granularities = prop::sample::select(GRANULARITIES.to_vec());
    (builders, kinds, granularities).prop_map(|(builder, kind, granularity)| {
        builder
            .scale_kind(kind)
            .granularity(granularity)
            .build()
            .unwrap()
    })
}
