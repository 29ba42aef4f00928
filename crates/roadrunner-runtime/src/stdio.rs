//! The standard streams of a process: descriptors of this host's, read and written straight from linear memory. A process
//! that waits for one of them can be stopped, and no epoch passes for it.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use roadrunner_sys::Ready;
use wasmtime::Trap;

use crate::process::{Process, Stop};

/// The numbers of the standard streams when a process starts.
const STREAMS: [u32; 3] = [0, 1, 2];

// Numbers that WASI preview 1 gives.
const FAULT: i32 = 21;
const IO: i32 = 29;
const NO_SPACE: i32 = 51;
const PIPE: i32 = 64;

/// Why nothing was read or written.
#[derive(Debug)]
pub(crate) enum Refused {
    /// The guest is told.
    Errno(i32),
    /// It is to end.
    Stopped,
}

impl Refused {
    /// What a host function answers.
    pub(crate) fn answer(self) -> wasmtime::Result<i32> {
        match self {
            Self::Errno(errno) => Ok(errno),
            Self::Stopped => Err(Trap::Interrupt.into()),
        }
    }
}

impl From<i32> for Refused {
    fn from(errno: i32) -> Self {
        Self::Errno(errno)
    }
}

/// The standard streams of a process.
pub(crate) struct Stdio {
    files: [Option<File>; 3],
    /// The guest's descriptors of them, which it may close or renumber.
    numbers: [Option<u32>; 3],
    stop: Arc<Stop>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream(usize);

impl Stdio {
    pub(crate) fn new(process: Process) -> Self {
        let Process { stdin, stdout, stderr, stop, .. } = process;
        Self { files: [stdin, stdout, stderr], numbers: STREAMS.map(Some), stop }
    }

    /// The stream that a guest's descriptor stands for.
    pub(crate) fn find(&self, fd: u32) -> Option<Stream> {
        self.numbers.iter().position(|number| *number == Some(fd)).map(Stream)
    }

    /// Reads what is there into the first of these parts of linear memory that has room, or waits for something.
    pub(crate) fn read(
        &self,
        Stream(at): Stream,
        memory: &mut [u8],
        parts: &[Range<usize>],
    ) -> Result<usize, Refused> {
        let Some(part) = parts.first() else { return Ok(0) };
        let place = memory.get_mut(part.clone()).ok_or(FAULT)?;
        let Some(mut file) = self.files[at].as_ref() else { return Ok(0) };
        self.until_done(file, Ready::Read, || file.read(place))
    }

    /// Writes all of these parts of linear memory, unless the reader is gone.
    pub(crate) fn write(
        &self,
        Stream(at): Stream,
        memory: &[u8],
        parts: &[Range<usize>],
    ) -> Result<usize, Refused> {
        let mut written = 0;
        for part in parts {
            let mut left = memory.get(part.clone()).ok_or(FAULT)?;
            while !left.is_empty() {
                let Some(mut file) = self.files[at].as_ref() else {
                    written += left.len();
                    break;
                };
                match self.until_done(file, Ready::Write, || file.write(left)) {
                    Ok(0) => return Err(IO.into()),
                    Ok(len) => {
                        written += len;
                        left = &left[len..];
                    }
                    // What was written is told first; the next write hears of the error.
                    Err(Refused::Errno(_)) if written > 0 => return Ok(written),
                    Err(refused) => return Err(refused),
                }
            }
        }
        Ok(written)
    }

    /// Tries until it doesn't have to wait.
    fn until_done(
        &self,
        file: &File,
        ready: Ready,
        mut action: impl FnMut() -> io::Result<usize>,
    ) -> Result<usize, Refused> {
        loop {
            match action() {
                Ok(len) => return Ok(len),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let woken = self.stop.wait_for(&[(file, ready)], None).map_err(|_| IO)?;
                    woken.ok_or(Refused::Stopped)?;
                }
                Err(error) => return Err(errno(&error).into()),
            }
        }
    }

    /// Waits until one of these streams is ready or a time has come; says which are.
    pub(crate) fn wait(
        &self,
        streams: &[(Stream, Ready)],
        until: Option<Instant>,
    ) -> Result<Vec<bool>, Refused> {
        let file =
            |(Stream(at), ready): &(Stream, Ready)| Some((self.files[*at].as_ref()?, *ready));
        let files: Vec<_> = streams.iter().filter_map(file).collect();
        // A stream that leads nowhere is always ready.
        let nowhere = files.len() < streams.len();
        let wait = match until {
            _ if nowhere => Some(Duration::ZERO),
            until => until.map(|until| until.saturating_duration_since(Instant::now())),
        };
        let mut ready = self.stop.wait_for(&files, wait).map_err(|_| IO)?;
        let mut ready = ready.as_mut().ok_or(Refused::Stopped)?.drain(..);
        let each = streams.iter().map(|it| file(it).is_none() || ready.next().unwrap_or(false));
        Ok(each.collect())
    }

    /// A descriptor went away, or another took its number.
    pub(crate) fn closed(&mut self, fd: u32) {
        if let Some(Stream(at)) = self.find(fd) {
            self.numbers[at] = None;
            self.files[at] = None;
        }
    }

    pub(crate) fn renumbered(&mut self, from: u32, to: u32) {
        if from == to {
            return;
        }
        self.closed(to);
        if let Some(Stream(at)) = self.find(from) {
            self.numbers[at] = Some(to);
        }
    }
}

fn errno(error: &io::Error) -> i32 {
    match error.kind() {
        ErrorKind::BrokenPipe => PIPE,
        ErrorKind::StorageFull => NO_SPACE,
        _ => IO,
    }
}
