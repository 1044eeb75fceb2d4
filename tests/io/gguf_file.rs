//! Writes GGUF files, good and bad.

/// The type numbers of metadata.
pub(super) const U32: u32 = 4;
pub(super) const F32: u32 = 6;
pub(super) const BOOL: u32 = 7;
pub(super) const STRING: u32 = 8;
pub(super) const ARRAY: u32 = 9;

/// A file in parts: what is not set is as it should be.
pub(super) struct GgufFile {
    pub(super) version: u32,
    pub(super) alignment: usize,
    pub(super) metadata: Vec<(String, u32, Vec<u8>)>,
    pub(super) tensors: Vec<Tensor>,
    /// Counts to claim instead of the true ones.
    pub(super) counts: Option<(u64, u64)>,
}

pub(super) struct Tensor {
    pub(super) name: String,
    /// From the innermost axis out, as in the file.
    pub(super) extents: Vec<u64>,
    pub(super) kind: u32,
    /// An offset to claim instead of the true one.
    pub(super) offset: Option<u64>,
    pub(super) data: Vec<u8>,
}

pub(super) fn tensor(name: &str, extents: &[u64], kind: u32, data: Vec<u8>) -> Tensor {
    Tensor {
        name: name.into(),
        extents: extents.to_vec(),
        kind,
        offset: None,
        data,
    }
}

pub(super) fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

pub(super) fn array(kind: u32, len: u64, values: &[u8]) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend(len.to_le_bytes());
    bytes.extend(values);
    bytes
}

pub(super) fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

impl GgufFile {
    pub(super) fn new() -> Self {
        Self {
            version: 3,
            alignment: 32,
            metadata: Vec::new(),
            tensors: Vec::new(),
            counts: None,
        }
    }

    pub(super) fn with(mut self, name: &str, kind: u32, value: Vec<u8>) -> Self {
        self.metadata.push((name.into(), kind, value));
        self
    }

    pub(super) fn with_text(self, name: &str, value: &str) -> Self {
        self.with(name, STRING, string(value))
    }

    pub(super) fn with_u32(self, name: &str, value: u32) -> Self {
        self.with(name, U32, value.to_le_bytes().to_vec())
    }

    pub(super) fn with_tensor(mut self, tensor: Tensor) -> Self {
        self.tensors.push(tensor);
        self
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        let true_counts = (self.tensors.len() as u64, self.metadata.len() as u64);
        let (tensors, metadata) = self.counts.unwrap_or(true_counts);
        bytes.extend(tensors.to_le_bytes());
        bytes.extend(metadata.to_le_bytes());
        for (name, kind, value) in &self.metadata {
            bytes.extend(string(name));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        let mut data = Vec::new();
        for tensor in &self.tensors {
            bytes.extend(string(&tensor.name));
            bytes.extend((tensor.extents.len() as u32).to_le_bytes());
            for extent in &tensor.extents {
                bytes.extend(extent.to_le_bytes());
            }
            bytes.extend(tensor.kind.to_le_bytes());
            data.resize(usize::next_multiple_of(data.len(), self.alignment), 0);
            bytes.extend(tensor.offset.unwrap_or(data.len() as u64).to_le_bytes());
            data.extend(&tensor.data);
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes.extend(data);
        bytes
    }
}

/// A small model with every kind of metadata and several kinds of tensor.
pub(super) fn small() -> GgufFile {
    let strings: Vec<u8> = ["a", "", "ä"]
        .iter()
        .flat_map(|text| string(text))
        .collect();
    GgufFile::new()
        .with_text("general.architecture", "llama")
        .with("numbers", ARRAY, array(U32, 2, &[1, 0, 0, 0, 2, 0, 0, 0]))
        .with("strings", ARRAY, array(STRING, 3, &strings))
        .with("flags", ARRAY, array(BOOL, 2, &[0, 1]))
        .with("half", F32, 0.5_f32.to_le_bytes().to_vec())
        .with("flag", BOOL, vec![1])
        .with_u32("count", 7)
        .with_tensor(tensor(
            "floats",
            &[3, 2],
            0,
            floats(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        ))
        .with_tensor(tensor(
            "blocks",
            &[32, 2],
            2,
            [vec![0x00, 0x3c], vec![0x98; 16]].concat().repeat(2),
        ))
        .with_tensor(tensor("scalar", &[], 0, floats(&[7.0])))
        .with_tensor(tensor("nothing", &[0, 3], 0, vec![]))
}
