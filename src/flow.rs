//! What composes several parts: calibration sessions over a user's own model.

mod calibration;
mod report;

pub use calibration::{Calibrated, Calibration, Site};
pub use report::SiteReport;
