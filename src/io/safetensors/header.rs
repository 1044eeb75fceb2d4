//! The header of a safetensors file, checked as it is read.
//!
//! The document is gone through twice: once to count the tensors, once to keep them, so that their
//! list has the size it needs and a hostile header cannot grow beyond a small multiple of itself.

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::ElementType;
use crate::{
    error::{Error, Result},
    groups::element_count,
    io::{
        json::{self, no_text},
        source::{Source, quoted},
    },
};

/// Bytes of the longest header that the format allows.
const LONGEST: u64 = 100_000_000;
/// Axes of a tensor that are read.
const MOST_AXES: usize = 8;

/// A tensor as the header describes it.
#[derive(Debug)]
pub(super) struct Description {
    pub(super) name: Box<str>,
    pub(super) kind: ElementType,
    pub(super) shape: Box<[usize]>,
    /// From the start of the file.
    pub(super) start: u64,
    pub(super) bytes: usize,
}

pub(super) struct Header {
    /// In the order of the data.
    tensors: Vec<Description>,
    /// Sorted by name.
    sorted: Vec<u32>,
}

impl Header {
    pub(super) fn read(source: &Source) -> Result<Self> {
        let format = |what: &str, expected: String, got: String| Error::Format {
            what: what.into(),
            expected,
            got,
            offset: Some(0),
        };
        let left = source.len().checked_sub(8).ok_or_else(|| {
            format(
                "length of the header",
                "8 bytes".into(),
                format!("{} in the file", source.len()),
            )
        })?;
        let mut len = [0; 8];
        source.read(0, &mut len)?;
        let len = u64::from_le_bytes(len);
        let most = left.min(LONGEST);
        let Some(size) = usize::try_from(len).ok().filter(|_| len <= most) else {
            let expected = format!("at most {most} bytes");
            return Err(format("length of the header", expected, len.to_string()));
        };
        let bytes = source.read_vec(8, size)?;
        let tensors = read_tensors(&bytes, 8 + len)?;
        drop(bytes);
        Self::check(tensors, 8 + len, source.len())
    }

    /// Checks that the data of the tensors are one after the other and fill the file.
    fn check(mut tensors: Vec<Description>, data: u64, end: u64) -> Result<Self> {
        tensors
            .sort_unstable_by(|a, b| (a.start, a.bytes, &a.name).cmp(&(b.start, b.bytes, &b.name)));
        let mut next = data;
        for tensor in &tensors {
            let after = tensor.start.checked_add(tensor.bytes as u64);
            match after {
                Some(after) if tensor.start == next && after <= end => next = after,
                _ => {
                    return Err(Error::Format {
                        what: format!("tensor {}", quoted(&tensor.name)),
                        expected: format!("data from byte {next} on, within the {end} of the file"),
                        got: format!("{} bytes from byte {}", tensor.bytes, tensor.start),
                        offset: Some(tensor.start),
                    });
                }
            }
        }
        if next != end {
            return Err(Error::Format {
                what: "data".into(),
                expected: format!("{} bytes, as the tensors take", next - data),
                got: format!("{} bytes", end - data),
                offset: Some(next),
            });
        }
        let name = |&index: &u32| &*tensors[index as usize].name;
        let mut sorted: Vec<u32> = (0..).take(tensors.len()).collect();
        sorted.sort_unstable_by_key(name);
        if let Some(pair) = sorted
            .windows(2)
            .find(|pair| name(&pair[0]) == name(&pair[1]))
        {
            return Err(Error::Format {
                what: "header".into(),
                expected: "names that differ".into(),
                got: format!("{} twice", quoted(name(&pair[0]))),
                offset: Some(8),
            });
        }
        Ok(Self { tensors, sorted })
    }

    pub(super) fn tensors(&self) -> &[Description] {
        &self.tensors
    }

    pub(super) fn tensor(&self, name: &str) -> Option<&Description> {
        let tensor = |index: u32| &self.tensors[index as usize];
        let place = self
            .sorted
            .binary_search_by(|&index| (*tensor(index).name).cmp(name));
        place.ok().map(|place| tensor(self.sorted[place]))
    }
}

impl std::fmt::Debug for Header {
    /// The number of tensors.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Header")
            .field("tensors", &self.tensors.len())
            .finish_non_exhaustive()
    }
}

fn read_tensors(bytes: &[u8], data: u64) -> Result<Vec<Description>> {
    let failed = |error| json::syntax(bytes, "header", 8, &error);
    let count = json::parse(bytes, Count).map_err(failed)?;
    if u32::try_from(count).is_err() {
        return Err(Error::TooLarge {
            what: "header",
            got: format!("{count} tensors"),
        });
    }
    let mut tensors = Vec::new();
    tensors
        .try_reserve_exact(count)
        .map_err(|_| Error::TooLarge {
            what: "header",
            got: format!("{count} tensors"),
        })?;
    let seed = Tensors {
        tensors: &mut tensors,
        data,
    };
    json::parse(bytes, seed).map_err(failed)?;
    Ok(tensors)
}

