//! Models in files of any format.

#[cfg(feature = "gguf")]
mod gguf;
#[cfg(feature = "safetensors")]
mod safetensors;

use std::path::{Path, PathBuf};

use ndarray::ArrayD;

use super::{config::LlamaConfig, source::Source};
use crate::error::{Error, Result};

#[cfg(feature = "gguf")]
pub use gguf::{GgufCheckpoint, gguf_name, hugging_face_name};
#[cfg(feature = "safetensors")]
pub use safetensors::{PackedLayout, SafetensorsCheckpoint};

/// A model in files: its sizes, and its tensors by the names that Hugging Face's libraries use.
///
/// ```
/// use lowbit::{Result, io::{Checkpoint, LlamaConfig}};
/// use ndarray::{ArrayD, array};
///
/// /// A model that is made up.
/// #[derive(Debug)]
/// struct Zeros;
///
/// impl Checkpoint for Zeros {
///     fn config(&self) -> Result<LlamaConfig> {
///         Err(lowbit::Error::other("it has no blocks"))
///     }
///     fn names(&self) -> Vec<String> {
///         vec!["lm_head.weight".into()]
///     }
///     fn shape(&self, _: &str) -> Result<Vec<usize>> {
///         Ok(vec![1, 2])
///     }
///     fn tensor(&self, _: &str) -> Result<ArrayD<f32>> {
///         Ok(array![[0.0, 0.0]].into_dyn())
///     }
/// }
///
/// let model: Box<dyn Checkpoint> = Box::new(Zeros);
/// assert!(model.contains("lm_head.weight"));
/// ```
pub trait Checkpoint: std::fmt::Debug + Send + Sync {
    /// The sizes of the model.
    ///
    /// # Errors
    /// [`Error::Format`] if they are missing or not what they may be; [`Error::Unsupported`] for a
    /// model that is not Llama's kind.
    fn config(&self) -> Result<LlamaConfig>;

    /// The names of the tensors.
    fn names(&self) -> Vec<String>;

    /// The shape of a tensor, outermost axis first: `[out, in]` for a weight.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    fn shape(&self, name: &str) -> Result<Vec<usize>>;

    /// A tensor in floats, read from its file now.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`]; [`Error::Unsupported`] for element types that are not read;
    /// [`Error::TooLarge`] if it does not fit in memory; [`Error::Io`] if the file cannot be read.
    fn tensor(&self, name: &str) -> Result<ArrayD<f32>>;

    /// Whether there is a tensor of that name.
    fn contains(&self, name: &str) -> bool {
        self.shape(name).is_ok()
    }
}

/// Opens a model: a GGUF or a safetensors file, or a directory that holds `model.safetensors`,
/// `model.safetensors.index.json` with the files it names, or a single `.gguf` file.
///
/// # Errors
/// [`Error::Io`] if the path cannot be read; [`Error::Unsupported`] if there is no model, or one of
/// a format whose feature is not enabled; [`Error::Format`] if a file is not what its format says.
///
/// ```no_run
/// let model = lowbit::io::open("SmolLM2-135M-Instruct")?;
/// println!("{} blocks", model.config()?.num_hidden_layers);
/// let embedding = model.tensor("model.embed_tokens.weight")?;
/// # Ok::<(), lowbit::Error>(())
/// ```
pub fn open(path: impl AsRef<Path>) -> Result<Box<dyn Checkpoint>> {
    let path = path.as_ref();
    let io = |source| Error::Io {
        from: path.display().to_string(),
        source,
    };
    if !std::fs::metadata(path).map_err(io)?.is_dir() {
        let source = Source::open(path)?;
        // A file that is too short for it is refused by its reader.
        let mut magic = [0; 4];
        if source.len() >= 4 {
            source.read(0, &mut magic)?;
        }
        return if &magic == b"GGUF" {
            open_gguf(path)
        } else {
            open_safetensors(path)
        };
    }
    let has = |name| path.join(name).is_file();
    if has("model.safetensors") || has("model.safetensors.index.json") {
        return open_safetensors(path);
    }
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let file = entry.map_err(io)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "gguf")
            && files.len() < 2
        {
            files.push(file);
        }
    }
    match files.as_slice() {
        [file] => open_gguf(file),
        _ => Err(Error::Unsupported {
            operation: "opening a model",
            expected: "a directory with model.safetensors, its index, or one .gguf file",
            got: format!("{}, with none or several", path.display()),
        }),
    }
}

#[cfg(feature = "gguf")]
fn open_gguf(path: &Path) -> Result<Box<dyn Checkpoint>> {
    Ok(Box::new(GgufCheckpoint::open(path)?))
}

#[cfg(not(feature = "gguf"))]
fn open_gguf(path: &Path) -> Result<Box<dyn Checkpoint>> {
    Err(Error::Unsupported {
        operation: "opening a GGUF file",
        expected: "the feature `gguf` of this crate",
        got: format!("{} without it", path.display()),
    })
}

#[cfg(feature = "safetensors")]
fn open_safetensors(path: &Path) -> Result<Box<dyn Checkpoint>> {
    Ok(Box::new(SafetensorsCheckpoint::open(path)?))
}

#[cfg(not(feature = "safetensors"))]
fn open_safetensors(path: &Path) -> Result<Box<dyn Checkpoint>> {
    Err(Error::Unsupported {
        operation: "opening a safetensors file",
        expected: "the feature `safetensors` of this crate",
        got: format!("{} without it", path.display()),
    })
}
