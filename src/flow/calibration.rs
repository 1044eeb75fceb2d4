//! Static calibration: observe named sites of a running model, choose ranges, freeze them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock},
};

use ndarray::{ArrayRef, ArrayViewD, Dimension};

use super::SiteReport;
use crate::{
    affine::Affine,
    calibrate::{Calibrator, FullRange, ranges},
    error::{Error, Result},
    observe::{HistogramObserver, Observer},
    scheme::{Granularity, Scheme},
};

/// How one site of a model is calibrated: its scheme, and who chooses the range from what.
///
/// Every site gathers a histogram, from which its report is made. The calibrator reads that
/// histogram too, unless the site has an observer of its own.
///
/// ```
/// use lowbit::{Scheme, calibrate::Percentile, flow::Site};
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let site = Site::new(scheme)?.with_calibrator(Percentile::default());
/// # let _ = site;
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct Site {
    scheme: Scheme,
    calibrator: Arc<dyn Calibrator>,
    observer: Option<Box<dyn Observer>>,
}

impl Clone for Site {
    /// The same settings; an observer is forked, so that it has seen nothing.
    fn clone(&self) -> Self {
        Self {
            scheme: self.scheme,
            calibrator: Arc::clone(&self.calibrator),
            observer: self.observer.as_ref().map(|observer| observer.fork()),
        }
    }
}

impl Site {
    /// A site whose codes cover the full range seen.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a scheme per row, whose ranges are chosen at run time.
    pub fn new(scheme: Scheme) -> Result<Self> {
        if scheme.granularity() == Granularity::PerRow {
            return Err(Error::Unsupported {
                operation: "static calibration",
                expected: "a granularity whose parameters do not change with the batch",
                got: scheme.to_string(),
            });
        }
        Ok(Self {
            scheme,
            calibrator: Arc::new(FullRange),
            observer: None,
        })
    }

    /// A site whose range a calibrator chooses.
    #[must_use]
    pub fn with_calibrator(mut self, calibrator: impl Calibrator + 'static) -> Self {
        self.calibrator = Arc::new(calibrator);
        self
    }

    /// A site whose calibrator reads this observer instead of the histogram.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if the observer's granularity is not the scheme's.
    pub fn with_observer(mut self, observer: impl Observer) -> Result<Self> {
        if observer.granularity() != self.scheme.granularity() {
            return Err(Error::Mismatch {
                what: "granularity of the observer",
                expected: self.scheme.granularity().to_string(),
                got: observer.granularity().to_string(),
            });
        }
        self.observer = Some(Box::new(observer));
        Ok(self)
    }
}

/// A calibration session: the user's model taps named sites while it runs batches, on any number
/// of threads; then [`finish`](Self::finish) chooses the parameters of each.
///
/// A name not configured with [`with_site`](Self::with_site) is calibrated as the default site is.
/// Histograms do not depend on the order in which batches come, so neither do the ranges (an
/// observer of one's own may: a moving average does).
///
/// ```
/// use lowbit::{Scheme, calibrate::MeanSquaredError, flow::{Calibration, Site}};
/// use ndarray::Array2;
///
/// let scheme = Scheme::int(8).unsigned().asymmetric().build()?;
/// let calibration = Calibration::new(Site::new(scheme)?)
///     .with_site("logits", Site::new(scheme)?.with_calibrator(MeanSquaredError::default()));
///
/// // the user's model, run over calibration data
/// for batch in 1..=4 {
///     let x = Array2::from_shape_fn((16, 8), |(m, k)| ((m + k * batch) % 7) as f32);
///     calibration.tap("fc1.input", &x)?;
///     calibration.tap("logits", &(x * 0.1 - 0.3))?;
/// }
///
/// let calibrated = calibration.finish()?;
/// assert_eq!(calibrated.affine("fc1.input")?.scale(), [6.0 / 255.0]);
/// println!("{calibrated}"); // range, clipped fraction, SQNR and cosine of each site
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct Calibration {
    default: Site,
    configured: BTreeMap<String, Site>,
    taps: RwLock<BTreeMap<String, Arc<Mutex<Tap>>>>,
}

/// A site and what it has seen.
#[derive(Debug)]
struct Tap {
    site: Site,
    histogram: HistogramObserver,
}

impl Tap {
    fn new(site: Site) -> Self {
        Self {
            histogram: HistogramObserver::new(site.scheme.granularity()),
            site,
        }
    }

    fn observe(&mut self, x: ArrayViewD<'_, f32>) -> Result<()> {
        // Each would refuse a batch for reasons of its own, which neither may then have counted.
        if let Some(observer) = &mut self.site.observer {
            self.histogram.check(x.view())?;
            observer.observe_view(x.view())?;
        }
        self.histogram.observe_view(x)
    }

    fn merge(&mut self, other: &Self) -> Result<()> {
        match (&mut self.site.observer, &other.site.observer) {
            (Some(observer), Some(other)) => observer.merge(&**other)?,
            (None, None) => {}
            (ours, _) => {
                let has = |own: bool| if own { "an observer" } else { "no observer" };
                return Err(Error::Mismatch {
                    what: "calibration sites to merge",
                    expected: format!("one with {} of its own", has(ours.is_some())),
                    got: format!("one with {}", has(ours.is_none())),
                });
            }
        }
        self.histogram.merge(&other.histogram)
    }

    fn affine(&self) -> Result<Affine> {
        let observer: &dyn Observer = match &self.site.observer {
            Some(observer) => &**observer,
            None => &self.histogram,
        };
        let scheme = &self.site.scheme;
        Affine::from_ranges(scheme, &ranges(&*self.site.calibrator, observer, scheme)?)
    }
}