/// Implements a seed that is its own visitor. Texts are refused without being quoted: they may be
/// as long as the file.
macro_rules! seed {
    ($seed:ident $(<$lifetime:lifetime>)?, $value:ty, $method:ident, $expecting:literal, { $($visit:item)* }) => {
        impl<'de> DeserializeSeed<'de> for $seed $(<$lifetime>)? {
            type Value = $value;

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<$value, D::Error> {
                deserializer.$method(self)
            }
        }

        impl<'de> Visitor<'de> for $seed $(<$lifetime>)? {
            type Value = $value;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str($expecting)
            }

            $($visit)*
        }
    };
}

struct Count;

seed!(Count, usize, deserialize_any, "an object of tensors", {
    no_text!(usize);

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<usize, A::Error> {
        let mut count = 0;
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(count)
    }
});

struct Tensors<'a> {
    tensors: &'a mut Vec<Description>,
    data: u64,
}

seed!(Tensors<'_>, (), deserialize_any, "an object of tensors", {
    no_text!(());

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(name) = entries.next_key_seed(Text)? {
            if &*name == "__metadata__" {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let Fields {
                kind: Some(kind),
                shape: Some(shape),
                place: Some([from, end]),
            } = entries.next_value_seed(Fields::default())?
            else {
                return Err(A::Error::custom(format_args!(
                    "tensor {} without all of dtype, shape and data_offsets",
                    quoted(&name)
                )));
            };
            let bits = element_count("tensor", &shape)
                .ok()
                .and_then(|elements| elements.checked_mul(kind.bits()))
                .filter(|bits| bits.is_multiple_of(8));
            let bytes = bits.map(|bits| bits / 8);
            let place = end
                .checked_sub(from)
                .and_then(|bytes| usize::try_from(bytes).ok());
            let start = self.data.checked_add(from);
            match (bytes, place, start) {
                (Some(bytes), Some(place), Some(start)) if bytes == place => {
                    self.tensors.push(Description {
                        name,
                        kind,
                        shape,
                        start,
                        bytes,
                    });
                }
                _ => {
                    let name = quoted(&name);
                    let takes = bits.map_or("uncountable".into(), |bits| (bits / 8).to_string());
                    return Err(A::Error::custom(format_args!(
                        "data_offsets [{from}, {end}] for the {takes} bytes of tensor {name}, \
                         {kind} of shape {shape:?}"
                    )));
                }
            }
        }
        Ok(())
    }
});

#[derive(Default)]
struct Fields {
    kind: Option<ElementType>,
    shape: Option<Box<[usize]>>,
    place: Option<[u64; 2]>,
}

seed!(
    Fields,
    Fields,
    deserialize_any,
    "an object of dtype, shape and data_offsets",
    {
        no_text!(Fields);

        fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<Fields, A::Error> {
            while let Some(key) = entries.next_key_seed(Text)? {
                let again = match &*key {
                    "dtype" => {
                        let name = entries.next_value_seed(Text)?;
                        let Some(kind) = ElementType::from_name(&name) else {
                            let name = quoted(&name);
                            return Err(A::Error::custom(format_args!(
                                "dtype {name} is not known"
                            )));
                        };
                        self.kind.replace(kind).is_some()
                    }
                    "shape" => {
                        let extents = entries.next_value_seed(Integers)?;
                        let shape: Result<_, _> =
                            extents.iter().map(|&e| usize::try_from(e)).collect();
                        let shape = shape.map_err(A::Error::custom)?;
                        self.shape.replace(shape).is_some()
                    }
                    "data_offsets" => {
                        let ends = entries.next_value_seed(Integers)?;
                        let Ok(ends) = <[u64; 2]>::try_from(ends.as_slice()) else {
                            return Err(A::Error::custom("data_offsets are not two numbers"));
                        };
                        self.place.replace(ends).is_some()
                    }
                    _ => {
                        return Err(A::Error::custom(format_args!(
                            "{} is not known",
                            quoted(&key)
                        )));
                    }
                };
                if again {
                    return Err(A::Error::custom(format_args!("{key} is there twice")));
                }
            }
            Ok(self)
        }
    }
);

struct Text;

seed!(Text, Box<str>, deserialize_str, "a text", {
    fn visit_str<E>(self, text: &str) -> Result<Box<str>, E> {
        Ok(text.into())
    }
});

struct Integers;

seed!(
    Integers,
    Vec<u64>,
    deserialize_any,
    "an array of at most 8 whole numbers",
    {
        no_text!(Vec<u64>);

        fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Vec<u64>, A::Error> {
            let mut integers = Vec::with_capacity(MOST_AXES);
            while let Some(value) = values.next_element_seed(Integer)? {
                if integers.len() == MOST_AXES {
                    return Err(A::Error::invalid_length(MOST_AXES + 1, &self));
                }
                integers.push(value);
            }
            Ok(integers)
        }
    }
);

struct Integer;

seed!(Integer, u64, deserialize_any, "a whole number", {
    no_text!(u64);

    fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }
});
