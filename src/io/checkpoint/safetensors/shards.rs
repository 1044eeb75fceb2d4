//! A model in several files: `model.safetensors.index.json` says which tensor is in which.

use std::{collections::BTreeMap, path::Path};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};

use crate::{
    error::{Error, Result},
    io::{
        json::{self, no_text},
        safetensors::Safetensors,
        source::quoted,
    },
};

/// Files that a model may have.
const MOST_FILES: usize = 4096;
/// Bytes of the longest name that a file may have.
const LONGEST_NAME: usize = 255;
const WHAT: &str = "model.safetensors.index.json";

/// Opens the files that an index names, in the order of their names.
pub(super) fn open(directory: &Path, index: &[u8]) -> Result<Vec<Safetensors>> {
    let mut names = BTreeMap::new();
    read(index, &mut |_, file| {
        if !names.contains_key(file) {
            // A name, not a path: an index must not lead out of its directory.
            let plain = (1..=LONGEST_NAME).contains(&file.len())
                && !file.contains(['/', '\\', ':'])
                && file != "..";
            if !plain || names.len() == MOST_FILES {
                return Err(format!(
                    "expected the names of at most {MOST_FILES} files beside the index, got {}",
                    quoted(file)
                ));
            }
            names.insert(file.to_owned(), names.len());
        }
        Ok(())
    })?;
    let mut files = Vec::with_capacity(names.len());
    for (place, (name, index)) in names.iter_mut().enumerate() {
        files.push(Safetensors::open(directory.join(name))?);
        *index = place;
    }
    read(index, &mut |tensor, file| match names.get(file) {
        Some(&place) if files[place].contains(tensor) => Ok(()),
        _ => Err(format!(
            "expected tensor {} in {}, got a file without it",
            quoted(tensor),
            quoted(file)
        )),
    })?;
    for (index, file) in files.iter().enumerate() {
        let again = |name: &&str| files[..index].iter().any(|before| before.contains(name));
        if let Some(name) = file.names().find(again) {
            return Err(Error::Format {
                what: WHAT.into(),
                expected: "files that share no tensor".into(),
                got: format!("{} twice", quoted(name)),
                offset: None,
            });
        }
    }
    Ok(files)
}

/// Calls `each(tensor, file)` for every entry.
fn read(index: &[u8], each: &mut dyn FnMut(&str, &str) -> Result<(), String>) -> Result<()> {
    json::parse(index, Top(each)).map_err(|error| json::syntax(index, WHAT, 0, &error))
}

type Each<'a> = &'a mut dyn FnMut(&str, &str) -> Result<(), String>;

/// The document: an object with a `weight_map`.
struct Top<'a>(Each<'a>);

/// The `weight_map`: an object of texts.
struct WeightMap<'a>(Each<'a>);

/// A text, for a function to look at.
struct Text<F>(F);

impl<'de> DeserializeSeed<'de> for Top<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object with a weight_map")
    }

    no_text!(());

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut found = false;
        while let Some(wanted) = entries.next_key_seed(Text(|key: &str| key == "weight_map"))? {
            if !wanted {
                entries.next_value::<IgnoredAny>()?;
            } else if std::mem::replace(&mut found, true) {
                return Err(A::Error::custom("weight_map is there twice"));
            } else {
                entries.next_value_seed(WeightMap(self.0))?;
            }
        }
        if found {
            Ok(())
        } else {
            Err(A::Error::missing_field("weight_map"))
        }
    }
}

impl<'de> DeserializeSeed<'de> for WeightMap<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for WeightMap<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object of file names")
    }

    no_text!(());

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        while let Some(tensor) = entries.next_key_seed(Text(|tensor: &str| tensor.to_owned()))? {
            let seen = entries.next_value_seed(Text(|file: &str| (self.0)(&tensor, file)))?;
            seen.map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

impl<'de, T, F: FnOnce(&str) -> T> DeserializeSeed<'de> for Text<F> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<T, F: FnOnce(&str) -> T> Visitor<'_> for Text<F> {
    type Value = T;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E>(self, text: &str) -> Result<T, E> {
        Ok((self.0)(text))
    }
}
