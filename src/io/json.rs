//! Chosen values out of a JSON document, in memory that does not grow with the document.

use std::collections::BTreeMap;

use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use serde_json::error::Category;

use super::source::quoted;
use crate::error::{Error, Result};

/// Bytes of the longest key or text that is kept.
const LONGEST: usize = 256;

/// One value, without what is in it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar {
    Null,
    Bool(bool),
    Integer(u64),
    Number(f64),
    Text(String),
    /// A text beyond what is kept.
    LongText,
    Array,
    Object,
}

impl std::fmt::Display for Scalar {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Text(value) => f.write_str(&quoted(value)),
            Self::LongText => f.write_str("a long text"),
            Self::Array => f.write_str("an array"),
            Self::Object => f.write_str("an object"),
        }
    }
}

/// The values of a document at chosen paths; a path is keys with points between.
#[derive(Debug)]
pub(super) struct Selection {
    values: BTreeMap<&'static str, Scalar>,
    what: String,
}

impl Selection {
    /// Reads a document whose top is an object; `what` is what error messages call it.
    pub(super) fn read(bytes: &[u8], what: &str, paths: &'static [&'static str]) -> Result<Self> {
        let mut values = BTreeMap::new();
        let seed = Walk {
            path: "",
            paths,
            values: &mut values,
        };
        match parse(bytes, seed) {
            Ok(Scalar::Object) => Ok(Self {
                values,
                what: what.into(),
            }),
            Ok(other) => Err(Error::Format {
                what: what.into(),
                expected: "an object".into(),
                got: other.to_string(),
                offset: None,
            }),
            Err(error) => Err(syntax(bytes, what, 0, &error)),
        }
    }

    /// The value at a path; `null` is as good as none.
    pub(super) fn value(&self, path: &str) -> Option<&Scalar> {
        self.values
            .get(path)
            .filter(|value| **value != Scalar::Null)
    }

    pub(super) fn integer(&self, path: &str) -> Result<Option<u64>> {
        self.typed(path, "a whole number", |value| match *value {
            Scalar::Integer(value) => Some(value),
            _ => None,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "what a JSON number is read as")]
    pub(super) fn number(&self, path: &str) -> Result<Option<f64>> {
        self.typed(path, "a number", |value| match *value {
            Scalar::Integer(value) => Some(value as f64),
            Scalar::Number(value) => Some(value),
            _ => None,
        })
    }

    pub(super) fn flag(&self, path: &str) -> Result<Option<bool>> {
        self.typed(path, "true or false", |value| match *value {
            Scalar::Bool(value) => Some(value),
            _ => None,
        })
    }

    pub(super) fn text(&self, path: &str) -> Result<Option<&str>> {
        self.typed(path, "a text", |value| match value {
            Scalar::Text(value) => Some(value.as_str()),
            _ => None,
        })
    }

    fn typed<'a, T>(
        &'a self,
        path: &str,
        expected: &str,
        of: impl FnOnce(&'a Scalar) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(path) else {
            return Ok(None);
        };
        match of(value) {
            Some(value) => Ok(Some(value)),
            None => Err(self.refused(path, expected)),
        }
    }

    /// An error about the value at a path.
    pub(super) fn refused(&self, path: &str, expected: impl Into<String>) -> Error {
        Error::Format {
            what: format!("{path} in {}", self.what),
            expected: expected.into(),
            got: self.value(path).map_or("nothing".into(), Scalar::to_string),
            offset: None,
        }
    }
}

/// Runs a seed over a whole document.
pub(super) fn parse<'de, S: DeserializeSeed<'de>>(
    bytes: &'de [u8],
    seed: S,
) -> serde_json::Result<S::Value> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = seed.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The error of a document that starts at byte `start` of its file.
pub(super) fn syntax(bytes: &[u8], what: &str, start: u64, error: &serde_json::Error) -> Error {
    let lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let before: usize = lines
        .take(error.line().saturating_sub(1))
        .map(<[u8]>::len)
        .sum();
    Error::Format {
        what: what.into(),
        expected: match error.classify() {
            Category::Data => "JSON of what the format allows",
            Category::Io | Category::Syntax | Category::Eof => "well-formed JSON",
        }
        .into(),
        got: error.to_string(),
        offset: Some(start + (before + error.column().saturating_sub(1)) as u64),
    }
}

