//! Against the algorithm as the papers have it: one column after the other, with the upper factor
//! of the inverse, in f64.

use lowbit::{
    Affine, Calibrator, FloatFormat, Granularity, Parameter, QTensor, QuantizerExt, RoundToNearest,
    Scheme,
    affine::scalar,
    calibrate::{FullRange, MeanSquaredError, ranges_of},
    observe::{Hessian, InputDeviation, Statistics},
    ptq::{
        Gptq,
        gptq::{GroupFit, Order, RangeWeights},
    },
};
use ndarray::{Array2, s};

use crate::support::{Numbers, square};

/// The factor `L` with `H = L Lᵀ`.
fn cholesky(h: &Array2<f64>) -> Array2<f64> {
    let n = h.nrows();
    let mut l = Array2::<f64>::zeros((n, n));
    for i in 0..n {
        for j in 0..=i {
            let sum: f64 = (0..j).map(|k| l[[i, k]] * l[[j, k]]).sum();
            l[[i, j]] = if i == j {
                (h[[i, i]] - sum).sqrt()
            } else {
                (h[[i, j]] - sum) / l[[j, j]]
            };
        }
    }
    l
}

/// The inverse, by Gauss and Jordan.
fn inverse(h: &Array2<f64>) -> Array2<f64> {
    let n = h.nrows();
    let (mut a, mut b) = (h.clone(), Array2::<f64>::eye(n));
    for i in 0..n {
        let pivot = a[[i, i]];
        for matrix in [&mut a, &mut b] {
            matrix.row_mut(i).mapv_inplace(|x| x / pivot);
        }
        let (own_a, own_b) = (a.row(i).to_owned(), b.row(i).to_owned());
        for k in (0..n).filter(|&k| k != i) {
            let factor = a[[k, i]];
            a.row_mut(k).scaled_add(-factor, &own_a);
            b.row_mut(k).scaled_add(-factor, &own_b);
        }
    }
    b
}

/// What the loop of the papers is told.
#[derive(Debug)]
struct Loop {
    scheme: Scheme,
    h: Array2<f64>,
    /// `C` and `α`.
    cross: Option<(Array2<f64>, f64)>,
    beta: f64,
    damping: f64,
    order: Vec<usize>,
    fit: GroupFit,
    calibrator: Box<dyn Calibrator>,
}

impl Loop {
    /// The codes, in the order that the columns have.
    fn codes(&self, weights: &Array2<f32>) -> Array2<i32> {
        let (m, n) = weights.dim();
        let permuted = |x: &Array2<f64>| {
            Array2::from_shape_fn((n, n), |(i, j)| x[[self.order[i], self.order[j]]])
        };
        let mut h = permuted(&self.h);
        let lambda = self.damping * h.diag().mean().unwrap();
        h += &(Array2::<f64>::eye(n) * lambda);
        let u = cholesky(&inverse(&h)).t().to_owned();
        // `inverse = L Lᵀ` gives `Uᵀ U` with `U = Lᵀ`.
        let p = self.cross.as_ref().map(|(cross, alpha)| {
            let mut t = permuted(cross).dot(&u.t()) * *alpha;
            for i in 0..n {
                t.slice_mut(s![i, ..=i]).fill(0.0);
            }
            t.dot(&u)
        });
        let size = match self.scheme.granularity() {
            Granularity::PerGroup(size) => size,
            _ => n,
        };
        let ranges = ranges_of(&*self.calibrator, weights, &self.scheme, None).unwrap();
        let fixed = Affine::from_ranges(&self.scheme, &ranges).unwrap();
        let groups = fixed.groups(&[m, n]).unwrap();
        let mut codes = Array2::zeros((m, n));
        for row in 0..m {
            let original: Vec<f64> = self
                .order
                .iter()
                .map(|&j| weights[[row, j]].into())
                .collect();
            let mut w = original.clone();
            let mut stale = w.clone();
            let mut parameter = Parameter {
                scale: 1.0,
                zero_point: 0.0,
            };
            for j in 0..n {
                if j % 128 == 0 {
                    stale.clone_from(&w);
                }
                let column = self.order[j];
                let begins = j == 0 || self.order[j - 1] / size != column / size;
                if self.fit == GroupFit::Static {
                    let index = groups.parameter_of(row * n + column);
                    parameter = fixed.parameter(index).unwrap();
                } else if begins {
                    let source = if self.fit == GroupFit::Fresh {
                        &w
                    } else {
                        &stale
                    };
                    let len = (j..n)
                        .take_while(|&k| self.order[k] / size == column / size)
                        .count();
                    let values: Vec<f32> = source[j..j + len].iter().map(|&x| x as f32).collect();
                    let statistics = Statistics::of_values(&values).unwrap();
                    let range = self.calibrator.range(&statistics, &self.scheme).unwrap();
                    parameter = Parameter::from_range(&self.scheme, range).unwrap();
                }
                let Parameter { scale, zero_point } = parameter;
                let code = scalar::quantize(w[j], scale, zero_point, &self.scheme);
                let q: f64 = scalar::dequantize(code, scale, zero_point, &self.scheme);
                codes[[row, column]] = code;
                let e = ((w[j] - q) - self.beta * (w[j] - original[j])) / u[[j, j]];
                let now = w[j];
                for k in j + 1..n {
                    w[k] -= e * u[[j, k]];
                    if let Some(p) = &p {
                        w[k] += now * p[[j, k]];
                    }
                }
            }
        }
        codes
    }
}

