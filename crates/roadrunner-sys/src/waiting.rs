//! Waiting for several descriptors at once, and being woken from that.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;
use std::{io, ptr};

use crate::Ready;

/// Wakes who waits for it, from then on at once. A descriptor, so that it can be waited for together with others.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    /// One that nobody has used.
    ///
    /// # Errors
    /// When the process has no descriptor left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: R2.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: R4.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Wakes everybody who waits or will.
    pub fn wake(&self) {
        let one = 1_u64;
        // SAFETY: R3. It fails when the counter is full, and then it is readable already.
        unsafe { libc::write(self.0.as_raw_fd(), (&raw const one).cast(), size_of_val(&one)) };
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Waits until one of these is ready, as long as `wait`, or for ever without. Says of each whether it is; none is
/// where the time was over or a signal came.
///
/// # Errors
/// When the kernel has no memory to wait with.
pub fn wait_for_any(
    these: &[(BorrowedFd<'_>, Ready)],
    wait: Option<Duration>,
) -> io::Result<Vec<bool>> {
    let asked = these.iter().map(|(fd, ready)| {
        let events = match ready {
            Ready::Read => libc::POLLIN,
            Ready::Write => libc::POLLOUT,
        };
        libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 }
    });
    let mut asked: Vec<_> = asked.collect();
    let wait = wait.map(|wait| libc::timespec {
        tv_sec: libc::time_t::try_from(wait.as_secs()).unwrap_or(libc::time_t::MAX),
        tv_nsec: wait.subsec_nanos().into(),
    });
    let wait = wait.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = libc::nfds_t::try_from(asked.len()).unwrap_or(libc::nfds_t::MAX);
    // SAFETY: R3, the list has that many entries.
    let got = unsafe { libc::ppoll(asked.as_mut_ptr(), count, wait, ptr::null()) };
    if got < 0 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    // Errors and hang-ups count as ready: whoever reads or writes then hears of them.
    Ok(asked.iter().map(|asked| got > 0 && asked.revents != 0).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_ready_ones_are_told_from_the_others() {
        let (left, mut right) = UnixStream::pair().unwrap();
        let waker = Waker::new().unwrap();
        let these = [(left.as_fd(), Ready::Read), (waker.as_fd(), Ready::Read)];
        let short = Some(Duration::from_millis(1));
        assert_eq!(wait_for_any(&these, short).unwrap(), [false, false]);
        right.write_all(b"x").unwrap();
        assert_eq!(wait_for_any(&these, None).unwrap(), [true, false]);
        waker.wake();
        assert_eq!(wait_for_any(&these, None).unwrap(), [true, true]);
        assert_eq!(wait_for_any(&these, None).unwrap(), [true, true], "it stays awake");
        drop(right);
        assert_eq!(wait_for_any(&these[..1], None).unwrap(), [true], "an end is ready too");
    }
}
