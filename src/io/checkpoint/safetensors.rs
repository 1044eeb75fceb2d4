//! A model in safetensors files, with `config.json` beside.

mod packed;
mod shards;

use std::path::{Path, PathBuf};

use ndarray::ArrayD;

use super::Checkpoint;
use crate::{
    error::{Error, Result},
    io::{config::LlamaConfig, safetensors::Safetensors, source::Source},
};
pub use packed::PackedLayout;

/// Bytes of the longest `config.json` or index that is read.
const LONGEST_JSON: u64 = 1 << 26;

/// A model in safetensors files, one or several, as Hugging Face's libraries store it.
///
/// ```no_run
/// use lowbit::io::{Checkpoint, SafetensorsCheckpoint};
/// let model = SafetensorsCheckpoint::open("stories260K")?;
/// assert_eq!(model.config()?.hidden_size, 64);
/// # Ok::<(), lowbit::Error>(())
/// ```
#[derive(Debug)]
pub struct SafetensorsCheckpoint {
    files: Vec<Safetensors>,
    directory: PathBuf,
}

impl SafetensorsCheckpoint {
    /// Opens a directory with `model.safetensors`, or with `model.safetensors.index.json` and the
    /// files it names beside it; or a single file. `config.json` is read from the same directory
    /// when it is asked for.
    ///
    /// # Errors
    /// Those of [`Safetensors::open`]; [`Error::Format`] for an index that is not JSON, that names
    /// files elsewhere than beside it or a tensor that its file does not have, and for a tensor that
    /// two files have.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if !path.is_dir() {
            return Ok(Self {
                files: vec![Safetensors::open(path)?],
                directory: path.parent().unwrap_or(Path::new("")).into(),
            });
        }
        let single = path.join("model.safetensors");
        let index = path.join("model.safetensors.index.json");
        let files = if single.is_file() || !index.is_file() {
            vec![Safetensors::open(single)?]
        } else {
            shards::open(path, &read_json(&index)?)?
        };
        Ok(Self {
            files,
            directory: path.into(),
        })
    }

    /// The files of the model.
    #[must_use]
    pub fn files(&self) -> &[Safetensors] {
        &self.files
    }

    /// The file that has a tensor.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn file_of(&self, name: &str) -> Result<&Safetensors> {
        let mut files = self.files.iter();
        files
            .find(|file| file.contains(name))
            .ok_or_else(|| Error::NoSuchTensor {
                name: name.into(),
                tensors: self.files.iter().map(|file| file.names().len()).sum(),
            })
    }
}

impl Checkpoint for SafetensorsCheckpoint {
    fn config(&self) -> Result<LlamaConfig> {
        LlamaConfig::from_json(&read_json(&self.directory.join("config.json"))?)
    }

    fn names(&self) -> Vec<String> {
        let names = self.files.iter().flat_map(Safetensors::names);
        names.map(String::from).collect()
    }

    fn shape(&self, name: &str) -> Result<Vec<usize>> {
        self.file_of(name)?.shape(name)
    }

    fn tensor(&self, name: &str) -> Result<ArrayD<f32>> {
        self.file_of(name)?.tensor(name)
    }
}

fn read_json(path: &Path) -> Result<Vec<u8>> {
    let source = Source::open(path)?;
    match usize::try_from(source.len()) {
        Ok(len) if source.len() <= LONGEST_JSON => source.read_vec(0, len),
        _ => Err(Error::Format {
            what: path.display().to_string(),
            expected: format!("at most {LONGEST_JSON} bytes"),
            got: source.len().to_string(),
            offset: None,
        }),
    }
}
