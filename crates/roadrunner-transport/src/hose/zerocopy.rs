//! `MSG_ZEROCOPY`: the network card reads the payload's pages, and the socket's error queue says when
//! it has.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use roadrunner_sys as sys;

use super::{Source, Way};

/// Bytes of one send: pages on their way count against `RLIMIT_MEMLOCK` (8 MiB by default), and each send
/// with its whole length.
pub(super) const STEP: usize = 1 << 20;

/// After how many sends their completions are looked for: each takes memory of the socket's until then
/// (`net.core.optmem_max`).
const LOOK_AFTER: u32 = 16;

pub(super) struct Zerocopy {
    /// Sends whose pages the kernel may still read.
    pending: u32,
    copied: bool,
}

impl Zerocopy {
    pub(super) fn new(socket: BorrowedFd<'_>) -> io::Result<Self> {
        sys::enable_zerocopy(socket)?;
        Ok(Self { pending: 0, copied: false })
    }

    /// Takes the completions that are there.
    fn look(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        while self.pending > 0 {
            match sys::completed(socket) {
                Ok(done) => {
                    self.pending = self.pending.saturating_sub(done.sends);
                    self.copied |= done.copied;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until at most `most` sends are pending.
    fn wait(&mut self, socket: BorrowedFd<'_>, most: u32, until: Instant) -> io::Result<()> {
        loop {
            self.look(socket)?;
            if self.pending <= most {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !sys::wait_for_completion(socket, left)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }
}

impl Way for Zerocopy {
    fn some(
        &mut self,
        socket: BorrowedFd<'_>,
        source: &Source<'_>,
        at: usize,
        until: Instant,
    ) -> io::Result<usize> {
        let bytes = &source.bytes[at..];
        let bytes = &bytes[..bytes.len().min(STEP)];
        if self.pending >= LOOK_AFTER {
            self.look(socket)?;
        }
        loop {
            match sys::send_zerocopy(socket, bytes) {
                Ok(sent) => {
                    self.pending += 1;
                    return Ok(sent);
                }
                Err(error) if sys::is_out_of_buffers(&error) && self.pending > 0 => {
                    self.wait(socket, self.pending - 1, until)?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn settle(&mut self, socket: BorrowedFd<'_>, until: Instant) -> io::Result<()> {
        self.wait(socket, 0, until)
    }

    fn has_copied(&self) -> bool {
        self.copied
    }
}
