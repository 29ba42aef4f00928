//! `IORING_OP_SEND_ZC`: as `MSG_ZEROCOPY`, with completions from a ring.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use roadrunner_sys::{self as sys, Ring};

use super::zerocopy::STEP;
use super::{Source, Way};

pub(super) struct Uring(Ring);

impl Uring {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Ring::new()?))
    }

    /// Waits until at most `most` requests are pending.
    fn wait(&mut self, most: u32, until: Instant) -> io::Result<()> {
        while self.0.pending() > most {
            let left = until.saturating_duration_since(Instant::now());
            if !self.0.wait(left)? && left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }
}

impl Way for Uring {
    fn some(
        &mut self,
        socket: BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        until: Instant,
    ) -> io::Result<usize> {
        let bytes = &source.bytes[at..];
        let bytes = &bytes[..bytes.len().min(STEP)];
        loop {
            match self.0.send_zerocopy(socket, bytes) {
                Err(error) if sys::is_out_of_buffers(&error) && self.0.pending() > 0 => {
                    self.wait(self.0.pending() - 1, until)?;
                }
                sent => return sent,
            }
        }
    }

    fn settle(&mut self, _socket: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
        self.wait(0, until)
    }

    fn has_copied(&self) -> bool {
        self.0.has_copied()
    }
}
