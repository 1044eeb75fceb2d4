//! torch.ao's observers: batches in order, then scale and zero point.

use lowbit::{
    Affine, Granularity, Observer, ObserverExt, Scheme,
    calibrate::{FullRange, ranges},
    observe::{MinMax, MovingAverageMinMax},
};
use ndarray::{ArrayD, arr1};

use super::{Outputs, axis_of, words};
use crate::case::{Case, Data};

pub(super) fn observe(case: &Case) -> Result<Outputs, String> {
    let batches = case.numbered("batch");
    let axes = batches.first().map_or(0, |batch| batch.shape().len());
    let kind = case.text("observer")?;
    let granularity = if kind.contains("PerChannel") {
        Granularity::PerAxis(axis_of(case, axes, 0)?)
    } else {
        Granularity::PerTensor
    };
    let mut observer: Box<dyn Observer> = match kind {
        "MinMax" | "PerChannelMinMax" => Box::new(MinMax::new(granularity)),
        "MovingAverageMinMax" | "MovingAveragePerChannelMinMax" => {
            let constant = case.real("averaging_constant")? as f32;
            let average = MovingAverageMinMax::new(granularity);
            Box::new(average.with_averaging_constant(constant).map_err(words)?)
        }
        other => return Err(format!("observer {other} is not known")),
    };
    for batch in batches {
        observer.observe(&batch.to_f32()).map_err(words)?;
    }
    let scheme = match case.text("dtype")? {
        "int8" | "qint8" => Scheme::int(8),
        "uint8" | "quint8" => Scheme::int(8).unsigned(),
        other => return Err(format!("element type {other} is not known")),
    };
    let mapping = if case.flag("symmetric") {
        lowbit::Mapping::SymmetricHalfRange
    } else {
        lowbit::Mapping::Asymmetric
    };
    let scheme = scheme.mapping(mapping).granularity(granularity);
    let scheme = scheme.build().map_err(words)?;
    let ranges = ranges(&FullRange, &*observer, &scheme).map_err(words)?;
    // torch.ao's eps, 2⁻²³.
    let affine = Affine::from_ranges_with_least_scale(&scheme, &ranges, f32::EPSILON);
    let affine = affine.map_err(words)?;
    let ends = |end: fn(lowbit::Range) -> f32| -> ArrayD<f32> {
        let seen = |parameter| observer.statistics(parameter).map(|s| end(s.range()));
        (0..affine.scale().len())
            .filter_map(|p| seen(p).ok())
            .collect::<ndarray::Array1<_>>()
            .into_dyn()
    };
    let zero_point = affine.zero_point().iter().map(|&z| z as i32);
    Ok(vec![
        ("min", Data::F32(ends(lowbit::Range::min))),
        ("max", Data::F32(ends(lowbit::Range::max))),
        ("scale", Data::F32(arr1(affine.scale()).into_dyn())),
        (
            "zero_point",
            Data::I32(zero_point.collect::<ndarray::Array1<_>>().into_dyn()),
        ),
    ])
}
