//! Payloads from outside, read straight into pages that can move.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use roadrunner_runtime::{BufferError, Sealed};

use crate::exit::{Exit, Failure};

/// Where a payload comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Nothing,
    Stdin,
    File(PathBuf),
}

impl Source {
    /// What is read when nothing is said: what was piped in.
    pub(crate) fn usual() -> Self {
        if io::stdin().is_terminal() { Self::Nothing } else { Self::Stdin }
    }
}

impl FromStr for Source {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text == "-" { Self::Stdin } else { Self::File(text.into()) })
    }
}

/// Makes a payload of so many bytes, in pages that suit where it goes, and has them written in place.
pub(crate) type Make<'m> = dyn Fn(usize, Write<'_>) -> Result<Sealed<'static>, BufferError> + 'm;

/// Writes the bytes of a payload.
pub(crate) type Write<'w> = &'w mut dyn FnMut(&mut [u8]) -> io::Result<()>;

/// Reads a payload of at most `limit` bytes.
pub(crate) fn read(
    source: &Source,
    make: &Make<'_>,
    limit: u64,
) -> Result<Sealed<'static>, Failure> {
    match source {
        Source::Nothing => Ok(Sealed::empty()),
        Source::Stdin => stream("stdin", io::stdin().lock(), make, limit),
        Source::File(path) => file(path, make, limit),
    }
}

fn file(path: &Path, make: &Make<'_>, limit: u64) -> Result<Sealed<'static>, Failure> {
    let name = path.display().to_string();
    let refused = |error| unreadable(&name, &error);
    let mut file = File::open(path).map_err(refused)?;
    let metadata = file.metadata().map_err(refused)?;
    // Files that the kernel makes up say that they are empty.
    if !metadata.is_file() || metadata.len() == 0 {
        return stream(&name, file, make, limit);
    }
    let len = usize::try_from(metadata.len()).ok().filter(|_| metadata.len() <= limit);
    let len = len.ok_or_else(|| too_large(&name, limit))?;
    filled(&name, len, make, |place| file.read_exact(place))
}

/// Reads what has no length until its end.
fn stream(
    name: &str,
    source: impl Read,
    make: &Make<'_>,
    limit: u64,
) -> Result<Sealed<'static>, Failure> {
    let mut bytes = Vec::new();
    let read = source.take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(name, &error))?;
    if bytes.len() as u64 > limit {
        return Err(too_large(name, limit));
    }
    filled(name, bytes.len(), make, |place| {
        place.copy_from_slice(&bytes);
        Ok(())
    })
}

/// A payload whose bytes `fill` writes in place.
fn filled(
    name: &str,
    len: usize,
    make: &Make<'_>,
    mut fill: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> Result<Sealed<'static>, Failure> {
    let mut failed = None;
    let sealed = make(len, &mut |place| {
        fill(place).map_err(|error| {
            let kind = error.kind();
            failed = Some(error);
            kind.into()
        })
    });
    match (sealed, failed) {
        (Ok(sealed), _) => Ok(sealed),
        (Err(_), Some(error)) => Err(unreadable(name, &error)),
        (Err(error), None) => Err(Failure::new(Exit::Host, format!("could not {error}"))),
    }
}

fn unreadable(name: &str, error: &io::Error) -> Failure {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof => "it became shorter while it was read".to_owned(),
        _ => error.to_string(),
    };
    Failure::new(Exit::Input, format!("can't read input {name}: {reason}"))
}

fn too_large(name: &str, limit: u64) -> Failure {
    let message = format!("input {name} is over the limit of {limit} bytes for a payload");
    Failure::new(Exit::TooLarge, message)
}
