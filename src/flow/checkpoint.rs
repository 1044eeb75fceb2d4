//! Finished blocks in files, so that an interrupted quantization goes on where it was.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use ndarray::Array2;

use super::{
    BlockReport, LayerReport, QuantizableBlock, QuantizedLayer,
    block_work::{BlockWork, Settings},
};
use crate::error::{Error, Result};

/// What tells one quantization from another: a 64-bit FNV-1a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// Of the settings, a recipe among them, and of the calibration samples.
    pub(super) fn of(settings: Settings<'_>, samples: &[Array2<f32>]) -> Self {
        let mut fingerprint = Self(0xcbf2_9ce4_8422_2325);
        fingerprint.add(format!("{settings:?}").as_bytes());
        for sample in samples {
            fingerprint.add_floats(sample.view());
        }
        fingerprint
    }

    fn add(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn add_floats(&mut self, x: ndarray::ArrayView2<'_, f32>) {
        self.add(&(x.ncols() as u64).to_le_bytes());
        for value in x {
            self.add(&value.to_bits().to_le_bytes());
        }
    }
}

/// A directory of finished blocks.
#[derive(Debug)]
pub(super) struct Checkpoints {
    directory: PathBuf,
    fingerprint: Fingerprint,
}

/// A file.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    version: u32,
    /// Of recipe, samples and the weights of the block, in hexadecimal digits.
    fingerprint: String,
    layers: Vec<StoredLayer>,
    block: Option<BlockReport>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredLayer {
    quantized: QuantizedLayer,
    report: LayerReport,
}

const VERSION: u32 = 2;

impl Checkpoints {
    pub(super) fn open(directory: &Path, fingerprint: Fingerprint) -> Result<Self> {
        fs::create_dir_all(directory).map_err(io(directory))?;
        Ok(Self {
            directory: directory.to_owned(),
            fingerprint,
        })
    }

    fn path(&self, block: usize) -> PathBuf {
        self.directory.join(format!("block-{block:05}.json"))
    }

    /// Of this block in floats.
    fn fingerprint<B: QuantizableBlock>(&self, work: &BlockWork<B>) -> Result<String> {
        let mut fingerprint = self.fingerprint;
        for input in work.float.stages().iter().flatten() {
            for layer in &input.layers {
                fingerprint.add(layer.as_bytes());
                fingerprint.add_floats(work.float.weights(layer)?);
            }
        }
        Ok(format!("{:016x}", fingerprint.0))
    }

    /// Puts the layers of a finished block in place; false if there is no file of it.
    pub(super) fn restore<B: QuantizableBlock>(
        &self,
        block: usize,
        work: &mut BlockWork<B>,
    ) -> Result<bool> {
        let path = self.path(block);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io(&path)(error)),
        };
        let stored: Stored = serde_json::from_slice(&bytes).map_err(|error| Error::Format {
            what: path.display().to_string(),
            expected: "a checkpoint of a block".into(),
            got: error.to_string(),
            offset: None,
        })?;
        let expected = (VERSION, self.fingerprint(work)?);
        if (stored.version, &stored.fingerprint) != (expected.0, &expected.1) {
            return Err(Error::Mismatch {
                what: "checkpoint",
                expected: format!(
                    "one of version {} of this recipe, these samples and this model ({})",
                    expected.0, expected.1
                ),
                got: format!(
                    "version {}, {}, in {}",
                    stored.version,
                    stored.fingerprint,
                    path.display()
                ),
            });
        }
        for StoredLayer { quantized, report } in stored.layers {
            let shape = work.float.weights(&report.layer)?.dim();
            let got = quantized.weights().shape();
            crate::affine::same_shape("weights of a checkpoint", &[shape.0, shape.1], got)?;
            work.quantized.replace(&report.layer, &quantized)?;
            work.done.push((quantized, report));
        }
        work.report = stored.block;
        Ok(true)
    }

    /// Writes a finished block aside, then moves it to its place.
    pub(super) fn store<B: QuantizableBlock>(
        &self,
        block: usize,
        work: &BlockWork<B>,
    ) -> Result<()> {
        let layers = work.done.iter().map(|(quantized, report)| StoredLayer {
            quantized: quantized.clone(),
            report: report.clone(),
        });
        let stored = Stored {
            version: VERSION,
            fingerprint: self.fingerprint(work)?,
            layers: layers.collect(),
            block: work.report,
        };
        let bytes = serde_json::to_vec(&stored).map_err(Error::other)?;
        let (path, aside) = (self.path(block), self.path(block).with_extension("partial"));
        let mut file = File::create(&aside).map_err(io(&aside))?;
        file.write_all(&bytes).map_err(io(&aside))?;
        // On the disk before its name is: a crash must not leave an empty file of that name.
        file.sync_all().map_err(io(&aside))?;
        fs::rename(&aside, &path).map_err(io(&path))
    }
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        from: path.display().to_string(),
        source,
    }
}
