//! How well chosen parameters fit what a site has seen.

use crate::{
    affine::{Affine, Range, scalar},
    error::Result,
    observe::{HistogramObserver, Observer},
};

/// How well the parameters of a site fit what it has seen, estimated from its histogram: each bin
/// is taken as evenly filled.
///
/// ```
/// use lowbit::{Scheme, calibrate::Percentile, flow::{Calibration, Site}};
/// use ndarray::Array1;
///
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let site = Site::new(scheme)?.with_calibrator(Percentile::new(99.0)?);
/// let calibration = Calibration::new(site);
/// calibration.tap("input", &Array1::linspace(0.0_f32, 1.0, 10_000))?;
/// let calibrated = calibration.finish()?;
/// let report = calibrated.report("input")?;
/// assert!((0.0..0.01).contains(&report.clipped) && report.sqnr > 40.0 && report.cosine > 0.999);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct SiteReport {
    /// The name of the site.
    pub name: String,
    /// Elements seen.
    pub elements: u64,
    /// The least and the greatest element seen.
    pub seen: (f32, f32),
    /// The least and the greatest number that the codes stand for, over all parameters.
    pub covered: (f32, f32),
    /// The share of elements beyond the codes by more than half a step, which saturate.
    pub clipped: f64,
    /// Signal to quantization noise, `10 · log₁₀(Σx² / Σ(x − x̂)²)`, in decibels; infinite without
    /// noise.
    pub sqnr: f64,
    /// The cosine of the angle between what was seen and its quantized form; 1 where all is zero.
    pub cosine: f64,
}

/// Points that a bin is taken to consist of.
const POINTS: u32 = 8;

impl SiteReport {
    pub(super) const HEADER: &'static str = "site                        elements         seen min..max      covered min..max  clipped   SQNR dB    cosine";

    pub(super) fn new(name: &str, affine: &Affine, observer: &HistogramObserver) -> Result<Self> {
        let (mut elements, mut clipped) = (0_u64, 0.0_f64);
        let (mut signal, mut noise, mut dot, mut image) = (0.0_f64, 0.0_f64, 0.0_f64, 0.0_f64);
        let mut seen: Option<Range> = None;
        let mut covered: Option<Range> = None;
        let scheme = affine.scheme();
        for index in 0..affine.scale().len() {
            let Ok(statistics) = observer.statistics(index) else {
                continue; // a group of no elements
            };
            let parameter = affine.parameter(index)?;
            let range = affine.range(index)?;
            let observed = statistics.range();
            let half = f64::from(parameter.scale) / 2.0;
            elements += statistics.count();
            seen = Some(union(seen, observed)?);
            covered = Some(union(covered, range)?);
            for bin in statistics.histogram()?.bins() {
                let low = bin.lower.max(f64::from(observed.min()));
                let high = bin.upper.min(f64::from(observed.max()));
                let weight = bin.count as f64 / f64::from(POINTS);
                for point in 0..POINTS {
                    let x = low + (high - low) * (f64::from(point) + 0.5) / f64::from(POINTS);
                    let code = scalar::quantize(x, parameter.scale, parameter.zero_point, scheme);
                    let y: f64 =
                        scalar::dequantize(code, parameter.scale, parameter.zero_point, scheme);
                    let outside =
                        x < f64::from(range.min()) - half || x > f64::from(range.max()) + half;
                    clipped += if outside { weight } else { 0.0 };
                    signal += weight * x * x;
                    noise += weight * (x - y) * (x - y);
                    dot += weight * x * y;
                    image += weight * y * y;
                }
            }
        }
        let norms = (signal * image).sqrt();
        let ends = |range: Option<Range>| range.map_or((0.0, 0.0), |r| (r.min(), r.max()));
        Ok(Self {
            name: name.to_owned(),
            elements,
            seen: ends(seen),
            covered: ends(covered),
            clipped: clipped / (elements as f64).max(1.0),
            sqnr: if noise == 0.0 {
                f64::INFINITY
            } else {
                10.0 * (signal / noise).log10()
            },
            cosine: match (norms == 0.0, signal == image) {
                (false, _) => dot / norms,
                (true, true) => 1.0,
                (true, false) => 0.0,
            },
        })
    }
}

fn union(a: Option<Range>, b: Range) -> Result<Range> {
    match a {
        None => Ok(b),
        Some(a) => Range::new(a.min().min(b.min()), a.max().max(b.max())),
    }
}

impl std::fmt::Display for SiteReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:<24} {:>11}  {:>9.3}..{:<9.3}  {:>9.3}..{:<9.3} {:>7.3}% {:>9.2} {:>9.6}",
            self.name,
            self.elements,
            self.seen.0,
            self.seen.1,
            self.covered.0,
            self.covered.1,
            100.0 * self.clipped,
            self.sqnr,
            self.cosine
        )
    }
}
