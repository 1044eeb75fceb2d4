//! Torch's search against a transcription of torch.ao's `HistogramObserver`
//! (`_non_linear_param_search`, `_compute_quantization_error`, `_get_norm`).

use lowbit::{Calibrator, Observer, Scheme, calibrate::HistogramSearch, observe::Bin};

use super::support::{bell, distributions, observer};

struct Torch {
    histogram: Vec<f64>,
    min_val: f64,
    bin_width: f64,
    dst_nbins: f64,
}

impl Torch {
    fn new(bins: &[Bin], bits: u32) -> Self {
        Self {
            histogram: bins.iter().map(|bin| bin.count as f64).collect(),
            min_val: bins[0].lower,
            bin_width: bins[0].upper - bins[0].lower,
            dst_nbins: 2_f64.powf(bits.into()),
        }
    }

    fn get_norm(delta_begin: f64, delta_end: f64, density: f64) -> f64 {
        density * (delta_end * delta_end * delta_end - delta_begin * delta_begin * delta_begin)
            / 3.0
    }

    fn compute_quantization_error(&self, next_start_bin: usize, next_end_bin: usize) -> f64 {
        let bins = (next_end_bin - next_start_bin + 1) as f64;
        let dst_bin_width = self.bin_width * bins / self.dst_nbins;
        let mut norm = 0.0;
        for (src_bin, count) in self.histogram.iter().enumerate() {
            let src_bin_begin = (src_bin as f64 - next_start_bin as f64) * self.bin_width;
            let src_bin_end = src_bin_begin + self.bin_width;
            let dst_bin_of = |x: f64| (x / dst_bin_width).floor().clamp(0.0, self.dst_nbins - 1.0);
            let dst_bin_of_begin = dst_bin_of(src_bin_begin);
            let dst_bin_of_begin_center = (dst_bin_of_begin + 0.5) * dst_bin_width;
            let dst_bin_of_end = dst_bin_of(src_bin_end);
            let dst_bin_of_end_center = (dst_bin_of_end + 0.5) * dst_bin_width;
            let density = count / self.bin_width;
            let half = dst_bin_width / 2.0;
            norm += Self::get_norm(src_bin_begin - dst_bin_of_begin_center, half, density);
            norm +=
                (dst_bin_of_end - dst_bin_of_begin - 1.0) * Self::get_norm(-half, half, density);
            norm += Self::get_norm(-half, src_bin_end - dst_bin_of_end_center, density);
        }
        norm
    }

    /// `new_min` and `new_max`, with the error of them.
    fn non_linear_param_search(&self) -> (f64, f64, f64) {
        let total: f64 = self.histogram.iter().sum();
        let c_sum: Vec<f64> = self
            .histogram
            .iter()
            .scan(0.0, |sum, count| {
                *sum += count;
                Some(*sum)
            })
            .collect();
        let stepsize = 1e-5;
        let (mut alpha, mut beta) = (0.0, 1.0);
        let (mut start_bin, mut end_bin) = (0, self.histogram.len() - 1);
        let mut norm_min = f64::INFINITY;
        while alpha < beta {
            let next_alpha = alpha + stepsize;
            let next_beta = beta - stepsize;
            let (mut l, mut r) = (start_bin, end_bin);
            while l < end_bin && c_sum[l] < next_alpha * total {
                l += 1;
            }
            while r > start_bin && c_sum[r] > next_beta * total {
                r -= 1;
            }
            let (mut next_start_bin, mut next_end_bin) = (start_bin, end_bin);
            if l - start_bin > end_bin - r {
                next_start_bin = l;
                alpha = next_alpha;
            } else {
                next_end_bin = r;
                beta = next_beta;
            }
            if next_start_bin == start_bin && next_end_bin == end_bin {
                continue;
            }
            let norm = self.compute_quantization_error(next_start_bin, next_end_bin);
            if norm > norm_min {
                break;
            }
            norm_min = norm;
            start_bin = next_start_bin;
            end_bin = next_end_bin;
        }
        let new_min = self.min_val + self.bin_width * start_bin as f64;
        let new_max = self.min_val + self.bin_width * (end_bin + 1) as f64;
        (new_min, new_max, norm_min)
    }
}

#[test]
fn the_range_is_the_one_that_torch_searches_out() {
    let mut all = distributions();
    all.push(vec![1.0, 1.0, 1.0, -2.0]);
    all.push(vec![0.0; 5]);
    all.push(bell(200, 100.0, 9));
    for values in all {
        for bins in [64, 500] {
            let observer = observer(&values, bins);
            let statistics = observer.statistics(0).unwrap();
            let histogram: Vec<Bin> = statistics.histogram().unwrap().bins().collect();
            let seen = statistics.range();
            for bits in [2, 4, 8] {
                let scheme = Scheme::int(bits).asymmetric().build().unwrap();
                let range = HistogramSearch.range(&statistics, &scheme).unwrap();
                let torch = Torch::new(&histogram, bits);
                let (low, high, _) = torch.non_linear_param_search();
                // Bins are dyadic here, and may reach beyond the data.
                let expected = (
                    (low as f32).clamp(seen.min(), seen.max()),
                    (high as f32).clamp(seen.min(), seen.max()),
                );
                assert_eq!(
                    (range.min(), range.max()),
                    expected,
                    "{bins} bins, {bits} bits"
                );
            }
        }
    }
}

#[test]
fn an_outlier_is_given_up_at_few_bits() {
    let mut values = bell(20_000, 1.0, 11);
    values[77] = 300.0;
    let observer = observer(&values, 2048);
    let scheme = Scheme::int(4).asymmetric().build().unwrap();
    let range = HistogramSearch
        .range(&observer.statistics(0).unwrap(), &scheme)
        .unwrap();
    assert!(range.max() < 100.0, "{range:?}");
}
