//! What is measured. Each case checks its results once, against the definition, when it is made.

use std::rc::Rc;

use half::{bf16, f16};
use lowbit::{
    Affine, Element, FakeQuantExt, Granularity, ObserverExt, QTensor, Ranges, Scheme,
    affine::scalar,
    dequantize_into, fake_quantize_into,
    observe::HistogramObserver,
    qat::{AffineFakeQuant, Clipped},
    quantize, quantize_into,
};
use ndarray::{Array2, ArrayD};

const SHAPE: (usize, usize) = (4096, 4096);
const LEN: usize = SHAPE.0 * SHAPE.1;

const GRANULARITIES: [(&str, Granularity); 5] = [
    ("tensor", Granularity::PerTensor),
    ("row", Granularity::PerRow),
    ("column", Granularity::PerAxis(1)),
    ("group of 128", Granularity::PerGroup(128)),
    ("group of 32", Granularity::PerGroup(32)),
];

/// The arrays that every case reads.
pub(crate) struct Inputs {
    x: Rc<Array2<f32>>,
    gradient: Rc<Array2<f32>>,
}

impl Inputs {
    pub(crate) fn new() -> Self {
        Self {
            x: Rc::new(bells(1)),
            gradient: Rc::new(bells(2)),
        }
    }
}

/// Roughly normal numbers: sums of four uniform ones.
fn bells(seed: u64) -> Array2<f32> {
    let mut state = seed;
    Array2::from_shape_simple_fn(SHAPE, || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let sum: u64 = (0..4).map(|part| state >> (16 * part) & 0xffff).sum();
        sum as f32 / 32_768.0 - 4.0
    })
}

/// An operation with its arrays, and the bytes that it must read and write.
pub(crate) struct Case {
    bytes: usize,
    run: Box<dyn FnMut()>,
}