impl Calibration {
    /// A session in which every site is calibrated alike unless configured otherwise.
    #[must_use]
    pub fn new(default: Site) -> Self {
        Self {
            default,
            configured: BTreeMap::new(),
            taps: RwLock::default(),
        }
    }

    /// Configures one site. A configured site that is never tapped is an error of
    /// [`finish`](Self::finish), so that a misspelt name is noticed.
    #[must_use]
    pub fn with_site(mut self, name: impl Into<String>, site: Site) -> Self {
        self.configured.insert(name.into(), site);
        self
    }

    /// Shows a tensor of any layout to a site.
    ///
    /// # Errors
    /// Those of [`Observer::observe_view`]: a NaN or an infinity, or another shape of parameters
    /// than before.
    pub fn tap<D: Dimension>(&self, name: &str, x: &ArrayRef<f32, D>) -> Result<()> {
        let known = read(&self.taps).get(name).map(Arc::clone);
        let tap = known.unwrap_or_else(|| {
            let mut taps = self.taps.write().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let site = self.configured.get(name).unwrap_or(&self.default);
                Arc::new(Mutex::new(Tap::new(site.clone())))
            };
            Arc::clone(taps.entry(name.to_owned()).or_insert_with(new))
        });
        lock(&tap).observe(x.view().into_dyn())
    }

    /// A session with the same settings that has seen nothing: one for each shard of the
    /// calibration data, to be [merged](Self::merge) afterwards.
    #[must_use]
    pub fn fork(&self) -> Self {
        Self {
            default: self.default.clone(),
            configured: self.configured.clone(),
            taps: RwLock::default(),
        }
    }

    /// Adds what another session of the same settings has seen. After an error some sites have been
    /// added and others not.
    ///
    /// # Errors
    /// Those of [`Observer::merge`]; [`Error::Mismatch`] if a site has an observer of its own in one
    /// session alone.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let mut taps = self.taps.write().unwrap_or_else(PoisonError::into_inner);
        for (name, theirs) in read(&other.taps).iter() {
            let theirs = lock(theirs);
            let ours = taps
                .entry(name.clone())
                .or_insert_with(|| Arc::new(Mutex::new(Tap::new(theirs.site.clone()))));
            lock(ours).merge(&theirs)?;
        }
        Ok(())
    }

    /// Chooses the parameters of every site.
    ///
    /// # Errors
    /// [`Error::Empty`] naming a site that was configured and never tapped, or tapped with no
    /// element; those of the calibrators.
    pub fn finish(&self) -> Result<Calibrated> {
        let taps = read(&self.taps);
        if let Some(name) = self
            .configured
            .keys()
            .find(|&name| !taps.contains_key(name))
        {
            return Err(Error::Empty {
                what: format!("calibration site {name:?}"),
            });
        }
        let mut sites = BTreeMap::new();
        for (name, tap) in taps.iter() {
            let tap = lock(tap);
            let affine = tap.affine().map_err(|error| match error {
                Error::Empty { .. } => Error::Empty {
                    what: format!("calibration site {name:?}"),
                },
                other => other,
            })?;
            let report = SiteReport::new(name, &affine, &tap.histogram)?;
            sites.insert(name.clone(), (affine, report));
        }
        Ok(Calibrated { sites })
    }
}

fn lock(tap: &Mutex<Tap>) -> MutexGuard<'_, Tap> {
    tap.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(taps: &RwLock<T>) -> std::sync::RwLockReadGuard<'_, T> {
    taps.read().unwrap_or_else(PoisonError::into_inner)
}

/// The parameters that a calibration session chose, and how well they fit what it saw.
///
/// Displayed as a table with a line for each site.
///
/// ```
/// use lowbit::{Scheme, flow::{Calibration, Site}};
/// use ndarray::array;
///
/// let calibration = Calibration::new(Site::new(Scheme::int(8).build()?)?);
/// calibration.tap("conv1.input", &array![0.0_f32, 1.27, -0.5])?;
/// let calibrated = calibration.finish()?;
/// for (name, affine, report) in calibrated.sites() {
///     println!("{name}: scale {}, {:.1} dB", affine.scale()[0], report.sqnr);
/// }
/// assert!(calibrated.affine("conv1.inptu").is_err());
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Calibrated {
    sites: BTreeMap<String, (Affine, SiteReport)>,
}

impl Calibrated {
    /// The parameters of a site.
    ///
    /// # Errors
    /// [`Error::InvalidOption`] naming the sites there are, if there is none of this name.
    pub fn affine(&self, name: &str) -> Result<&Affine> {
        self.site(name).map(|(affine, _)| affine)
    }

    /// How well the parameters of a site fit what it saw.
    ///
    /// # Errors
    /// As [`affine`](Self::affine).
    pub fn report(&self, name: &str) -> Result<&SiteReport> {
        self.site(name).map(|(_, report)| report)
    }

    /// Every site, in the order of their names.
    pub fn sites(&self) -> impl Iterator<Item = (&str, &Affine, &SiteReport)> {
        self.sites
            .iter()
            .map(|(name, (affine, report))| (name.as_str(), affine, report))
    }

    fn site(&self, name: &str) -> Result<&(Affine, SiteReport)> {
        self.sites.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.sites.keys().map(String::as_str).collect();
            Error::option("calibration site", names.join(", "), name)
        })
    }
}

impl std::fmt::Display for Calibrated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}", SiteReport::HEADER)?;
        for (_, report) in self.sites.values() {
            writeln!(f, "{report}")?;
        }
        Ok(())
    }
}
