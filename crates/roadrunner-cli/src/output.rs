//! Results on their way out. A result that can't be written where it should go is kept in a
//! temporary file: what was computed is never lost.
//!
//! Regular files appear complete or not at all: bytes go to a temporary file beside the target, which
//! then takes the target's name.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, IsTerminal as _, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::exit::{Exit, Failure};

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// Stdout, because nothing else was said: a terminal gets text only.
    Usual,
    Stdout,
    File(PathBuf),
}

impl FromStr for Destination {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "-" | "/dev/stdout" => Self::Stdout,
            path => Self::File(path.into()),
        })
    }
}

impl Destination {
    pub(crate) fn is_stdout(&self) -> bool {
        !matches!(self, Self::File(_))
    }

    fn name(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            _ => "stdout".into(),
        }
    }
}

/// Writes a result. `suffix` is the extension of the temporary file that keeps it if that fails.
pub(crate) fn deliver(to: &Destination, bytes: &[u8], suffix: &str) -> Result<(), Failure> {
    let written = match to {
        Destination::File(path) => write_file(path, bytes),
        Destination::Usual if io::stdout().is_terminal() && !is_text(bytes) => {
            Err(io::Error::other("it is not text and this is a terminal; use --output FILE"))
        }
        _ => write_stdout(bytes),
    };
    written.map_err(|reason| {
        let kept = match keep(bytes, suffix) {
            Ok(path) => format!("the result is in {}", path.display()),
            Err(error) => format!(
                "it could not be kept in {} either: {error}",
                std::env::temp_dir().display()
            ),
        };
        let message = format!("can't write the result to {}: {reason}; {kept}", to.name());
        Failure::new(Exit::Output, message)
    })
}

/// Prints text for people or scripts. A reader that goes away early, such as `head`, is not an error.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    match write_stdout(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Exit::Output, format!("can't write to stdout: {error}")))
        }
        _ => Ok(()),
    }
}

/// Writes text to stderr; there is nobody to tell if that fails.
pub(crate) fn note(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Says on stderr what went wrong. The words may be a guest's: they don't get to steer the terminal.
pub(crate) fn complain(message: &str) {
    let clean = |c: char| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c };
    note(&format!("roadrunner: {}\n", message.chars().map(clean).collect::<String>()));
}

fn is_text(bytes: &[u8]) -> bool {
    str::from_utf8(bytes)
        .is_ok_and(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace()))
}

fn write_stdout(bytes: &[u8]) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes)?;
    stdout.flush()
}

fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() || is_descriptor(path) => {
            // A device, a pipe, or what is open already: nothing that a name could be given to.
            OpenOptions::new().append(true).open(path)?.write_all(bytes)
        }
        Ok(metadata) => {
            // The kernel says whether the file may be changed; a link to it stays a link.
            OpenOptions::new().write(true).open(path)?;
            replace(&fs::canonicalize(path)?, bytes, Some(metadata.permissions()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(path, bytes, None),
        Err(error) => Err(error),
    }
}

/// Whether a path stands for an open descriptor, as `/dev/fd/3` does.
fn is_descriptor(path: &Path) -> bool {
    ["/dev/fd", "/dev/stderr", "/proc"].iter().any(|it| path.starts_with(it))
}

/// Puts a complete file in a path's place, with the permissions of what was there.
fn replace(path: &Path, bytes: &[u8], permissions: Option<Permissions>) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    // As for any new file: the umask takes its part away.
    builder.prefix(".roadrunner-").suffix(".tmp").permissions(Permissions::from_mode(0o666));
    let mut beside = builder.tempfile_in(folder).map_err(without_path)?;
    beside.as_file_mut().write_all(bytes)?;
    if let Some(permissions) = permissions {
        beside.as_file().set_permissions(permissions)?;
    }
    beside.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The kernel's own reason: a temporary file's name means nothing to whoever named the target.
pub(crate) fn without_path(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path ") {
        Some((reason, _)) => io::Error::new(error.kind(), reason),
        None => error,
    }
}

fn keep(bytes: &[u8], suffix: &str) -> io::Result<PathBuf> {
    let mut builder = tempfile::Builder::new();
    let mut file =
        builder.prefix("roadrunner-result-").suffix(suffix).tempfile().map_err(without_path)?;
    file.write_all(bytes)?;
    let (_, path): (File, _) = file.keep().map_err(|error| error.error)?;
    Ok(path)
}
