//! A case file: operator, attributes and tensors.

use std::collections::BTreeMap;

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The elements of a tensor, in the type the file stores them in.
#[derive(Debug, Clone, PartialEq)]
pub enum Data {
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
    F16(ArrayD<f16>),
    BF16(ArrayD<bf16>),
    I8(ArrayD<i8>),
    U8(ArrayD<u8>),
    I16(ArrayD<i16>),
    U16(ArrayD<u16>),
    I32(ArrayD<i32>),
    I64(ArrayD<i64>),
}

impl Data {
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::F64(a) => a.shape(),
            Self::F16(a) => a.shape(),
            Self::BF16(a) => a.shape(),
            Self::I8(a) => a.shape(),
            Self::U8(a) => a.shape(),
            Self::I16(a) => a.shape(),
            Self::U16(a) => a.shape(),
            Self::I32(a) => a.shape(),
            Self::I64(a) => a.shape(),
        }
    }

    /// The elements as f32, which holds those of every type here but i32, i64 and f64 exactly.
    pub fn to_f32(&self) -> ArrayD<f32> {
        match self {
            Self::F32(a) => a.clone(),
            Self::F64(a) => a.mapv(|x| x as f32),
            Self::F16(a) => a.mapv(f16::to_f32),
            Self::BF16(a) => a.mapv(bf16::to_f32),
            Self::I8(a) => a.mapv(f32::from),
            Self::U8(a) => a.mapv(f32::from),
            Self::I16(a) => a.mapv(f32::from),
            Self::U16(a) => a.mapv(f32::from),
            Self::I32(a) => a.mapv(|x| x as f32),
            Self::I64(a) => a.mapv(|x| x as f32),
        }
    }

    pub fn to_vec_f32(&self) -> Vec<f32> {
        self.to_f32().into_iter().collect()
    }
}

/// One case.
#[derive(Debug)]
pub struct Case {
    pub operator: String,
    attributes: Value,
    tensors: BTreeMap<String, Data>,
}

impl Case {
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|e| e.to_string())?;
        let file = SafeTensors::deserialize(bytes).map_err(|e| e.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let operator = metadata.get("op").ok_or("no `op` in the metadata")?.clone();
        let attributes = metadata.get("attrs").map_or("{}", String::as_str);
        let attributes: Value =
            serde_json::from_str(attributes).map_err(|e| format!("`attrs`: {e}"))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.tensors() {
            let logical = attributes["dtypes"][&name].as_str();
            let data = read(view.dtype(), view.shape(), view.data(), logical)
                .map_err(|e| format!("tensor {name}: {e}"))?;
            tensors.insert(name, data);
        }
        Ok(Self {
            operator,
            attributes,
            tensors,
        })
    }

    pub fn tensor(&self, name: &str) -> Result<&Data, String> {
        self.tensors
            .get(name)
            .ok_or_else(|| format!("no tensor {name:?}"))
    }

    pub fn optional(&self, name: &str) -> Option<&Data> {
        self.tensors.get(name)
    }

    /// The tensors `NAME.0`, `NAME.1` … in order.
    pub fn numbered(&self, name: &str) -> Vec<&Data> {
        (0..)
            .map_while(|index| self.tensors.get(&format!("{name}.{index}")))
            .collect()
    }

    /// The outputs the case expects.
    pub fn expected(&self) -> impl Iterator<Item = (&str, &Data)> {
        self.tensors
            .iter()
            .filter_map(|(name, data)| Some((name.strip_prefix("expected.")?, data)))
    }

    /// The logical type of a tensor, where the case names one.
    pub fn logical_type(&self, name: &str) -> Option<&str> {
        self.attributes["dtypes"][name].as_str()
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>, String> {
        match &self.attributes[name] {
            Value::Null => Ok(None),
            value => value
                .as_i64()
                .map(Some)
                .ok_or_else(|| format!("attribute {name}: expected an integer, got {value}")),
        }
    }

    pub fn real(&self, name: &str) -> Result<f64, String> {
        let value = &self.attributes[name];
        value
            .as_f64()
            .ok_or_else(|| format!("attribute {name}: expected a number, got {value}"))
    }

    pub fn flag(&self, name: &str) -> bool {
        self.attributes[name].as_bool().unwrap_or(false)
    }

    pub fn text(&self, name: &str) -> Result<&str, String> {
        let value = &self.attributes[name];
        value
            .as_str()
            .ok_or_else(|| format!("attribute {name}: expected a string, got {value}"))
    }
}

fn read(
    dtype: Dtype,
    shape: &[usize],
    bytes: &[u8],
    logical: Option<&str>,
) -> Result<Data, String> {
    fn array<T, const N: usize>(
        shape: &[usize],
        bytes: &[u8],
        of: impl Fn([u8; N]) -> T,
    ) -> Result<ArrayD<T>, String> {
        let (elements, _) = bytes.as_chunks::<N>();
        let elements = elements.iter().map(|&element| of(element)).collect();
        ArrayD::from_shape_vec(IxDyn(shape), elements).map_err(|e| e.to_string())
    }
    Ok(match (dtype, logical) {
        (Dtype::U16, Some("bfloat16")) | (Dtype::BF16, _) => {
            Data::BF16(array(shape, bytes, bf16::from_le_bytes)?)
        }
        (Dtype::F32, _) => Data::F32(array(shape, bytes, f32::from_le_bytes)?),
        (Dtype::F64, _) => Data::F64(array(shape, bytes, f64::from_le_bytes)?),
        (Dtype::F16, _) => Data::F16(array(shape, bytes, f16::from_le_bytes)?),
        (Dtype::I8, _) => Data::I8(array(shape, bytes, i8::from_le_bytes)?),
        (Dtype::U8, _) => Data::U8(array(shape, bytes, u8::from_le_bytes)?),
        (Dtype::I16, _) => Data::I16(array(shape, bytes, i16::from_le_bytes)?),
        (Dtype::U16, _) => Data::U16(array(shape, bytes, u16::from_le_bytes)?),
        (Dtype::I32, _) => Data::I32(array(shape, bytes, i32::from_le_bytes)?),
        (Dtype::I64, _) => Data::I64(array(shape, bytes, i64::from_le_bytes)?),
        (other, _) => return Err(format!("element type {other:?} is not read")),
    })
}
