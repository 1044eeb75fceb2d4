//! Schemes, shapes, parameters and layouts of every kind.

use half::f16;
use lowbit::{Affine, FloatFormat, Granularity, Groups, Mapping, ScaleKind, Scheme};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis, Slice};
use proptest::prelude::*;

pub(super) fn formats() -> impl Strategy<Value = Scheme> {
    let bits = prop_oneof![1_u32..=8, Just(16)];
    let mapping = prop::sample::select(vec![
        Mapping::Symmetric,
        Mapping::SymmetricHalfRange,
        Mapping::Asymmetric,
        Mapping::AsymmetricFloat,
    ]);
    let scale_kind =
        prop::sample::select(vec![ScaleKind::F32, ScaleKind::F16, ScaleKind::PowerOfTwo]);
    let float = prop::sample::select(vec![
        FloatFormat::E4M3,
        FloatFormat::E5M2,
        FloatFormat::E2M1,
    ]);
    let switches = (prop::bool::weighted(0.15), any::<bool>(), any::<bool>());
    (bits, mapping, scale_kind, float, switches).prop_filter_map(
        "not a scheme",
        |(bits, mapping, scale_kind, float, (is_float, unsigned, narrow))| {
            let mut builder = if is_float {
                Scheme::float(float)
            } else {
                Scheme::int(bits).mapping(mapping)
            };
            if unsigned {
                builder = builder.unsigned();
            }
            if narrow {
                builder = builder.narrow_range();
            }
            builder.scale_kind(scale_kind).build().ok()
        },
    )
}

/// Shapes of no to six axes, some of no extent, with at most a few hundred elements.
pub(super) fn shapes() -> impl Strategy<Value = Vec<usize>> {
    let extents = prop::collection::vec(prop_oneof![1 => Just(0_usize), 12 => 1_usize..6], 0..=6);
    extents.prop_map(|mut shape| {
        while shape.iter().map(|&extent| extent.max(1)).product::<usize>() > 600 {
            let longest = shape.iter_mut().max_by_key(|extent| **extent).unwrap();
            *longest -= 1;
        }
        shape
    })
}

/// A scheme with a granularity that a tensor of the shape has.
pub(super) fn schemes_for(shape: Vec<usize>) -> impl Strategy<Value = (Vec<usize>, Scheme)> {
    let axes = shape.len();
    (formats(), 0..6_u8, any::<usize>(), 1..7_usize, 1..7_usize).prop_map(
        move |(scheme, kind, axis, size, columns)| {
            let granularity = match kind {
                1 if axes > 0 => Granularity::PerAxis(axis % axes),
                2 if axes > 0 => Granularity::PerGroup(size),
                3 if axes > 0 => Granularity::PerGroupAlong {
                    axis: axis % axes,
                    size,
                },
                4 if axes > 1 => Granularity::PerBlock {
                    rows: size,
                    columns,
                },
                5 if axes > 0 => Granularity::PerRow,
                _ => Granularity::PerTensor,
            };
            (shape.clone(), scheme.with_granularity(granularity).unwrap())
        },
    )
}

/// Scales and zero points such as a scheme allows, made of any numbers at all.
pub(super) fn parameter(scheme: &Scheme, scale: f32, zero_point: f32) -> (f32, f32) {
    let positive = scale.abs().clamp(f32::MIN_POSITIVE, f32::MAX);
    let scale = match scheme.scale_kind() {
        ScaleKind::F16 => f16::from_f32(positive)
            .clamp(f16::MIN_POSITIVE, f16::MAX)
            .to_f32(),
        ScaleKind::PowerOfTwo => f32::from_bits(positive.to_bits() & 0x7f80_0000),
        _ => positive,
    };
    let (low, high) = (scheme.quant_min(), scheme.quant_max());
    let zero_point = match scheme.mapping() {
        Mapping::Asymmetric => (low + (zero_point as i32).rem_euclid(high - low + 1)) as f32,
        Mapping::AsymmetricFloat => zero_point,
        _ => scheme.middle() as f32,
    };
    (scale, zero_point)
}

