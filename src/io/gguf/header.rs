//! The part of a GGUF file before its tensor data: names, values and descriptions.
//!
//! The bytes are kept as they are, with an index of where names and values lie: a hostile file
//! cannot make a few of its bytes into many of ours, because every count is checked against what
//! is left of the file before anything is allocated for it.

mod parser;

use std::ops::Range;

use super::{
    TensorType,
    value::{Value, ValueType},
};
use crate::{
    error::{Error, Result},
    io::source::{Source, quoted},
};
use parser::Parser;

/// Axes of a tensor, as ggml has it.
const MOST_AXES: u32 = 4;

/// Where a name lies in the header, and where what it names starts.
#[derive(Clone)]
struct Entry {
    name: Range<usize>,
    at: usize,
}

/// Entries in the order of the file, and sorted by name.
#[derive(Default)]
struct Index {
    entries: Vec<Entry>,
    sorted: Vec<u32>,
}

impl Index {
    fn sort(&mut self, bytes: &[u8], what: &str) -> Result<()> {
        let name = |&index: &u32| &bytes[self.entries[index as usize].name.clone()];
        self.sorted = (0..).take(self.entries.len()).collect();
        self.sorted.sort_unstable_by_key(name);
        match self.sorted.windows(2).find(|w| name(&w[0]) == name(&w[1])) {
            None => Ok(()),
            Some(pair) => Err(Error::Format {
                what: what.into(),
                expected: "names that differ".into(),
                got: format!("{} twice", quoted(&String::from_utf8_lossy(name(&pair[0])))),
                offset: Some(self.entries[pair[0].max(pair[1]) as usize].name.start as u64),
            }),
        }
    }

    fn find(&self, bytes: &[u8], name: &str) -> Option<&Entry> {
        let entry = |&index: &u32| &self.entries[index as usize];
        let place = self
            .sorted
            .binary_search_by_key(&name.as_bytes(), |index| &bytes[entry(index).name.clone()]);
        place.ok().map(|place| entry(&self.sorted[place]))
    }
}

/// A tensor as the header describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Description {
    pub(super) kind: TensorType,
    pub(super) shape: Vec<usize>,
    /// From the start of the file.
    pub(super) offset: u64,
    pub(super) bytes: usize,
}

pub(super) struct Header {
    bytes: Vec<u8>,
    metadata: Index,
    tensors: Index,
    data: u64,
}

impl Header {
    pub(super) fn read(source: &Source) -> Result<Self> {
        source.at_start(|reader| Parser::new(reader, source).header())
    }

    /// The text of a name, which was checked.
    fn name(&self, entry: &Entry) -> &str {
        std::str::from_utf8(&self.bytes[entry.name.clone()]).unwrap_or_default()
    }

    pub(super) fn value(&self, name: &str) -> Option<Value<'_>> {
        self.value_of(self.metadata.find(&self.bytes, name)?)
    }

    fn value_of(&self, entry: &Entry) -> Option<Value<'_>> {
        let (kind, rest) = self.bytes[entry.at..].split_first_chunk()?;
        let kind = ValueType::from_id(u32::from_le_bytes(*kind))?;
        Value::split(kind, rest).map(|(value, _)| value)
    }

    pub(super) fn metadata(&self) -> impl Iterator<Item = (&str, Value<'_>)> {
        let entries = self.metadata.entries.iter();
        entries.filter_map(|entry| Some((self.name(entry), self.value_of(entry)?)))
    }

    pub(super) fn tensor_names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tensors.entries.iter().map(|entry| self.name(entry))
    }

    pub(super) fn tensor(&self, name: &str) -> Option<Description> {
        let entry = self.tensors.find(&self.bytes, name)?;
        describe(&self.bytes[entry.at..], self.data)
    }
}

impl std::fmt::Debug for Header {
    /// The counts, not the bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("metadata", &self.metadata.entries.len())
            .field("tensors", &self.tensors.entries.len())
            .field("data", &self.data)
            .finish_non_exhaustive()
    }
}

/// A description from its bytes: the number of axes, the axes from the innermost out, the type and
/// the offset; `None` for what [`Parser::tensor`] refuses.
fn describe(bytes: &[u8], data: u64) -> Option<Description> {
    let (axes, mut rest) = bytes.split_first_chunk()?;
    let mut shape = Vec::with_capacity(MOST_AXES as usize);
    for _ in 0..u32::from_le_bytes(*axes) {
        let (extent, after) = rest.split_first_chunk()?;
        shape.push(usize::try_from(u64::from_le_bytes(*extent)).ok()?);
        rest = after;
    }
    shape.reverse();
    let (kind, rest) = rest.split_first_chunk()?;
    let (offset, _) = rest.split_first_chunk()?;
    let kind = TensorType::from_id(u32::from_le_bytes(*kind))?;
    Some(Description {
        kind,
        bytes: kind.byte_len(&shape).ok()?,
        shape,
        offset: data.checked_add(u64::from_le_bytes(*offset))?,
    })
}