fn codes_of(quantized: &QTensor) -> Array2<i32> {
    let codes = quantized.codes::<i32>().unwrap();
    codes.into_dimensionality().unwrap()
}

/// Weights are moved in f32 here and in f64 there: one that lies on the edge between two codes may go
/// either way, and then moves the later ones of its row. A row that rounding serves better is
/// rounded.
fn assert_equal_rows(
    gptq: &Gptq<'_>,
    rounding: &RoundToNearest,
    plain: &Loop,
    weights: &Array2<f32>,
) {
    let (quantized, report) = gptq.quantize_with_report(weights).unwrap();
    let rounded = codes_of(&rounding.quantize(weights).unwrap());
    let (codes, expected) = (codes_of(&quantized), plain.codes(weights));
    let (mut other, mut rounded_rows) = (0, 0);
    let rows = codes.rows().into_iter().zip(expected.rows());
    for ((codes, expected), rounded) in rows.zip(rounded.rows()) {
        let is_expected = codes == expected;
        let is_rounded = !is_expected && codes == rounded;
        rounded_rows += usize::from(is_rounded);
        other += usize::from(!is_expected && !is_rounded);
    }
    let Loop { scheme, fit, .. } = plain;
    assert!(
        rounded_rows <= report.rounded_rows && rounded_rows < 4,
        "{scheme} {fit:?}"
    );
    assert!(other <= 2, "{other} rows of {scheme} {fit:?}");
}

fn largest_first(diagonal: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..diagonal.len()).collect();
    order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
    order
}

#[test]
fn blocks_with_the_factor_give_the_codes_of_the_plain_loop_with_its_inverse() {
    use GroupFit::{Fresh, Stale, Static};
    use Order::{Activation, Natural};
    let (m, n) = (24, 300);
    let inputs = Numbers(1).inputs(700, n);
    let weights = Numbers(2).matrix(m, n);
    let mut hessian = Hessian::new(n).unwrap();
    hessian.observe(&inputs).unwrap();
    let h = square(&inputs);
    let natural: Vec<usize> = (0..n).collect();
    let activation = largest_first(h.diag().to_vec().as_slice());
    let e2m1 = Scheme::float(FloatFormat::E2M1);
    for (builder, order, fit) in [
        (Scheme::int(4).per_axis(0), Natural, Static),
        (Scheme::int(4).per_axis(0), Activation, Fresh),
        (Scheme::int(3).per_group(32), Natural, Static),
        (Scheme::int(3).per_group(32), Natural, Stale),
        (Scheme::int(3).per_group(32), Natural, Fresh),
        (Scheme::int(3).asymmetric().per_group(50), Natural, Fresh),
        (Scheme::int(4).per_group(200), Natural, Fresh),
        (
            Scheme::int(2).asymmetric_float().per_group(32),
            Activation,
            Static,
        ),
        (Scheme::int(8).unsigned().asymmetric(), Activation, Static),
        (Scheme::int(4).per_axis(1), Natural, Static),
        (Scheme::int(4).per_block(5, 7), Activation, Static),
        (e2m1.per_group(16), Natural, Fresh),
    ] {
        let scheme = builder.build().unwrap();
        for clips in [false, true] {
            let mut gptq = Gptq::new(scheme, &hessian)
                .with_order(order)
                .with_group_fit(fit)
                .with_range_weights(RangeWeights::Even);
            let mut rounding = RoundToNearest::new(scheme);
            let mut plain = Loop {
                scheme,
                h: h.clone(),
                cross: None,
                beta: 0.0,
                damping: 0.01,
                order: match order {
                    Natural => natural.clone(),
                    _ => activation.clone(),
                },
                fit,
                calibrator: Box::new(FullRange),
            };
            if clips {
                gptq = gptq.with_calibrator(MeanSquaredError::default());
                rounding = rounding.with_calibrator(MeanSquaredError::default());
                plain.calibrator = Box::new(MeanSquaredError::default());
            }
            assert_equal_rows(&gptq, &rounding, &plain, &weights);
        }
    }
}

#[test]
fn asymmetric_and_first_order_calibration_give_the_codes_of_the_plain_loop() {
    let (m, n) = (24, 200);
    let inputs = Numbers(3).inputs(600, n);
    let quantized = &inputs + &(&Numbers(4).inputs(600, n) * 0.2);
    let weights = Numbers(5).matrix(m, n);
    let mut deviation = InputDeviation::new(n).unwrap();
    deviation.observe(&inputs, &quantized).unwrap();
    let difference = (&inputs - &quantized).mapv(f64::from);
    let cross = difference.t().dot(&quantized.mapv(f64::from));
    let scheme = Scheme::int(3).per_group(32).build().unwrap();
    for (alpha, beta) in [(0.25, 0.0), (1.0, 0.0), (0.0, 0.2), (0.25, 0.2)] {
        let plain = Loop {
            scheme,
            h: square(&quantized),
            cross: Some((cross.clone(), alpha)),
            beta: f64::from(beta),
            damping: 0.05,
            order: (0..n).collect(),
            fit: GroupFit::Fresh,
            calibrator: Box::new(FullRange),
        };
        let gptq = Gptq::asymmetric(scheme, &deviation)
            .with_order(Order::Natural)
            .with_damping(0.05)
            .and_then(|gptq| gptq.with_alpha(alpha))
            .and_then(|gptq| gptq.with_first_order(beta))
            .unwrap();
        assert_equal_rows(&gptq, &RoundToNearest::new(scheme), &plain, &weights);
    }
}
