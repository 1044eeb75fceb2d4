//! Conformance cases: one safetensors file each, see `../shared/conformance/README.md`.

use std::path::Path;

use half::f16;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

/// The cases of one operator, by name; none where they are not on this machine.
pub(super) fn of(operator: &str) -> Vec<(String, Case)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance");
    let Ok(entries) = std::fs::read_dir(&directory) else {
        eprintln!("SKIPPED: {} is not there", directory.display());
        return Vec::new();
    };
    let mut cases: Vec<(String, Case)> = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            let case = Case::new(std::fs::read(&path).unwrap());
            if case.operator == operator {
                cases.push((path.file_stem().unwrap().to_string_lossy().into(), case));
            }
        }
    }
    assert!(!cases.is_empty(), "no case of {operator}");
    cases.sort_by(|a, b| a.0.cmp(&b.0));
    cases
}

pub(super) struct Case {
    bytes: Vec<u8>,
    operator: String,
    pub(super) attributes: Value,
}

impl Case {
    fn new(bytes: Vec<u8>) -> Self {
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = header.metadata().clone().unwrap();
        Self {
            operator: metadata["op"].clone(),
            attributes: serde_json::from_str(&metadata["attrs"]).unwrap(),
            bytes,
        }
    }

    pub(super) fn text(&self, name: &str) -> &str {
        self.attributes[name].as_str().unwrap()
    }

    pub(super) fn has(&self, name: &str) -> bool {
        SafeTensors::deserialize(&self.bytes)
            .unwrap()
            .tensor(name)
            .is_ok()
    }

    /// The shape, the type and the bytes of a tensor.
    pub(super) fn raw(&self, name: &str) -> (Vec<usize>, Dtype, Vec<u8>) {
        let file = SafeTensors::deserialize(&self.bytes).unwrap();
        let tensor = file
            .tensor(name)
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        (
            tensor.shape().to_vec(),
            tensor.dtype(),
            tensor.data().to_vec(),
        )
    }

    /// A tensor of F32 or F16.
    pub(super) fn floats(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (shape, dtype, bytes) = self.raw(name);
        let floats = match dtype {
            Dtype::F32 => bytes
                .as_chunks()
                .0
                .iter()
                .map(|&b| f32::from_le_bytes(b))
                .collect(),
            Dtype::F16 => {
                let halves = bytes.as_chunks().0.iter();
                halves.map(|&b| f16::from_le_bytes(b).to_f32()).collect()
            }
            other => panic!("{name} is {other:?}"),
        };
        (shape, floats)
    }
}

/// The same bits, or both NaN.
pub(super) fn assert_same_bits(name: &str, expected: &[f32], got: &[f32]) {
    assert_eq!(expected.len(), got.len(), "{name}");
    for (index, (e, g)) in expected.iter().zip(got).enumerate() {
        assert!(
            e.to_bits() == g.to_bits() || (e.is_nan() && g.is_nan()),
            "{name}, element {index}: expected {e:e}, got {g:e}"
        );
    }
}
