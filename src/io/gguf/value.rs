//! What the metadata of a GGUF file hold.

use crate::io::source::quoted;

/// The type of a metadata value, by its number in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ValueType {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    String,
    Array,
    U64,
    I64,
    F64,
}

impl ValueType {
    pub(super) fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            8 => Self::String,
            9 => Self::Array,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    /// Bytes of a value, where every one takes the same.
    pub(super) fn bytes(self) -> Option<usize> {
        match self {
            Self::U8 | Self::I8 | Self::Bool => Some(1),
            Self::U16 | Self::I16 => Some(2),
            Self::U32 | Self::I32 | Self::F32 => Some(4),
            Self::U64 | Self::I64 | Self::F64 => Some(8),
            Self::String | Self::Array => None,
        }
    }
}

/// A metadata value.
///
/// ```
/// use lowbit::io::gguf::Value;
/// assert_eq!(Value::U16(7).as_u64(), Some(7));
/// assert_eq!(Value::I8(-7).as_u64(), None);
/// assert_eq!(Value::F32(0.5).as_f64(), Some(0.5));
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// An unsigned integer of 8 bits.
    U8(u8),
    /// A signed integer of 8 bits.
    I8(i8),
    /// An unsigned integer of 16 bits.
    U16(u16),
    /// A signed integer of 16 bits.
    I16(i16),
    /// An unsigned integer of 32 bits.
    U32(u32),
    /// A signed integer of 32 bits.
    I32(i32),
    /// A float of 32 bits.
    F32(f32),
    /// True or false.
    Bool(bool),
    /// Text.
    String(&'a str),
    /// What should be text but is not UTF-8.
    Bytes(&'a [u8]),
    /// Values of one type.
    Array(Array<'a>),
    /// An unsigned integer of 64 bits.
    U64(u64),
    /// A signed integer of 64 bits.
    I64(i64),
    /// A float of 64 bits.
    F64(f64),
}

impl<'a> Value<'a> {
    /// An integer of any type, if it is not negative.
    #[must_use]
    pub fn as_u64(self) -> Option<u64> {
        match self {
            Self::U8(value) => Some(value.into()),
            Self::U16(value) => Some(value.into()),
            Self::U32(value) => Some(value.into()),
            Self::U64(value) => Some(value),
            Self::I8(value) => value.try_into().ok(),
            Self::I16(value) => value.try_into().ok(),
            Self::I32(value) => value.try_into().ok(),
            Self::I64(value) => value.try_into().ok(),
            _ => None,
        }
    }

    /// A float of either type.
    #[must_use]
    pub fn as_f64(self) -> Option<f64> {
        match self {
            Self::F32(value) => Some(value.into()),
            Self::F64(value) => Some(value),
            _ => None,
        }
    }

    /// True or false.
    #[must_use]
    pub fn as_bool(self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(value),
            _ => None,
        }
    }

    /// Text.
    #[must_use]
    pub fn as_str(self) -> Option<&'a str> {
        match self {
            Self::String(value) => Some(value),
            _ => None,
        }
    }

    /// An array.
    #[must_use]
    pub fn as_array(self) -> Option<Array<'a>> {
        match self {
            Self::Array(value) => Some(value),
            _ => None,
        }
    }

    /// The value in words, of a length that does not depend on it.
    pub(in crate::io) fn shown(self) -> String {
        match self {
            Self::String(text) => quoted(text),
            Self::Bytes(bytes) => format!("{} bytes that are not text", bytes.len()),
            Self::Array(array) => format!("an array of {}", array.len()),
            number => format!("{number:?}"),
        }
    }

    /// The value at the start of `bytes`, and the bytes after it; they were checked when the file
    /// was opened, so that there is always one.
    pub(super) fn split(kind: ValueType, bytes: &'a [u8]) -> Option<(Self, &'a [u8])> {
        macro_rules! number {
            ($variant:ident, $number:ty) => {{
                let (number, rest) = bytes.split_first_chunk()?;
                (Self::$variant(<$number>::from_le_bytes(*number)), rest)
            }};
        }
        Some(match kind {
            ValueType::U8 => number!(U8, u8),
            ValueType::I8 => number!(I8, i8),
            ValueType::U16 => number!(U16, u16),
            ValueType::I16 => number!(I16, i16),
            ValueType::U32 => number!(U32, u32),
            ValueType::I32 => number!(I32, i32),
            ValueType::F32 => number!(F32, f32),
            ValueType::U64 => number!(U64, u64),
            ValueType::I64 => number!(I64, i64),
            ValueType::F64 => number!(F64, f64),
            ValueType::Bool => {
                let (&byte, rest) = bytes.split_first()?;
                (Self::Bool(byte != 0), rest)
            }
            ValueType::String => {
                let (text, rest) = split_string(bytes)?;
                (
                    std::str::from_utf8(text).map_or(Self::Bytes(text), Self::String),
                    rest,
                )
            }
            ValueType::Array => {
                let (kind, rest) = bytes.split_first_chunk()?;
                let (len, bytes) = rest.split_first_chunk()?;
                let array = Array {
                    kind: ValueType::from_id(u32::from_le_bytes(*kind))?,
                    len: usize::try_from(u64::from_le_bytes(*len)).ok()?,
                    bytes,
                };
                (Self::Array(array), &[])
            }
        })
    }
}

/// The text after its length, and what follows.
pub(super) fn split_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*len)).ok()?)
}

/// An array in the metadata: values of one type, read as they are asked for.
#[derive(Clone, Copy)]
pub struct Array<'a> {
    kind: ValueType,
    len: usize,
    bytes: &'a [u8],
}

impl<'a> Array<'a> {
    /// The number of values.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The values in order.
    #[must_use = "iterators do nothing until they are run"]
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let (kind, mut bytes) = (self.kind, self.bytes);
        (0..self.len).map_while(move |_| {
            let (value, rest) = Value::split(kind, bytes)?;
            bytes = rest;
            Some(value)
        })
    }
}

impl PartialEq for Array<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind && self.len == other.len && self.iter().eq(other.iter())
    }
}

impl std::fmt::Debug for Array<'_> {
    /// The type, the number and the first values.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Array")
            .field("kind", &self.kind)
            .field("len", &self.len)
            .field("first", &self.iter().take(4).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
