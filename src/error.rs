//! The one error type: every variant says what was expected and what came.

/// What a fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an input was refused.
///
/// Every message is one lower-case line that names the thing, what was expected and what came.
///
/// ```
/// use lowbit::{Error, Scheme};
///
/// let error = Scheme::int(9).build().unwrap_err();
/// assert!(matches!(error, Error::InvalidOption { .. }));
/// assert_eq!(error.to_string(), "bits: expected 1 to 8, or 16, got 9");
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An option or argument outside what it may be.
    #[error("{what}: expected {expected}, got {got}")]
    InvalidOption {
        /// The option.
        what: &'static str,
        /// What it may be.
        expected: String,
        /// What it was.
        got: String,
    },

    /// Two shapes, or a shape and a parameter set, that do not belong together.
    #[error("shape of {what}: expected {expected:?}, got {got:?}")]
    ShapeMismatch {
        /// The operand with the wrong shape.
        what: &'static str,
        /// The shape it must have.
        expected: Vec<usize>,
        /// The shape it has.
        got: Vec<usize>,
    },

    /// A scheme that needs an axis the tensor does not have.
    #[error("axis: expected one of the {dimensions} axes of the tensor, got axis {axis}")]
    NoSuchAxis {
        /// The axis asked for.
        axis: usize,
        /// The number of axes there are.
        dimensions: usize,
    },

    /// A NaN, or an infinity where none is allowed.
    #[error("{what}: expected {expected}, got {value} at position {position:?}")]
    NonFinite {
        /// The operand.
        what: &'static str,
        /// What its values must be.
        expected: &'static str,
        /// The index of the first offending element, an entry for each axis.
        position: Vec<usize>,
        /// The element.
        value: f64,
    },

    /// A scale that is zero, negative, subnormal, not finite, or not representable in its storage.
    #[error("scale {index}: expected {expected}, got {got:e}")]
    InvalidScale {
        /// Which scale, counted in row-major order of the parameters.
        index: usize,
        /// What a scale must be here.
        expected: &'static str,
        /// The scale.
        got: f32,
    },

    /// A zero point outside the codes, or not an integer where it must be one.
    #[error("zero point {index}: expected {expected}, got {got}")]
    InvalidZeroPoint {
        /// Which zero point, counted in row-major order of the parameters.
        index: usize,
        /// What a zero point must be here.
        expected: String,
        /// The zero point.
        got: f32,
    },

    /// A range whose ends are not finite or are in the wrong order.
    #[error("range {index}: expected finite ends with min <= max, got [{min}, {max}]")]
    InvalidRange {
        /// Which range, counted in row-major order of the parameters.
        index: usize,
        /// Its lower end.
        min: f32,
        /// Its upper end.
        max: f32,
    },

    /// A code that its number format does not have.
    #[error("code at element {index}: expected {min} to {max}, got {got}")]
    InvalidCode {
        /// The element, counted in row-major order.
        index: usize,
        /// The least code.
        min: i32,
        /// The greatest code.
        max: i32,
        /// The code that came.
        got: i32,
    },

    /// A number format that does not fit the integer type it is to be stored in.
    #[error("integer type: expected one that holds {min} to {max}, got {got}")]
    CodeType {
        /// The least code of the format.
        min: i32,
        /// The greatest code of the format.
        max: i32,
        /// The Rust type asked for.
        got: &'static str,
    },

    /// A sum of products that 32-bit integers might not hold.
    #[error("depth: expected at most {limit} products in a 32-bit sum, got {got}")]
    DepthOverflow {
        /// The depth up to which the sum is exact.
        limit: usize,
        /// The depth that came.
        got: usize,
    },

    /// A request for more elements than a machine can address.
    #[error("{what}: expected a size that fits in memory, got {got}")]
    TooLarge {
        /// What was to be made.
        what: &'static str,
        /// Its size, as asked for.
        got: String,
    },

    /// Something was asked of statistics that were never gathered.
    #[error("{what}: expected at least one value, got none")]
    Empty {
        /// What has no data.
        what: String,
    },

    /// A calibrator that needs a statistic which the observer does not gather.
    #[error("statistics: expected {expected}, got an observer that gathers none ({observer})")]
    MissingStatistic {
        /// The statistic the calibrator reads.
        expected: &'static str,
        /// What was there instead.
        observer: &'static str,
    },

    /// Two values that cannot be merged or combined.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What does not match.
        what: &'static str,
        /// What the first one is.
        expected: String,
        /// What the other one is.
        got: String,
    },

    /// An operation that a scheme does not allow.
    #[error("{operation}: expected {expected}, got {got}")]
    Unsupported {
        /// What was attempted.
        operation: &'static str,
        /// What it can be done with.
        expected: &'static str,
        /// What it was asked for with.
        got: String,
    },

    /// An instruction set that this machine, or this build, does not have.
    #[error("instruction set: expected one of {available}, got {got}")]
    MissingIsa {
        /// The ones there are.
        available: String,
        /// The one asked for.
        got: String,
    },

    /// A file, or another source of bytes, that could not be opened or read.
    #[error("{from}: {source}")]
    Io {
        /// The path of the file, or what else was read from.
        from: String,
        /// What went wrong.
        source: std::io::Error,
    },

    /// Bytes that are not what their file format says.
    #[error("{what}{at}: expected {expected}, got {got}", at = at_byte(*.offset))]
    Format {
        /// The part of the file, with its name where it has one.
        what: String,
        /// What the format allows there.
        expected: String,
        /// What is there.
        got: String,
        /// The byte it starts with, counted from the start of the file, where that is known.
        offset: Option<u64>,
    },

    /// A tensor that a file does not have.
    #[error("tensor {name:?}: expected one of the {tensors} tensors of the file, got no match")]
    NoSuchTensor {
        /// The name asked for.
        name: String,
        /// The number of tensors there are.
        tensors: usize,
    },

    /// An error that came up while a layer of a model was worked on.
    #[error("layer {layer}: {source}")]
    Layer {
        /// The name of the layer, or of the inputs that several share.
        layer: String,
        /// What went wrong.
        source: Box<Error>,
    },

    /// Work that a progress callback stopped.
    #[error("{what}: expected to go on, got a stop after {done} of {total} blocks")]
    Cancelled {
        /// What was stopped.
        what: &'static str,
        /// Blocks that were finished.
        done: usize,
        /// Blocks that there are.
        total: usize,
    },

    /// An error of another crate's observer, calibrator, quantizer, fake-quant or estimator.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Wraps an error of a downstream crate's own implementation of a trait of this one.
    ///
    /// ```
    /// let error = lowbit::Error::other("the sensor is unplugged");
    /// assert_eq!(error.to_string(), "the sensor is unplugged");
    /// ```
    pub fn other(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(source.into())
    }

    /// Says in which layer of a model an error came up.
    pub(crate) fn in_layer(layer: &str) -> impl FnOnce(Self) -> Self + '_ {
        move |source| Self::Layer {
            layer: layer.to_owned(),
            source: Box::new(source),
        }
    }

    pub(crate) fn option(
        what: &'static str,
        expected: impl Into<String>,
        got: impl ToString,
    ) -> Self {
        Self::InvalidOption {
            what,
            expected: expected.into(),
            got: got.to_string(),
        }
    }
}

fn at_byte(offset: Option<u64>) -> String {
    offset.map_or(String::new(), |offset| format!(" at byte {offset}"))
}
