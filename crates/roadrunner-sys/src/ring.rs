//! A small io_uring, for `IORING_OP_SEND_ZC`: as [`crate::send_zerocopy`], with the kernel's word on
//! the pages in the ring's completion queue and not in the socket's error queue.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode};

/// Entries of the submission queue: one send at a time. Completions that don't fit the other queue,
/// which has twice as many, the kernel keeps.
const ENTRIES: u32 = 8;

/// `IORING_SEND_ZC_REPORT_USAGE` and `IORING_NOTIF_USAGE_ZC_COPIED` of `linux/io_uring.h`, since
/// Linux 6.2.
const REPORT_USAGE: u16 = 1 << 3;
const USAGE_COPIED: u32 = 1 << 31;

/// A ring that sends, one request at a time.
pub struct Ring {
    ring: IoUring,
    /// Requests whose pages the kernel may still read.
    pending: u32,
    /// Whether a request waits in the submission queue, which the kernel had no memory to take.
    refused: bool,
    copied: bool,
}

impl Ring {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel has none (`kernel.io_uring_disabled`, a seccomp filter), or it doesn't know
    /// the operation (before Linux 6.0): `Unsupported`.
    pub fn new() -> io::Result<Self> {
        let ring = IoUring::builder().build(ENTRIES)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        let params = ring.params();
        let keeps = params.is_feature_nodrop() && params.is_feature_ext_arg();
        if !keeps || !probe.is_supported(opcode::SendZc::CODE) {
            let what = "io_uring has no IORING_OP_SEND_ZC before Linux 6.0";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        Ok(Self { ring, pending: 0, refused: false, copied: false })
    }

    /// Sends some of the bytes without waiting. Their pages are the kernel's to read
    /// while any request is [pending](Ring::pending).
    ///
    /// # Errors
    /// `WouldBlock` where the socket has no room, and where the kernel has no memory for the request: that stays in the
    /// queue, and the next call, which must be for the same bytes, is for it. `ENOMEM` and `ENOBUFS` where too many pages are
    /// pending (`RLIMIT_MEMLOCK`). Else as `send`.
    pub fn send_zerocopy(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
        if !self.refused {
            self.push(socket, bytes)?;
        }
        self.refused = false;
        loop {
            let submitted = self.ring.submit_and_wait(1);
            // Of what is submitted a completion comes, whatever the wait for it ended in.
            if submitted.is_err() && !self.ring.submission().is_empty() {
                self.refused = true;
                return Err(io::ErrorKind::WouldBlock.into());
            }
            if let Some(result) = self.take_completions() {
                return usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
            }
        }
    }

    fn push(&mut self, socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let request = opcode::SendZc::new(Fd(socket.as_raw_fd()), bytes.as_ptr(), len)
            .flags(libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
            .zc_flags(REPORT_USAGE)
            .build();
        // SAFETY: the kernel only reads through the pointer, and does so before the request's completion, for which
        // `send_zerocopy` waits while the reference lives. A request that the kernel refuses it has not read; that
        // one stays in a queue which nobody else hands over.
        let pushed = unsafe { self.ring.submission().push(&request) };
        pushed.map_err(io::Error::other)
    }

    /// Takes all completions, and gives the result of a request that is among them.
    fn take_completions(&mut self) -> Option<i32> {
        let mut result = None;
        for entry in self.ring.completion() {
            if cqueue::notif(entry.flags()) {
                self.pending = self.pending.saturating_sub(1);
                self.copied |= entry.result().cast_unsigned() & USAGE_COPIED != 0;
            } else {
                result = Some(entry.result());
                self.pending += u32::from(cqueue::more(entry.flags()));
            }
        }
        result
    }

    /// Requests whose pages the kernel may still read, as far as it has said.
    #[must_use]
    pub fn pending(&self) -> u32 {
        self.pending
    }

    /// Whether the kernel copied bytes of any request after all.
    #[must_use]
    pub fn has_copied(&self) -> bool {
        self.copied
    }

    /// Waits until the kernel is done with the pages of one more request, as long as `wait`; `false`
    /// where that was not enough.
    ///
    /// # Errors
    /// As `io_uring_enter`.
    pub fn wait(&mut self, wait: Duration) -> io::Result<bool> {
        let before = self.pending;
        self.take_completions();
        if self.pending < before || before == 0 {
            return Ok(true);
        }
        let wait = Timespec::from(wait);
        let waited = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&wait));
        self.refused &= !self.ring.submission().is_empty();
        self.take_completions();
        match waited {
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => Ok(self.pending < before),
            Err(error) if error.kind() != io::ErrorKind::Interrupted => Err(error),
            _ => Ok(true),
        }
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("pending", &self.pending).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{loopback, pattern, read_exactly};
    use crate::{disconnect, unsent};
    use std::os::fd::AsFd;
    use std::time::Instant;

    fn ring() -> Option<Ring> {
        Ring::new().inspect_err(|error| eprintln!("skipped: no io_uring here: {error}")).ok()
    }

    fn settle(ring: &mut Ring) {
        let until = Instant::now() + Duration::from_secs(10);
        while ring.pending() > 0 {
            assert!(Instant::now() < until, "{ring:?} after 10 s");
            ring.wait(Duration::from_millis(100)).unwrap();
        }
    }

    #[test]
    fn a_ring_sends_and_says_when_the_pages_are_free() {
        let Some(mut ring) = ring() else { return };
        let (here, there) = loopback();
        let bytes = pattern(30_000);
        for part in [&bytes[..10_000], &bytes[10_000..]] {
            assert_eq!(ring.send_zerocopy(here.as_fd(), part).unwrap(), part.len());
        }
        assert_eq!(read_exactly(&there, 30_000), bytes);
        settle(&mut ring);
        assert!(ring.has_copied(), "loopback has no network card to read the pages");
        drop(there);
        let ended = (0..2).find_map(|_| ring.send_zerocopy(here.as_fd(), &bytes).err());
        let ended = ended.map(|error| error.kind());
        let ends = [Some(io::ErrorKind::BrokenPipe), Some(io::ErrorKind::ConnectionReset)];
        assert!(ends.contains(&ended), "{ended:?}");
    }

    #[test]
    fn a_request_that_the_kernel_did_not_take_is_sent_once() {
        let Some(mut ring) = ring() else { return };
        let (here, there) = loopback();
        let bytes = pattern(10_000);
        // As a submission leaves it for which there was no memory.
        ring.push(here.as_fd(), &bytes).unwrap();
        ring.refused = true;
        for _ in 0..2 {
            assert_eq!(ring.send_zerocopy(here.as_fd(), &bytes).unwrap(), bytes.len());
        }
        settle(&mut ring);
        assert_eq!(read_exactly(&there, 20_000), [&bytes[..], &bytes].concat());
        there.set_nonblocking(true).unwrap();
        let more = std::io::Read::read(&mut &there, &mut [0]).unwrap_err();
        assert_eq!(more.kind(), io::ErrorKind::WouldBlock, "something came twice");
    }

    #[test]
    fn a_ring_never_waits_for_room_and_gives_every_page_back() {
        let Some(mut ring) = ring() else { return };
        let (here, _there) = loopback();
        let bytes = pattern(1 << 20);
        let refused = loop {
            if let Err(refused) = ring.send_zerocopy(here.as_fd(), &bytes) {
                break refused;
            }
        };
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock, "{refused}");
        assert!(unsent(here.as_fd()).unwrap() > 0 && ring.pending() > 0);
        assert!(!ring.wait(Duration::ZERO).unwrap() || ring.pending() > 0, "nobody has read");
        disconnect(here.as_fd()).unwrap();
        settle(&mut ring);
    }
}
