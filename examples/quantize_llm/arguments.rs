//! Values of a command line.

use std::{path::Path, str::FromStr};

use lowbit::{Error, Result};

/// The argument after the one of a name.
pub fn value(
    arguments: &mut impl Iterator<Item = String>,
    name: &str,
    usage: &str,
) -> Result<String> {
    let none = || Error::other(format!("{name} needs a value\n{usage}"));
    arguments.next().ok_or_else(none)
}

/// That files are there; if not, what to take.
pub fn present<const N: usize>(paths: [&Path; N], what: &str, usage: &str) -> Result<()> {
    match paths.into_iter().find(|path| !path.exists()) {
        None => Ok(()),
        Some(path) => Err(Error::other(format!(
            "{} is not here. Take {what}\n{usage}",
            path.display()
        ))),
    }
}

pub fn number<N: FromStr>(name: &str, value: &str) -> Result<N> {
    let refuse = |_| Error::other(format!("{name}: expected a number, got {value:?}"));
    value.parse().map_err(refuse)
}

pub fn positive(name: &str, value: &str) -> Result<usize> {
    match number(name, value)? {
        0 => Err(Error::other(format!("{name}: expected at least 1, got 0"))),
        number => Ok(number),
    }
}
