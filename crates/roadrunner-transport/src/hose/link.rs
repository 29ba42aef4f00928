//! A TCP connection with a hose.

use std::io::{self, IoSlice};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use roadrunner_sys::{self as sys, Ready};

use super::{Choice, Hose};
use crate::link::Link;

/// A connection whose large payloads go by the best of several methods; everything else as ever.
pub(crate) struct TcpLink {
    stream: Arc<TcpStream>,
    hose: Hose,
}

impl TcpLink {
    pub(crate) fn new(stream: TcpStream, choice: Arc<Choice>) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        sys::end_with_peer(stream.as_fd())?;
        let stream = Arc::new(stream);
        Ok(Self { hose: Hose::new(Arc::clone(&stream), choice), stream })
    }

    /// What ends the connection, from another thread.
    pub(crate) fn hang_up(&self) -> Box<dyn Fn() + Send> {
        let stream = Arc::downgrade(&self.stream);
        Box::new(move || {
            if let Some(stream) = stream.upgrade() {
                let _ = stream.shutdown(Shutdown::Both);
            }
        })
    }
}

impl Link for TcpLink {
    fn passes_descriptors(&self) -> bool {
        self.stream.passes_descriptors()
    }

    fn write(&mut self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.stream.write(parts, fds)
    }

    fn read_first(&mut self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        self.stream.read_first(into, fds)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.read(into)
    }

    fn peer(&self) -> u32 {
        self.stream.peer()
    }

    fn wait(&mut self, ready: Ready, wait: Duration) -> io::Result<bool> {
        self.stream.wait(ready, wait)
    }

    fn is_quiet(&mut self) -> bool {
        self.stream.is_quiet()
    }

    fn hose(&mut self) -> Option<&mut Hose> {
        Some(&mut self.hose)
    }
}
