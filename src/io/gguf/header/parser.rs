//! Reads a GGUF header and checks it on the way: afterwards, whatever it says can be believed.

use std::{io::Read, ops::Range};

use super::{Description, Entry, Header, Index, MOST_AXES, describe};
use crate::{
    error::{Error, Result},
    io::{
        gguf::{
            TensorType,
            value::{Value, ValueType},
        },
        source::{Source, quoted},
    },
};

/// Bytes of the shortest entry: a name of one byte, a type and a value of one byte.
const LEAST_ENTRY: u64 = 8 + 1 + 4 + 1;
/// Bytes of the shortest description: a name of one byte, no axes, a type and an offset.
const LEAST_TENSOR: u64 = 8 + 1 + 4 + 4 + 8;
/// Bytes read at least at a time.
const CHUNK: u64 = 1 << 16;
const DEFAULT_ALIGNMENT: u32 = 32;

pub(super) struct Parser<'a> {
    reader: &'a mut dyn Read,
    source: &'a Source,
    /// What was read so far.
    bytes: Vec<u8>,
    /// How much of it was understood.
    at: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(reader: &'a mut dyn Read, source: &'a Source) -> Self {
        Self {
            reader,
            source,
            bytes: Vec::new(),
            at: 0,
        }
    }

    fn format<T>(
        &self,
        what: impl Into<String>,
        expected: impl Into<String>,
        got: impl Into<String>,
        at: usize,
    ) -> Result<T> {
        Err(Error::Format {
            what: what.into(),
            expected: expected.into(),
            got: got.into(),
            offset: Some(at as u64),
        })
    }

    /// Bytes of the file that were not understood yet.
    fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.at as u64)
    }

    /// Steps over `len` bytes, after reading them.
    fn take(&mut self, what: &str, len: u64) -> Result<Range<usize>> {
        if len > self.left() {
            let got = format!("{} left in the file", self.left());
            return self.format(what, format!("{len} bytes"), got, self.at);
        }
        let too_large = |_| Error::TooLarge {
            what: "header",
            got: format!("{len} bytes"),
        };
        let len = usize::try_from(len).map_err(too_large)?;
        let Some(end) = self.at.checked_add(len) else {
            return Err(Error::TooLarge {
                what: "header",
                got: format!("{} bytes", self.at as u64 + len as u64),
            });
        };
        let missing = end.saturating_sub(self.bytes.len()) as u64;
        if missing > 0 {
            // A third more each time, so that the old and the new buffer stay below twice the file.
            let rest = self.source.len() - self.bytes.len() as u64;
            let more = missing
                .max(CHUNK)
                .max(self.bytes.len() as u64 / 3)
                .min(rest);
            let start = self.bytes.len();
            let more = usize::try_from(more).unwrap_or(usize::MAX);
            let reserved = self.bytes.try_reserve_exact(more);
            reserved.map_err(|_| Error::TooLarge {
                what: "header",
                got: format!("{more} bytes"),
            })?;
            self.bytes.resize(start + more, 0);
            let read = self.reader.read_exact(&mut self.bytes[start..]);
            read.map_err(|error| self.source.failure(error))?;
        }
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let range = self.take(what, N as u64)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// Steps over a string, which need not be text.
    fn string(&mut self, what: &str) -> Result<Range<usize>> {
        let len = self.u64(what)?;
        self.take(what, len)
    }

    /// Steps over a name: text, and not nothing.
    fn name(&mut self, what: &str) -> Result<Range<usize>> {
        let range = self.string(what)?;
        match std::str::from_utf8(&self.bytes[range.clone()]) {
            Ok("") => self.format(what, "a name", "nothing", range.start),
            Ok(_) => Ok(range),
            Err(error) => {
                let place = range.start + error.valid_up_to();
                self.format(what, "UTF-8", format!("{:#04x}", self.bytes[place]), place)
            }
        }
    }

    /// A count of things that take at least `least` bytes each.
    fn count(&mut self, what: &str, least: u64) -> Result<usize> {
        let at = self.at;
        let count = self.u64(what)?;
        let most = (self.left() / least).min(u32::MAX.into());
        match usize::try_from(count) {
            Ok(size) if count <= most => Ok(size),
            _ => self.format(
                what,
                format!("at most {most} in what is left of the file"),
                count.to_string(),
                at,
            ),
        }
    }

    pub(super) fn header(&mut self) -> Result<Header> {
        let magic = self.array::<4>("magic number")?;
        if &magic != b"GGUF" {
            return self.format("magic number", "\"GGUF\"", format!("{magic:02x?}"), 0);
        }
        let version = self.u32("version")?;
        if !matches!(version, 2 | 3) {
            let got = if version.swap_bytes() < 256 {
                format!("{}, of a big-endian file", version.swap_bytes())
            } else {
                version.to_string()
            };
            return self.format("version", "2 or 3", got, 4);
        }
        let tensors = self.count("number of tensors", LEAST_TENSOR)?;
        let entries = self.count("number of metadata", LEAST_ENTRY)?;
        let needed = tensors as u64 * LEAST_TENSOR + entries as u64 * LEAST_ENTRY;
        if needed > self.left() {
            let expected = format!("at most {} bytes together", self.left());
            return self.format(
                "number of tensors and metadata",
                expected,
                needed.to_string(),
                8,
            );
        }
        let mut metadata = Index::default();
        metadata.entries.reserve_exact(entries);
        for _ in 0..entries {
            let name = self.name("name of metadata")?;
            let at = self.at;
            let kind = self.u32("type of metadata")?;
            self.value(&name, kind)?;
            metadata.entries.push(Entry { name, at });
        }
        let mut descriptions = Index::default();
        descriptions.entries.reserve_exact(tensors);
        for _ in 0..tensors {
            let name = self.name("name of a tensor")?;
            let at = self.at;
            self.tensor(&name)?;
            descriptions.entries.push(Entry { name, at });
        }
        metadata.sort(&self.bytes, "metadata")?;
        descriptions.sort(&self.bytes, "tensors")?;
        self.bytes.truncate(self.at);
        let mut header = Header {
            bytes: std::mem::take(&mut self.bytes),
            metadata,
            tensors: descriptions,
            data: 0,
        };
        self.place(&mut header)?;
        Ok(header)
    }

    /// Checks a value and steps over it.
    fn value(&mut self, name: &Range<usize>, kind: u32) -> Result<()> {
        let at = self.at - 4;
        let what = format!("metadata {}", self.shown(name));
        match ValueType::from_id(kind) {
            None => self.format(what, "a type from 0 to 12", kind.to_string(), at),
            Some(ValueType::String) => self.string(&what).map(drop),
            Some(ValueType::Array) => self.values(&what),
            Some(kind) => self.numbers(&what, kind, 1),
        }
    }

    /// Checks the values of an array and steps over them.
    fn values(&mut self, what: &str) -> Result<()> {
        let at = self.at;
        let id = self.u32(what)?;
        match ValueType::from_id(id) {
            None => self.format(what, "a type from 0 to 12", id.to_string(), at),
            // Nobody writes them, and each level would be a call on the stack.
            Some(ValueType::Array) => {
                self.format(what, "numbers or text", "an array of arrays", at)
            }
            Some(ValueType::String) => {
                for _ in 0..self.count(what, 8)? {
                    self.string(what)?;
                }
                Ok(())
            }
            Some(kind) => {
                let bytes = kind.bytes().unwrap_or(1) as u64;
                let count = self.count(what, bytes)?;
                self.numbers(what, kind, count)
            }
        }
    }

    fn numbers(&mut self, what: &str, kind: ValueType, count: usize) -> Result<()> {
        let bytes = count as u64 * kind.bytes().unwrap_or(1) as u64;
        let range = self.take(what, bytes)?;
        if kind == ValueType::Bool {
            let at = range.start;
            if let Some(place) = self.bytes[range].iter().position(|&byte| byte > 1) {
                let got = self.bytes[at + place].to_string();
                return self.format(what, "0 or 1", got, at + place);
            }
        }
        Ok(())
    }

    /// Checks what the description of a tensor says by itself, and steps over it.
    fn tensor(&mut self, name: &Range<usize>) -> Result<()> {
        let at = self.at;
        let what = format!("tensor {}", self.shown(name));
        let axes = self.u32(&what)?;
        if axes > MOST_AXES {
            let expected = format!("at most {MOST_AXES} axes");
            return self.format(what, expected, axes.to_string(), at);
        }
        let shape = self.take(&what, u64::from(axes) * 8)?;
        let (extents, _) = self.bytes[shape.clone()].as_chunks::<8>();
        let extents: Vec<u64> = extents
            .iter()
            .rev()
            .map(|&e| u64::from_le_bytes(e))
            .collect();
        let kind_at = self.at;
        let id = self.u32(&what)?;
        self.u64(&what)?;
        let Some(kind) = TensorType::from_id(id) else {
            return self.format(what, "a known type", format!("type {id}"), kind_at);
        };
        let sizes: Option<Vec<usize>> = extents.iter().map(|&e| usize::try_from(e).ok()).collect();
        match sizes.map(|shape| kind.byte_len(&shape)) {
            Some(Ok(_)) => Ok(()),
            Some(Err(Error::ShapeMismatch { .. })) => {
                let expected = format!("rows of whole blocks of {} for {kind}", kind.block_len());
                self.format(what, expected, format!("shape {extents:?}"), shape.start)
            }
            Some(Err(_)) | None => {
                let expected = "a size that can be counted";
                self.format(what, expected, format!("shape {extents:?}"), shape.start)
            }
        }
    }

    /// Finds where the data start, and checks that every tensor lies in the file, apart from the
    /// others.
    fn place(&self, header: &mut Header) -> Result<()> {
        let alignment = u64::from(self.alignment(header)?);
        header.data = (self.at as u64).next_multiple_of(alignment);
        let mut ranges = Vec::new();
        ranges.reserve_exact(header.tensors.entries.len());
        for (index, entry) in (0_u32..).zip(&header.tensors.entries) {
            let tensor = self.placed(header, entry)?;
            let from_data = tensor.offset - header.data;
            if !from_data.is_multiple_of(alignment) {
                let what = format!("tensor {}", quoted(header.name(entry)));
                let expected = format!("an offset that is a multiple of {alignment}");
                return self.format(what, expected, from_data.to_string(), entry.at);
            }
            if tensor.bytes > 0 {
                ranges.push((tensor.offset, index));
            }
        }
        ranges.sort_unstable();
        for pair in ranges.windows(2) {
            let [entry, next] =
                [pair[0], pair[1]].map(|(_, index)| &header.tensors.entries[index as usize]);
            let tensor = self.placed(header, entry)?;
            if tensor.offset + tensor.bytes as u64 > pair[1].0 {
                let what = format!("tensor {}", quoted(header.name(entry)));
                let got = format!("an overlap with {}", quoted(header.name(next)));
                return self.format(what, "data of its own", got, entry.at);
            }
        }
        Ok(())
    }

    fn alignment(&self, header: &Header) -> Result<u32> {
        const KEY: &str = "general.alignment";
        match header.value(KEY) {
            None => Ok(DEFAULT_ALIGNMENT),
            Some(Value::U32(alignment)) if alignment.is_power_of_two() => Ok(alignment),
            Some(other) => {
                let entry = header.metadata.find(&header.bytes, KEY);
                let at = entry.map_or(0, |entry| entry.at);
                let what = format!("metadata {KEY:?}");
                self.format(what, "a power of two of type U32", other.shown(), at)
            }
        }
    }

    /// A tensor whose data lie in the file.
    fn placed(&self, header: &Header, entry: &Entry) -> Result<Description> {
        let len = self.source.len();
        let got = match describe(&header.bytes[entry.at..], header.data) {
            None => "an offset that cannot be counted".into(),
            Some(tensor) => match tensor.offset.checked_add(tensor.bytes as u64) {
                Some(end) if end <= len => return Ok(tensor),
                _ => format!("{} bytes from byte {}", tensor.bytes, tensor.offset),
            },
        };
        let what = format!("tensor {}", quoted(header.name(entry)));
        let expected = format!("data within the {len} bytes of the file");
        self.format(what, expected, got, entry.at)
    }

    fn shown(&self, name: &Range<usize>) -> String {
        quoted(std::str::from_utf8(&self.bytes[name.clone()]).unwrap_or_default())
    }
}