/// Numbers to make parameters of: ordinary ones, and now and then any.
pub(super) fn seeds() -> impl Strategy<Value = Vec<(f32, f32)>> {
    let finite = prop::num::f32::NORMAL | prop::num::f32::SUBNORMAL;
    let scale = prop_oneof![
        8 => 1e-3_f32..2.0,
        2 => (-20..20_i32).prop_map(|exponent| 2_f32.powi(exponent)),
        1 => finite
    ];
    let zero_point = prop_oneof![
        4 => (-40_000..40_000_i32).prop_map(|zero| zero as f32),
        4 => -20.0_f32..20.0,
        1 => finite,
    ];
    prop::collection::vec((scale, zero_point), 1..7)
}

/// The parameters of a tensor, from a list of numbers, over and over.
pub(super) fn affine(scheme: Scheme, shape: &[usize], seeds: &[(f32, f32)]) -> Affine {
    let groups = Groups::new(shape, scheme.granularity()).unwrap();
    let seeds = seeds.iter().cycle().take(groups.parameters());
    let (scale, zero_point) = seeds.map(|&(s, z)| parameter(&scheme, s, z)).unzip();
    Affine::new(scheme, &groups.parameter_shape(), scale, zero_point).unwrap()
}

/// Multiples of a half (which are ties under many a scale), ordinary numbers, and hostile ones.
pub(super) fn numbers() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -300.0_f64..300.0,
        4 => -3.0_f64..3.0,
        4 => (-700..700_i32).prop_map(|half| f64::from(half) / 2.0),
        // Beside a tie by less than f32 tells.
        2 => (-70..70_i32, any::<bool>()).prop_map(|(quarter, above)| {
            let side = if above { 1e-12 } else { -1e-12 };
            f64::from(quarter) / 4.0 * (1.0 + side)
        }),
        1 => prop::sample::select(vec![
            0.0, -0.0, 1e-45, -1e-45, 1e-40, 1.2e-38, 6e-8, 3e9, -3e9, 1e30, -1e30,
            f64::from(f32::MAX), f64::from(f32::MIN), 65_504.0, f64::INFINITY, f64::NEG_INFINITY,
        ]),
        1 => any::<f32>().prop_filter("a number", |x| !x.is_nan()).prop_map(f64::from),
    ]
}

/// An array of a shape, of a list of numbers, over and over.
pub(super) fn array<A: Copy>(shape: &[usize], values: &[A]) -> ArrayD<A> {
    let mut next = values.iter().copied().cycle();
    ArrayD::from_shape_simple_fn(shape, || next.next().unwrap())
}

/// A layout other than row-major: the axes in another order, and steps along each.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) order: Vec<usize>,
    pub(super) steps: Vec<isize>,
}

pub(super) fn layouts(axes: usize) -> impl Strategy<Value = Layout> {
    let order = Just((0..axes).collect::<Vec<_>>()).prop_shuffle();
    let steps = prop::collection::vec(prop::sample::select(vec![1, -1, 2, -3]), axes);
    (order, steps).prop_map(|(order, steps)| Layout { order, steps })
}

/// Memory in which an array lies in a layout of its own.
pub(super) struct Spread<A> {
    base: ArrayD<A>,
    layout: Layout,
}

impl<A: Copy + Default> Spread<A> {
    pub(super) fn zeros(shape: &[usize], layout: &Layout) -> Self {
        let mut extents = vec![0; shape.len()];
        for (axis, &at) in layout.order.iter().enumerate() {
            extents[at] = shape[axis] * layout.steps[axis].unsigned_abs();
        }
        Self {
            base: ArrayD::default(extents),
            layout: layout.clone(),
        }
    }

    pub(super) fn of(x: &ArrayD<A>, layout: &Layout) -> Self {
        let mut spread = Self::zeros(x.shape(), layout);
        spread.view_mut().assign(x);
        spread
    }

    pub(super) fn view(&self) -> ArrayViewD<'_, A> {
        let order = self.layout.order.as_slice();
        let mut view = self.base.view().permuted_axes(order);
        for (axis, &step) in self.layout.steps.iter().enumerate() {
            view.slice_axis_inplace(Axis(axis), Slice::new(0, None, step));
        }
        view
    }

    pub(super) fn view_mut(&mut self) -> ArrayViewMutD<'_, A> {
        let order = self.layout.order.as_slice();
        let mut view = self.base.view_mut().permuted_axes(order);
        for (axis, &step) in self.layout.steps.iter().enumerate() {
            view.slice_axis_inplace(Axis(axis), Slice::new(0, None, step));
        }
        view
    }
}
