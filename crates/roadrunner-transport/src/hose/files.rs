//! Sending out of a sealed memfd: its pages go into the socket's queue as they are.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use roadrunner_sys::{self as sys, Pipe};

use super::{Source, Way};

/// One system call for a whole payload.
pub(super) struct Sendfile;

impl Way for Sendfile {
    fn some(
        &mut self,
        socket: BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        _until: Instant,
    ) -> io::Result<usize> {
        let file = source.sealed.ok_or(io::ErrorKind::Unsupported)?;
        sys::send_file(socket, file, at, source.bytes.len() - at)
    }
}

/// Two system calls for as much as a pipe holds, which is more at a time than `sendfile` takes.
pub(super) struct Splice(Pipe);

impl Splice {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Pipe::new()?))
    }
}

impl Way for Splice {
    fn some(
        &mut self,
        socket: BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        _until: Instant,
    ) -> io::Result<usize> {
        let file = source.sealed.ok_or(io::ErrorKind::Unsupported)?;
        if self.0.held() == 0 {
            self.0.fill(file, at, source.bytes.len() - at)?;
        }
        self.0.drain(socket)
    }
}
