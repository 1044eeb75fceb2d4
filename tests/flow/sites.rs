//! Names of sites, and what a site refuses.

use lowbit::{
    Error, FloatFormat, Granularity, Scheme,
    flow::{Calibration, Site},
    observe::{HistogramObserver, MinMax},
};
use ndarray::{Array2, arr0, array};

use super::support::{activations, forward, said, session};

#[test]
fn a_site_that_was_configured_and_never_tapped_is_named() {
    let calibration = session().with_site("clippd", Site::new(activations()).unwrap());
    forward(&calibration, 0).unwrap();
    let error = calibration.finish().unwrap_err();
    assert!(
        matches!(&error, Error::Empty { what } if what.contains("\"clippd\"")),
        "{error}"
    );
}

#[test]
fn a_name_that_was_never_tapped_is_answered_with_those_that_were() {
    let calibration = session();
    forward(&calibration, 0).unwrap();
    let calibrated = calibration.finish().unwrap();
    for error in [
        calibrated.affine("inptu").unwrap_err(),
        calibrated.report("inptu").unwrap_err(),
    ] {
        let message = error.to_string();
        assert!(matches!(error, Error::InvalidOption { .. }));
        assert!(
            message.contains("channels, clipped, input, observed") && message.contains("inptu")
        );
    }
    let names: Vec<&str> = calibrated.sites().map(|(name, ..)| name).collect();
    assert_eq!(names, ["channels", "clipped", "input", "observed"]);
}

#[test]
fn a_session_that_saw_nothing_has_no_sites() {
    let calibration = Calibration::new(Site::new(activations()).unwrap());
    let calibrated = calibration.finish().unwrap();
    assert_eq!(calibrated.sites().count(), 0);
    assert!(calibrated.affine("x").is_err());
}

#[test]
fn a_nan_is_named_by_position_and_leaves_the_session_as_it_was() {
    let calibration = session();
    forward(&calibration, 0).unwrap();
    let before = said(&calibration.finish().unwrap());
    let mut x = Array2::<f32>::zeros((16, 8));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        x[[3, 5]] = bad;
        for site in ["input", "clipped", "channels", "observed"] {
            let error = calibration.tap(site, &x).unwrap_err();
            assert!(matches!(error, Error::NonFinite { position, .. } if position == [3, 5]));
        }
    }
    assert_eq!(said(&calibration.finish().unwrap()), before);
    // A site that has seen nothing else has no range.
    assert!(calibration.tap("fresh", &x).is_err());
    let error = calibration.finish().unwrap_err();
    assert!(
        matches!(&error, Error::Empty { what } if what.contains("\"fresh\"")),
        "{error}"
    );
}

#[test]
fn a_site_that_saw_no_element_is_named() {
    let calibration = Calibration::new(Site::new(activations()).unwrap());
    calibration
        .tap("void", &Array2::<f32>::zeros((0, 4)))
        .unwrap();
    let error = calibration.finish().unwrap_err();
    assert!(
        matches!(&error, Error::Empty { what } if what.contains("\"void\"")),
        "{error}"
    );
}

#[test]
fn batches_may_differ_in_shape_but_not_in_parameters() {
    let calibration = session();
    forward(&calibration, 0).unwrap();
    calibration.tap("input", &arr0(0.5)).unwrap();
    calibration.tap("input", &array![[[0.5_f32]]]).unwrap();
    calibration
        .tap("channels", &Array2::<f32>::zeros((3, 8)))
        .unwrap();
    let error = calibration
        .tap("channels", &Array2::<f32>::zeros((3, 7)))
        .unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { .. }));
    let error = calibration.tap("channels", &array![1.0_f32]).unwrap_err();
    assert!(matches!(error, Error::NoSuchAxis { .. }));
}

#[test]
fn sites_that_make_no_sense_are_refused() {
    let per_row = Scheme::int(8).per_row().build().unwrap();
    assert!(matches!(Site::new(per_row), Err(Error::Unsupported { .. })));
    for observer in [Granularity::PerAxis(0), Granularity::PerRow] {
        let site = Site::new(activations()).unwrap();
        let error = site.with_observer(MinMax::new(observer)).unwrap_err();
        assert!(matches!(error, Error::Mismatch { .. }), "{error}");
    }
    // An observer whose statistics the calibrator cannot read is noticed when ranges are chosen.
    let site = Site::new(activations())
        .unwrap()
        .with_observer(MinMax::new(Granularity::PerTensor))
        .unwrap()
        .with_calibrator(lowbit::calibrate::Entropy);
    let calibration = Calibration::new(site);
    calibration.tap("x", &array![1.0_f32]).unwrap();
    assert!(matches!(
        calibration.finish(),
        Err(Error::MissingStatistic { .. })
    ));
}

#[test]
fn the_table_has_a_line_for_each_site() {
    let calibration = session();
    for batch in 0..4 {
        forward(&calibration, batch).unwrap();
    }
    let table = calibration.finish().unwrap().to_string();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 5);
    for (line, name) in lines[1..]
        .iter()
        .zip(["channels", "clipped", "input", "observed"])
    {
        assert!(line.starts_with(name) && line.contains(" 512 "), "{line}");
    }
}

#[test]
fn small_floats_and_own_histograms_are_calibrated_too() {
    let scheme = Scheme::float(FloatFormat::E4M3).build().unwrap();
    let coarse = HistogramObserver::new(Granularity::PerTensor)
        .with_bins(64)
        .unwrap();
    let site = Site::new(scheme).unwrap().with_observer(coarse).unwrap();
    let calibration = Calibration::new(site);
    calibration.tap("x", &array![-1.0_f32, 896.0, 3.0]).unwrap();
    let calibrated = calibration.finish().unwrap();
    assert_eq!(calibrated.affine("x").unwrap().scale(), [2.0]);
    let report = calibrated.report("x").unwrap();
    assert_eq!((report.covered, report.clipped), ((-896.0, 896.0), 0.0));
}
