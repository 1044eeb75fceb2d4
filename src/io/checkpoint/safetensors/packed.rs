//! Layers of a checkpoint that another program quantized.

use ndarray::{Array1, Array2, Ix1, Ix2};

use super::{SafetensorsCheckpoint, read_json};
use crate::{
    error::{Error, Result},
    io::{
        checkpoint::Checkpoint,
        json::Selection,
        packed::{Awq, CompressedTensors, Gptq, GptqVersion, PackedWeight},
    },
};

const PATHS: &[&str] = &[
    "quantization_config",
    "quantization_config.quant_method",
    "quantization_config.bits",
    "quantization_config.group_size",
    "quantization_config.checkpoint_format",
    "quantization_config.version",
    "quantization_config.format",
    "quantization_config.config_groups.group_0.weights.num_bits",
    "quantization_config.config_groups.group_0.weights.group_size",
    "quantization_config.config_groups.group_0.weights.strategy",
    "quantization_config.config_groups.group_1",
];

/// How a checkpoint packs its quantized layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackedLayout {
    /// As AutoGPTQ and GPTQModel do.
    Gptq(Gptq),
    /// As AutoAWQ does.
    Awq(Awq),
    /// As compressed-tensors does.
    CompressedTensors(CompressedTensors),
}

impl PackedLayout {
    /// The layout that a `config.json` names in its `quantization_config`; `None` if it has none.
    ///
    /// # Errors
    /// [`Error::Format`] if it is not JSON, or if a value is missing or not what it may be;
    /// [`Error::Unsupported`] for other methods, formats and versions, and for layers in more than
    /// one way; [`Error::InvalidOption`] for bits that the layout does not have.
    ///
    /// ```
    /// use lowbit::io::{PackedLayout, packed::Awq};
    /// let json = br#"{"quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}"#;
    /// let awq = Awq::new(Some(128))?;
    /// assert_eq!(PackedLayout::from_json(json)?, Some(PackedLayout::Awq(awq)));
    /// # Ok::<(), lowbit::Error>(())
    /// ```
    pub fn from_json(json: &[u8]) -> Result<Option<Self>> {
        let selection = Selection::read(json, "config.json", PATHS)?;
        if selection.value("quantization_config").is_none() {
            return Ok(None);
        }
        let text = |path: &str| selection.text(&format!("quantization_config.{path}"));
        let bits = |path: &str| {
            let path = format!("quantization_config.{path}");
            let bits = selection
                .integer(&path)?
                .and_then(|bits| u32::try_from(bits).ok());
            bits.ok_or_else(|| selection.refused(&path, "a number of bits"))
        };
        // 0 is refused by the layouts.
        let group_size = |path: &str| -> Result<Option<usize>> {
            let path = format!("quantization_config.{path}");
            match selection.number(&path)? {
                Some(-1.0) => Ok(None),
                Some(size) if size < 0.0 => {
                    Err(selection.refused(&path, "a size, or -1 for one group of all"))
                }
                _ => match selection.integer(&path)? {
                    None => Ok(None),
                    Some(size) => match usize::try_from(size) {
                        Ok(size) => Ok(Some(size)),
                        Err(_) => Err(selection.refused(&path, "a size")),
                    },
                },
            }
        };
        let unsupported = |operation, expected, got: Option<&str>| {
            Err(Error::Unsupported {
                operation,
                expected,
                got: got.unwrap_or("none").into(),
            })
        };
        let method = text("quant_method")?;
        let layout = match method {
            Some("gptq") => {
                let version = match text("checkpoint_format")? {
                    None | Some("gptq") => GptqVersion::V1,
                    Some("gptq_v2") => GptqVersion::V2,
                    other => return unsupported("reading a GPTQ format", "gptq or gptq_v2", other),
                };
                Self::Gptq(Gptq::new(
                    bits("bits")?,
                    group_size("group_size")?,
                    version,
                )?)
            }
            Some("awq") => {
                let version = text("version")?;
                if !version.is_none_or(|version| version.eq_ignore_ascii_case("gemm")) {
                    return unsupported("reading a version of AWQ", "gemm", version);
                }
                if bits("bits")? != 4 {
                    return Err(Error::option("bits of AWQ", "4", bits("bits")?));
                }
                Self::Awq(Awq::new(group_size("group_size")?)?)
            }
            Some("compressed-tensors") => {
                let format = text("format")?;
                if format != Some("pack-quantized") {
                    const OPERATION: &str = "reading a format of compressed-tensors";
                    return unsupported(OPERATION, "pack-quantized", format);
                }
                if selection
                    .value("quantization_config.config_groups.group_1")
                    .is_some()
                {
                    const OPERATION: &str = "reading groups of compressed-tensors";
                    return unsupported(OPERATION, "one", Some("several"));
                }
                const WEIGHTS: &str = "config_groups.group_0.weights";
                let group_size = match text(&format!("{WEIGHTS}.strategy"))? {
                    Some("channel") => None,
                    None | Some("group") => group_size(&format!("{WEIGHTS}.group_size"))?,
                    other => {
                        const OPERATION: &str = "reading a strategy of compressed-tensors";
                        return unsupported(OPERATION, "channel or group", other);
                    }
                };
                let bits = bits(&format!("{WEIGHTS}.num_bits"))?;
                Self::CompressedTensors(CompressedTensors::new(bits, group_size)?)
            }
            other => {
                let expected = "gptq, awq or compressed-tensors";
                return unsupported("reading a quantization method", expected, other);
            }
        };
        Ok(Some(layout))
    }
}

