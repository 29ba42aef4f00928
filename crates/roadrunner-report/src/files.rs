//! How files from outside are read: bounded, and every complaint with the file and line.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use serde::de::DeserializeOwned;

/// A full evaluation has some ten thousand rows of a hundred bytes; more than this is not one.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The text of a file; `None` if there is none.
pub(crate) fn read(path: &Path) -> Result<Option<String>> {
    let unreadable = || format!("could not read {}", path.display());
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(unreadable),
    };
    let mut text = String::new();
    file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).with_context(unreadable)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        bail!("{} is longer than {} MiB", path.display(), MAX_FILE_BYTES >> 20);
    }
    Ok(Some(text))
}

/// The rows of a table with a header, each with its line.
pub(crate) fn rows<T: DeserializeOwned>(path: &Path, text: &str) -> Result<Vec<(u64, T)>> {
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| described(path, 1, &error))?.clone();
    let mut rows = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| described(path, 1, &error))?;
        let line = record.position().map_or(1, csv::Position::line);
        let row = record.deserialize(Some(&header));
        rows.push((line, row.map_err(|error| described(path, line, &error))?));
    }
    Ok(rows)
}

fn described(path: &Path, line: u64, error: &csv::Error) -> anyhow::Error {
    let line = error.position().map_or(line, csv::Position::line);
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => anyhow!("{}:{line}: {err}", path.display()),
        csv::ErrorKind::UnequalLengths { expected_len, len, .. } => anyhow!(
            "{}:{line}: {len} cells where the header has {expected_len}; complete the row or remove it",
            path.display()
        ),
        _ => anyhow!("{}:{line}: {error}", path.display()),
    }
}