/// Refuses a text without quoting it, as serde would: it may be as long as the file.
macro_rules! no_text {
    ($value:ty) => {
        fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<$value, E> {
            Err(E::invalid_type(
                serde::de::Unexpected::Other("a text"),
                &self,
            ))
        }
    };
}
pub(super) use no_text;

/// Reads any value, and keeps those at the chosen paths.
struct Walk<'a> {
    path: &'a str,
    paths: &'static [&'static str],
    values: &'a mut BTreeMap<&'static str, Scalar>,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = Scalar;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = Scalar;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Scalar, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Scalar, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Scalar, E> {
        Ok(Scalar::Integer(value))
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "negative numbers are only compared"
    )]
    fn visit_i64<E>(self, value: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Scalar, E> {
        Ok(if value.len() <= LONGEST {
            Scalar::Text(value.into())
        } else {
            Scalar::LongText
        })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<Scalar, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Array)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Scalar, A::Error> {
        while let Some(key) = entries.next_key_seed(Key)? {
            let path = match key {
                Some(key) if self.path.is_empty() => key,
                Some(key) => format!("{}.{key}", self.path),
                None => String::new(),
            };
            let wanted = self.paths.iter().find(|wanted| **wanted == path);
            let within = |wanted: &&str| {
                wanted
                    .strip_prefix(&*path)
                    .is_some_and(|rest| rest.starts_with('.'))
            };
            if path.is_empty() || (wanted.is_none() && !self.paths.iter().any(within)) {
                entries.next_value::<IgnoredAny>()?;
                continue;
            }
            let value = entries.next_value_seed(Walk {
                path: &path,
                paths: self.paths,
                values: self.values,
            })?;
            if let Some(wanted) = wanted
                && self.values.insert(wanted, value).is_some()
            {
                return Err(A::Error::custom(format_args!("{wanted} is there twice")));
            }
        }
        Ok(Scalar::Object)
    }
}

/// A key that is not too long to be one that is looked for.
struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Option<String>;

    fn deserialize<D: Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key {
    type Value = Option<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<Option<String>, E> {
        Ok((key.len() <= LONGEST).then(|| key.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATHS: &[&str] = &["a", "b.c", "b.d", "e"];

    fn read(text: &str) -> Result<Selection> {
        Selection::read(text.as_bytes(), "test", PATHS)
    }

    #[test]
    fn chosen_values_are_found_wherever_they_are() {
        let text = r#"{"x": [1, {"a": 2}], "a": 3, "b": {"a": 1, "c": "t", "d": null}, "e": -1.5}"#;
        let selection = read(text).unwrap();
        assert_eq!(selection.integer("a").unwrap(), Some(3));
        assert_eq!(selection.text("b.c").unwrap(), Some("t"));
        assert_eq!(selection.flag("b.d").unwrap(), None);
        assert_eq!(selection.number("e").unwrap(), Some(-1.5));
        let error = selection.integer("e").unwrap_err();
        assert_eq!(
            error.to_string(),
            "e in test: expected a whole number, got -1.5"
        );
    }

    #[test]
    fn what_is_not_such_a_document_is_refused() {
        for text in [
            "",
            "[]",
            "\"a\"",
            "{",
            "{\"a\": 1} 2",
            "{\"a\": 1, \"a\": 2}",
            "{\"a\" 1}",
        ] {
            assert!(matches!(read(text), Err(Error::Format { .. })), "{text}");
        }
        let deep = format!("{{\"x\": {}", "[".repeat(100_000));
        assert!(matches!(read(&deep), Err(Error::Format { .. })));
        let deep = format!("{{\"b\": {}", "{\"b\":".repeat(100_000));
        assert!(matches!(read(&deep), Err(Error::Format { .. })));
    }

    #[test]
    fn an_error_of_syntax_says_where() {
        let Err(Error::Format { offset, .. }) = read("{\n  \"a\": 1,\n  !") else {
            unreachable!("it was accepted");
        };
        assert_eq!(offset, Some(14));
    }

    #[test]
    fn a_long_text_is_not_kept() {
        let text = format!("{{\"a\": \"{}\", \"{0}\": 1}}", "y".repeat(100_000));
        let error = read(&text).unwrap().integer("a").unwrap_err().to_string();
        assert!(error.len() < 200, "{error}");
    }
}
