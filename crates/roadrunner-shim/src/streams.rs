//! A container's standard streams: the pipes that containerd made for them.

use std::fs::{File, OpenOptions};
use std::path::Path;

use roadrunner_sys::open_stream;

use crate::error::Refusal;

/// Where the streams lead, as containerd names it: nowhere, to a pipe, or to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// The streams, opened.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<File>,
    pub(crate) stdout: Option<File>,
    pub(crate) stderr: Option<File>,
    /// The other end of stdin: while somebody holds it there is no end of input. Clients come later than the container,
    /// and go and come back.
    pub(crate) open_end: Option<File>,
}

impl Streams {
    pub(crate) fn open(places: &Places) -> Result<Self, Refusal> {
        let (stdin, open_end) = match places.stdin.as_str() {
            "" => (None, None),
            pipe => {
                let failed = || Refusal::failed(format!("open stdin {pipe}"));
                let pipe = Path::new(pipe);
                let open_end = open_stream(pipe, true, true).map_err(failed())?;
                let stdin = open_stream(pipe, true, false).map_err(failed())?;
                (Some(stdin), Some(open_end))
            }
        };
        let stdout = output(&places.stdout)?;
        // One file of both keeps their order.
        let stderr = match &stdout {
            Some(stdout) if places.stderr == places.stdout => {
                Some(stdout.try_clone().map_err(Refusal::failed("open stderr"))?)
            }
            _ => output(&places.stderr)?,
        };
        Ok(Self { stdin, stdout, stderr, open_end })
    }
}

fn output(place: &str) -> Result<Option<File>, Refusal> {
    let opened = if place.is_empty() {
        return Ok(None);
    } else if let Some(path) = place.strip_prefix("file://") {
        OpenOptions::new().append(true).create(true).open(path)
    } else if place.contains("://") {
        return Err(Refusal::Invalid(format!("can't log to {place}: only to pipes and file://")));
    } else {
        // For reading too: a container outlives the client that reads, and should not die of it.
        open_stream(Path::new(place), true, true)
    };
    opened.map(Some).map_err(Refusal::failed(format!("open the output {place}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{ErrorKind, Read, Write};
    use std::process::Command;

    fn pipe(dir: &Path, name: &str) -> String {
        let path = dir.join(name).display().to_string();
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        path
    }

    #[test]
    fn nobody_needs_to_be_at_the_other_end() {
        let dir = tempfile::tempdir().unwrap();
        let [stdin, stdout] = ["in", "out"].map(|name| pipe(dir.path(), name));
        let places = Places { stdin: stdin.clone(), stdout: stdout.clone(), stderr: stdout };
        let mut streams = Streams::open(&places).unwrap();
        let (mut input, mut byte) = (streams.stdin.take().unwrap(), [0]);
        assert_eq!(input.read(&mut byte).unwrap_err().kind(), ErrorKind::WouldBlock);
        streams.stdout.unwrap().write_all(b"x").unwrap();
        let mut client = OpenOptions::new().write(true).open(stdin).unwrap();
        client.write_all(b"y").unwrap();
        drop(client);
        assert_eq!((input.read(&mut byte).unwrap(), byte), (1, *b"y"));
        let more = input.read(&mut byte).unwrap_err();
        assert_eq!(more.kind(), ErrorKind::WouldBlock, "a client that went is no end");
        drop(streams.open_end);
        assert_eq!(input.read(&mut byte).unwrap(), 0, "now it is");
    }

    #[test]
    fn files_are_added_to_and_programs_refused() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        std::fs::write(&log, "before ").unwrap();
        output(&format!("file://{}", log.display())).unwrap().unwrap().write_all(b"after").unwrap();
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "before after");
        assert!(matches!(output("binary:///bin/log"), Err(Refusal::Invalid(_))));
        assert!(output("").unwrap().is_none());
    }
}
