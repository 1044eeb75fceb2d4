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

/// What a hash starts with.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// What tells one quantization from another: a 64-bit FNV-1a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// Of the settings, a recipe among them, and of the calibration samples.
    pub(super) fn of(settings: Settings<'_>, samples: &[Array2<f32>]) -> Self {
        let mut fingerprint = Self::of_bytes(format!("{settings:?}").as_bytes());
        for sample in samples {
            fingerprint.add_floats(sample.view());
        }
        fingerprint
    }

    fn of_bytes(bytes: &[u8]) -> Self {
        let mut fingerprint = Self(OFFSET);
        fingerprint.add(bytes);
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

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A directory of finished blocks.
#[derive(Debug)]
pub(super) struct Checkpoints {
    directory: PathBuf,
    /// Of settings, samples and the blocks so far.
    fingerprint: Fingerprint,
}

/// The first line of a file. Its text stays readable to later versions.
#[derive(serde::Serialize, serde::Deserialize)]
struct Header {
    version: u32,
    /// Of recipe, samples and the weights of this block and those before, in hexadecimal digits.
    fingerprint: String,
    /// Of the bytes that follow the line.
    #[serde(default)]
    content: String,
}

/// What follows the first line.
#[derive(serde::Serialize, serde::Deserialize)]
struct Stored {
    layers: Vec<StoredLayer>,
    block: Option<BlockReport>,
}

#[derive(serde::Serialize, serde::Deserialize)]
struct StoredLayer {
    quantized: QuantizedLayer,
    report: LayerReport,
}

const VERSION: u32 = 3;

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

    /// Goes on to this block in floats: its layers and their inputs depend on all blocks before.
    pub(super) fn begin<B: QuantizableBlock>(&mut self, work: &BlockWork<B>) -> Result<()> {
        for input in work.float.stages().iter().flatten() {
            for layer in &input.layers {
                self.fingerprint.add(layer.as_bytes());
                self.fingerprint.add_floats(work.float.weights(layer)?);
            }
        }
        Ok(())
    }

    /// Puts the layers of a finished block in place; false if there is no file of it. They must be
    /// `expected` and no others.
    pub(super) fn restore<B: QuantizableBlock>(
        &self,
        block: usize,
        expected: &[&str],
        work: &mut BlockWork<B>,
    ) -> Result<bool> {
        let path = self.path(block);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(io(&path)(error)),
        };
        let stored = self.read(&path, &bytes)?;
        let layers: Vec<&str> = stored.layers.iter().map(|l| &*l.report.layer).collect();
        if layers != expected {
            let expected = format!("the layers {expected:?}");
            return Err(damaged(&path, expected, format!("the layers {layers:?}")));
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

    /// What a file holds, if it is of this quantization and as it was written.
    fn read(&self, path: &Path, bytes: &[u8]) -> Result<Stored> {
        let unread = |error: serde_json::Error| {
            damaged(path, "a checkpoint of a block".into(), error.to_string())
        };
        let end = bytes.iter().position(|&byte| byte == b'\n');
        let (line, content) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
        let header: Header = serde_json::from_slice(line).map_err(unread)?;
        let fingerprint = self.fingerprint.to_string();
        if (header.version, &header.fingerprint) != (VERSION, &fingerprint) {
            return Err(Error::Mismatch {
                what: "checkpoint",
                expected: format!(
                    "one of version {VERSION} of this recipe, these samples and this model \
                     ({fingerprint})"
                ),
                got: format!(
                    "version {}, {}, in {}",
                    header.version,
                    short(&header.fingerprint),
                    path.display()
                ),
            });
        }
        let hash = Fingerprint::of_bytes(content).to_string();
        if header.content != hash {
            let expected = format!("content of hash {}", short(&header.content));
            return Err(damaged(path, expected, hash));
        }
        serde_json::from_slice(content).map_err(unread)
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
            layers: layers.collect(),
            block: work.report,
        };
        let content = serde_json::to_vec(&stored).map_err(Error::other)?;
        let header = Header {
            version: VERSION,
            fingerprint: self.fingerprint.to_string(),
            content: Fingerprint::of_bytes(&content).to_string(),
        };
        let mut line = serde_json::to_vec(&header).map_err(Error::other)?;
        line.push(b'\n');
        let (path, aside) = (self.path(block), self.path(block).with_extension("partial"));
        let mut file = File::create(&aside).map_err(io(&aside))?;
        file.write_all(&line).map_err(io(&aside))?;
        file.write_all(&content).map_err(io(&aside))?;
        // On the disk before its name is: a crash must not leave an empty file of that name.
        file.sync_all().map_err(io(&aside))?;
        fs::rename(&aside, &path).map_err(io(&path))
    }
}

fn damaged(path: &Path, expected: String, got: String) -> Error {
    Error::Format {
        what: path.display().to_string(),
        expected,
        got,
        offset: None,
    }
}

/// A hash from a file, of which nothing is known.
fn short(hash: &str) -> String {
    hash.chars().take(16).collect()
}

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error + '_ {
    move |source| Error::Io {
        from: path.display().to_string(),
        source,
    }
}