impl Case {
    fn new(read: usize, written: usize, run: impl FnMut() + 'static) -> Self {
        Self {
            bytes: read + written,
            run: Box::new(run),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn run(&mut self) {
        (self.run)();
    }
}

type Make = Box<dyn Fn(&Inputs) -> Case>;

/// Every case by its name.
pub(crate) fn cases() -> Vec<(String, Make)> {
    let mut all: Vec<(String, Make)> = vec![];
    let mut add = |name: String, make: Make| all.push((name, make));
    for (name, granularity) in GRANULARITIES {
        add(
            format!("quantize f32 to i8, per {name}"),
            Box::new(move |inputs| quantizing(inputs, granularity, |x| x)),
        );
    }
    add(
        "quantize f16 to i8, per tensor".into(),
        Box::new(|inputs| quantizing(inputs, Granularity::PerTensor, f16::from_f32)),
    );
    add(
        "quantize bf16 to i8, per tensor".into(),
        Box::new(|inputs| quantizing(inputs, Granularity::PerTensor, bf16::from_f32)),
    );
    for (name, granularity) in GRANULARITIES {
        add(
            format!("dequantize i8 to f32, per {name}"),
            Box::new(move |inputs| dequantizing(inputs, granularity, |x| x)),
        );
    }
    add(
        "dequantize i8 to f16, per tensor".into(),
        Box::new(|inputs| dequantizing(inputs, Granularity::PerTensor, f16::from_f32)),
    );
    add(
        "dequantize i8 to bf16, per tensor".into(),
        Box::new(|inputs| dequantizing(inputs, Granularity::PerTensor, bf16::from_f32)),
    );
    for (name, granularity) in GRANULARITIES {
        add(
            format!("fake-quantize f32, per {name}"),
            Box::new(move |inputs| fake_quantizing(inputs, granularity, |x| x)),
        );
    }
    add(
        "fake-quantize f16, per tensor".into(),
        Box::new(|inputs| fake_quantizing(inputs, Granularity::PerTensor, f16::from_f32)),
    );
    add(
        "fake-quantize bf16, per tensor".into(),
        Box::new(|inputs| fake_quantizing(inputs, Granularity::PerTensor, bf16::from_f32)),
    );
    for (name, granularity) in GRANULARITIES {
        add(
            format!("fake-quantize forward and backward, per {name}"),
            Box::new(move |inputs| training(inputs, granularity)),
        );
    }
    for (name, granularity) in GRANULARITIES {
        add(
            format!("min-max, per {name}"),
            Box::new(move |inputs| min_max(inputs, granularity)),
        );
    }
    add(
        "histogram, at least 2,048 bins, per tensor".into(),
        Box::new(histogram),
    );
    add(
        "range and quantize f32 to i8, per row".into(),
        Box::new(dynamic),
    );
    for (name, granularity) in [GRANULARITIES[0], GRANULARITIES[3], GRANULARITIES[4]] {
        add(
            format!("QTensor from f32, 4 bits, per {name}"),
            Box::new(move |inputs| packing_floats(inputs, granularity)),
        );
        add(
            format!("QTensor to f32, 4 bits, per {name}"),
            Box::new(move |inputs| unpacking_floats(inputs, granularity)),
        );
    }
    for bits in 1..=8 {
        add(
            format!("pack u8 to {bits} bits"),
            Box::new(move |_| packing(bits)),
        );
        add(
            format!("unpack {bits} bits to u8"),
            Box::new(move |_| unpacking(bits)),
        );
    }
    all
}

/// Parameters over the range of each group.
fn parameters(x: &Array2<f32>, bits: u32, granularity: Granularity) -> Affine {
    let scheme = Scheme::int(bits).asymmetric().granularity(granularity);
    Affine::of(&scheme.build().unwrap(), x).unwrap()
}

/// Calls `check(at, scale, zero_point)` for some elements and their parameters.
fn spot_checks(affine: &Affine, check: impl Fn(usize, f32, f32)) {
    let groups = affine.groups(&[SHAPE.0, SHAPE.1]).unwrap();
    for at in (0..LEN).step_by(4_099) {
        let parameter = affine.parameter(groups.parameter_of(at)).unwrap();
        check(at, parameter.scale, parameter.zero_point);
    }
}

fn flat<T: Copy>(array: &Array2<T>, at: usize) -> T {
    array[[at / SHAPE.1, at % SHAPE.1]]
}

fn quantizing<A: Element>(
    inputs: &Inputs,
    granularity: Granularity,
    element: impl Fn(f32) -> A,
) -> Case {
    let affine = parameters(&inputs.x, 8, granularity);
    let x = inputs.x.mapv(element);
    let mut codes = Array2::<i8>::zeros(SHAPE);
    quantize_into(&x, &affine, &mut codes).unwrap();
    spot_checks(&affine, |at, scale, zero| {
        let real = flat(&x, at).to_real();
        let code = scalar::quantize(real, scale, zero, affine.scheme());
        assert_eq!(i32::from(flat(&codes, at)), code);
    });
    Case::new(LEN * size_of::<A>(), LEN, move || {
        quantize_into(&x, &affine, &mut codes).unwrap();
    })
}

fn dequantizing<A: Element + PartialEq>(
    inputs: &Inputs,
    granularity: Granularity,
    element: impl Fn(f32) -> A,
) -> Case {
    let affine = parameters(&inputs.x, 8, granularity);
    let codes: Array2<i8> = quantize(&*inputs.x, &affine).unwrap();
    let mut x = inputs.x.mapv(&element);
    dequantize_into(&codes, &affine, &mut x).unwrap();
    spot_checks(&affine, |at, scale, zero| {
        let code = flat(&codes, at).into();
        let real = scalar::dequantize(code, scale, zero, affine.scheme());
        assert!(flat(&x, at) == element(real));
    });
    Case::new(LEN, LEN * size_of::<A>(), move || {
        dequantize_into(&codes, &affine, &mut x).unwrap();
    })
}

fn fake_quantizing<A: Element + PartialEq>(
    inputs: &Inputs,
    granularity: Granularity,
    element: impl Fn(f32) -> A,
) -> Case {
    let affine = parameters(&inputs.x, 4, granularity);
    let x = inputs.x.mapv(&element);
    let mut y = x.clone();
    fake_quantize_into(&x, &affine, &mut y).unwrap();
    spot_checks(&affine, |at, scale, zero| {
        let code = scalar::quantize(flat(&x, at).to_real(), scale, zero, affine.scheme());
        let real = scalar::dequantize(code, scale, zero, affine.scheme());
        assert!(flat(&y, at) == A::from_real(real));
    });
    Case::new(LEN * size_of::<A>(), LEN * size_of::<A>(), move || {
        fake_quantize_into(&x, &affine, &mut y).unwrap();
    })
}

fn training(inputs: &Inputs, granularity: Granularity) -> Case {
    let fake = AffineFakeQuant::new(parameters(&inputs.x, 4, granularity), Clipped);
    let (x, gradient) = (inputs.x.clone(), inputs.gradient.clone());
    let mut y = fake.forward(&*x).unwrap();
    let mut gradients = fake.backward(&*x, &*gradient).unwrap();
    spot_checks(fake.affine(), |at, scale, zero| {
        let (x, scheme) = (flat(&x, at), fake.affine().scheme());
        let code = scalar::quantize(x, scale, zero, scheme);
        let real: f32 = scalar::dequantize(code, scale, zero, scheme);
        assert_eq!(flat(&y, at), real);
        let inside = (x / scale).round_ties_even() + zero == code as f32;
        let expected = if inside { flat(&gradient, at) } else { 0.0 };
        assert_eq!(flat(&gradients.input, at), expected);
    });
    Case::new(3 * 4 * LEN, 2 * 4 * LEN, move || {
        fake.forward_into(&*x, &mut y).unwrap();
        fake.backward_into(&*x, &*gradient, &mut gradients).unwrap();
    })
}

fn min_max(inputs: &Inputs, granularity: Granularity) -> Case {
    let x = inputs.x.clone();
    let ranges = Ranges::of(&*x, granularity).unwrap();
    let scheme = Scheme::int(8).granularity(granularity).build().unwrap();
    let groups = Affine::from_ranges(&scheme, &ranges).unwrap();
    let groups = groups.groups(x.shape()).unwrap();
    let mut extremes = vec![(f32::INFINITY, f32::NEG_INFINITY); groups.parameters()];
    for (at, &x) in x.iter().enumerate() {
        let (min, max) = &mut extremes[groups.parameter_of(at)];
        (*min, *max) = (min.min(x), max.max(x));
    }
    for (range, extremes) in ranges.as_slice().iter().zip(extremes) {
        assert_eq!((range.min(), range.max()), extremes);
    }
    Case::new(4 * LEN, 8 * groups.parameters(), move || {
        Ranges::of(&*x, granularity).unwrap();
    })
}

fn histogram(inputs: &Inputs) -> Case {
    let x = inputs.x.clone();
    let mut observer = HistogramObserver::new(Granularity::PerTensor);
    observer.observe(&*x).unwrap();
    let statistics = lowbit::Observer::statistics(&observer, 0).unwrap();
    let bins: Vec<_> = statistics.histogram().unwrap().bins().collect();
    assert!(bins.len() >= 2_048);
    for bin in bins.iter().step_by(100) {
        let inside = |x: &&f32| (bin.lower..bin.upper).contains(&f64::from(**x));
        assert_eq!(bin.count, x.iter().filter(inside).count() as u64);
    }
    Case::new(4 * LEN, 0, move || observer.observe(&*x).unwrap())
}

fn dynamic(inputs: &Inputs) -> Case {
    let x = inputs.x.clone();
    let scheme = Scheme::int(8).per_row().build().unwrap();
    let mut codes = Array2::<i8>::zeros(SHAPE);
    Case::new(4 * LEN, LEN, move || {
        let affine = Affine::of(&scheme, &*x).unwrap();
        quantize_into(&*x, &affine, &mut codes).unwrap();
    })
}

fn packing_floats(inputs: &Inputs, granularity: Granularity) -> Case {
    let x = inputs.x.clone();
    let affine = parameters(&x, 4, granularity);
    let expected: Array2<i8> = quantize(&*x, &affine).unwrap();
    let packed = QTensor::quantize(&*x, &affine).unwrap();
    assert_eq!(packed.codes::<i8>().unwrap(), expected.into_dyn());
    Case::new(4 * LEN, LEN / 2, move || {
        QTensor::quantize(&*x, &affine).unwrap();
    })
}

fn unpacking_floats(inputs: &Inputs, granularity: Granularity) -> Case {
    let affine = parameters(&inputs.x, 4, granularity);
    let packed = QTensor::quantize(&*inputs.x, &affine).unwrap();
    let mut x = (*inputs.x).clone();
    fake_quantize_into(&*inputs.x, &affine, &mut x).unwrap();
    assert_eq!(packed.dequantize::<f32>(), x.view().into_dyn());
    Case::new(LEN / 2, 4 * LEN, move || {
        packed.dequantize_into(&mut x).unwrap()
    })
}

/// Codes of so many bits.
fn codes(bits: u32) -> (Array2<u8>, Affine) {
    let scheme = Scheme::int(bits).unsigned().asymmetric().build().unwrap();
    let affine = Affine::per_tensor(scheme, 1.0, 0.0).unwrap();
    let mask = (1_u32 << bits) - 1;
    let code = |(i, j): (usize, usize)| ((i * 31 + j * 17) as u32 & mask) as u8;
    (Array2::from_shape_fn(SHAPE, code), affine)
}

fn packing(bits: u32) -> Case {
    let (codes, affine) = codes(bits);
    let packed = QTensor::from_codes(&codes, &affine).unwrap();
    assert_eq!(packed.codes::<u8>().unwrap(), codes.view().into_dyn());
    Case::new(LEN, packed.packed().bytes().len(), move || {
        QTensor::from_codes(&codes, &affine).unwrap();
    })
}

fn unpacking(bits: u32) -> Case {
    let (codes, affine) = codes(bits);
    let packed = QTensor::from_codes(&codes, &affine).unwrap();
    let unpacked: ArrayD<u8> = packed.codes().unwrap();
    assert_eq!(unpacked, codes.view().into_dyn());
    Case::new(packed.packed().bytes().len(), LEN, move || {
        packed.codes::<u8>().unwrap();
    })
}