impl SafetensorsCheckpoint {
    /// How the quantized layers are packed, as `config.json` says; `None` if it says nothing.
    ///
    /// # Errors
    /// Those of [`PackedLayout::from_json`]; [`Error::Io`] if the file cannot be read.
    pub fn packed_layout(&self) -> Result<Option<PackedLayout>> {
        PackedLayout::from_json(&read_json(&self.directory.join("config.json"))?)
    }

    /// Reads a quantized layer by the name that its tensors have before their last point, such as
    /// `model.layers.0.self_attn.q_proj`.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`] if a tensor of the layout is missing; [`Error::Unsupported`] for
    /// element types that are not read; [`Error::Io`] if a file cannot be read; those of the
    /// layout's `read`.
    pub fn packed(&self, layer: &str, layout: &PackedLayout) -> Result<PackedWeight> {
        let floats = |name| matrix(self.tensor(&format!("{layer}.{name}"))?);
        let words = |name| matrix(self.words(&format!("{layer}.{name}"))?);
        let has = |name| self.contains(&format!("{layer}.{name}"));
        let column_groups = |name| -> Result<Option<Array1<i32>>> {
            if !has(name) {
                return Ok(None);
            }
            let groups = self.words(&format!("{layer}.{name}"))?;
            let shape = groups.shape().to_vec();
            groups
                .into_dimensionality::<Ix1>()
                .map(Some)
                .map_err(|_| axes(1, &shape))
        };
        match layout {
            PackedLayout::Gptq(gptq) => gptq.read(
                &words("qweight")?,
                &words("qzeros")?,
                &floats("scales")?,
                column_groups("g_idx")?.as_deref(),
            ),
            PackedLayout::Awq(awq) => {
                let zeros = has("qzeros").then(|| words("qzeros")).transpose()?;
                awq.read(&words("qweight")?, zeros.as_deref(), &floats("scales")?)
            }
            PackedLayout::CompressedTensors(tensors) => {
                let zeros = has("weight_zero_point").then(|| words("weight_zero_point"));
                let sizes = self.words(&format!("{layer}.weight_shape"))?;
                let shape: Option<Vec<usize>> =
                    sizes.iter().map(|&s| usize::try_from(s).ok()).collect();
                let shape = shape.and_then(|shape| <[usize; 2]>::try_from(shape).ok());
                let shape = shape.ok_or_else(|| Error::Mismatch {
                    what: "weight_shape",
                    expected: "two sizes".into(),
                    got: sizes.to_string(),
                })?;
                tensors.read(
                    &words("weight_packed")?,
                    &floats("weight_scale")?,
                    zeros.transpose()?.as_deref(),
                    shape,
                    column_groups("weight_g_idx")?.as_deref(),
                )
            }
        }
    }

    /// Integers that are 32 bits each, with or without a sign.
    fn words(&self, name: &str) -> Result<ndarray::ArrayD<i32>> {
        let integers = self.file_of(name)?.integers(name)?;
        let mut beyond = None;
        let words = integers.mapv(|integer| {
            let unsigned = || u32::try_from(integer).map(u32::cast_signed);
            i32::try_from(integer)
                .or_else(|_| unsigned())
                .unwrap_or_else(|_| {
                    beyond = Some(integer);
                    0
                })
        });
        match beyond {
            None => Ok(words),
            Some(integer) => Err(Error::Unsupported {
                operation: "reading a packed layer",
                expected: "integers of 32 bits",
                got: integer.to_string(),
            }),
        }
    }
}

fn matrix<T>(array: ndarray::ArrayD<T>) -> Result<Array2<T>> {
    let shape = array.shape().to_vec();
    array
        .into_dimensionality::<Ix2>()
        .map_err(|_| axes(2, &shape))
}

fn axes(expected: usize, got: &[usize]) -> Error {
    Error::Mismatch {
        what: "tensor of a packed layer",
        expected: format!("{expected} axes"),
        got: format!("shape {got:?}"),
    }
}
