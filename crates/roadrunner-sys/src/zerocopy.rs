//! `MSG_ZEROCOPY`: the network card reads a payload where it lies. Which pages it still needs the
//! kernel says through the socket's error queue (its `networking/msg_zerocopy` document).
//!
//! A peer on this host never sees the pages themselves: the kernel copies them when it delivers to
//! one, and says that it did.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use std::{io, mem, thread};

use crate::connect::set_number;
use crate::socket::{control_messages, empty_message, poll, retried};

/// The kernel's `SO_EE_ORIGIN_ZEROCOPY` and `SO_EE_CODE_ZEROCOPY_COPIED` (`linux/errqueue.h`).
const ORIGIN_ZEROCOPY: u8 = 5;
const CODE_COPIED: u8 = 1;

/// Words of a control buffer for one such message: a header, the error, and the address of who caused
/// it, which for these is empty; with room to spare.
const CONTROL_WORDS: usize = 16;

/// How long a look at a socket that is closed and still has pages waits for the next: the kernel gives
/// no sign for it then.
const NEXT_LOOK: Duration = Duration::from_millis(1);

/// What the kernel says of sends that it is done with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Completed {
    /// How many.
    pub sends: u32,
    /// Whether it copied any of their bytes after all.
    pub copied: bool,
}

/// Lets a TCP socket send without a copy ([`send_zerocopy`]).
///
/// # Errors
/// When the kernel doesn't know it (before Linux 4.14), or it is no such socket.
pub fn enable_zerocopy(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_number(socket, libc::SOL_SOCKET, libc::SO_ZEROCOPY, 1)
}

/// Sends some of the bytes without waiting. Their pages are the kernel's to read until it has
/// completed as many sends as were made ([`completed`]).
///
/// # Errors
/// `WouldBlock` where the socket has no room. `ENOBUFS` where too many pages or completions are
/// outstanding (`RLIMIT_MEMLOCK`, `net.core.optmem_max`). Else as `send`.
pub fn send_zerocopy(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_ZEROCOPY | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    retried(|| {
        // SAFETY: R3 for the reference that the call reads through; the pages it keeps it counts.
        unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) }
    })
}

/// Whether a send without a copy failed because too many pages or completions are outstanding.
#[must_use]
pub fn is_out_of_buffers(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ENOMEM))
}

/// Takes one message out of a socket's error queue: which sends are completed that were not before.
///
/// # Errors
/// `WouldBlock` where there is none. Else as `recvmsg`.
pub fn completed(socket: BorrowedFd<'_>) -> io::Result<Completed> {
    let mut control = [0_usize; CONTROL_WORDS];
    let mut message = empty_message();
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control) as _;
    retried(|| {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        // SAFETY: R3, the pointer in the message comes from a local that lives on.
        unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, flags) }
    })?;
    #[allow(clippy::unnecessary_cast, reason = "the C libraries differ in this field's type")]
    let filled = message.msg_controllen as usize;
    let found = control_messages(&control, filled).into_iter().filter_map(|(kind, bytes)| {
        let known = [(libc::SOL_IP, libc::IP_RECVERR), (libc::SOL_IPV6, libc::IPV6_RECVERR)];
        known.contains(&kind).then(|| of_error(&bytes)).flatten()
    });
    Ok(found.fold(Completed::default(), |all, one| Completed {
        sends: all.sends.wrapping_add(one.sends),
        copied: all.copied | one.copied,
    }))
}

/// What a `struct sock_extended_err` says, if it is of such a send:
/// `errno: u32 | origin: u8 | type: u8 | code: u8 | pad: u8 | info: u32 | data: u32 | ...`
fn of_error(bytes: &[u8]) -> Option<Completed> {
    let number = |at: usize| bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (errno, origin, code) = (number(0)?, *bytes.get(4)?, *bytes.get(6)?);
    if (errno, origin) != (0, ORIGIN_ZEROCOPY) {
        return None;
    }
    let (first, last) = (number(8)?, number(12)?);
    let sends = last.wrapping_sub(first).wrapping_add(1);
    Some(Completed { sends, copied: code & CODE_COPIED != 0 })
}

/// Waits until there may be something for [`completed`], as long as `wait`; `false` where that was
/// not enough.
///
/// # Errors
/// When the kernel has no memory to wait with.
pub fn wait_for_completion(socket: BorrowedFd<'_>, wait: Duration) -> io::Result<bool> {
    let found = poll(socket, 0, wait)?;
    if found & libc::POLLHUP != 0 {
        // A closed socket is always ready.
        thread::sleep(NEXT_LOOK.min(wait));
    }
    Ok(found != 0)
}

/// Bytes that were sent over a TCP socket and that its peer's kernel has not confirmed.
///
/// # Errors
/// When it is no such socket.
pub fn unsent(socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: R3, the kernel writes a local.
    let got = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(bytes).unwrap_or(0)) }
}

/// Ends a TCP connection at once, with whatever is still to be sent: the kernel lets go of it. The
/// socket stays, for what its error queue says.
///
/// # Errors
/// As `connect`.
pub fn disconnect(socket: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: a C structure of integers, for which zeros are values: the family `AF_UNSPEC`, which
    // stands for no peer.
    let nobody: libc::sockaddr = unsafe { mem::zeroed() };
    let len = libc::socklen_t::try_from(size_of_val(&nobody)).map_err(io::Error::other)?;
    // SAFETY: R3, the kernel reads a local.
    let got = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, len) };
    if got < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::descriptors::eventually;
    use crate::testing::{loopback, pattern, read_exactly};
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn sends_are_completed_and_copies_told() {
        let (here, there) = loopback();
        enable_zerocopy(here.as_fd()).unwrap();
        let bytes = pattern(30_000);
        assert_eq!(completed(here.as_fd()).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        for part in [&bytes[..10_000], &bytes[10_000..]] {
            assert_eq!(send_zerocopy(here.as_fd(), part).unwrap(), part.len());
        }
        assert_eq!(read_exactly(&there, 30_000), bytes);
        let mut all = Completed::default();
        eventually(|| {
            if let Ok(more) = completed(here.as_fd()) {
                all = Completed { sends: all.sends + more.sends, copied: all.copied | more.copied };
            }
            all.sends == 2
        });
        assert!(all.copied, "loopback has no network card to read the pages");
    }

    #[test]
    fn a_wait_for_completions_ends() {
        let (here, _there) = loopback();
        assert!(!wait_for_completion(here.as_fd(), Duration::from_millis(10)).unwrap());
    }

    #[test]
    fn a_disconnected_socket_gives_every_page_back() {
        let (here, there) = loopback();
        enable_zerocopy(here.as_fd()).unwrap();
        let bytes = pattern(1 << 20);
        let (mut sends, mut back, mut at) = (0, 0, 0);
        while let Ok(sent) = send_zerocopy(here.as_fd(), &bytes[at % bytes.len()..]) {
            (sends, at) = (sends + 1, at + sent);
        }
        assert!(unsent(here.as_fd()).unwrap() > 0, "nobody reads");
        while let Ok(done) = completed(here.as_fd()) {
            back += done.sends;
        }
        assert!(back < sends, "what the peer has no room for is the kernel's");
        disconnect(here.as_fd()).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while back < sends {
            assert!(Instant::now() < until, "{back} of {sends} came back");
            wait_for_completion(here.as_fd(), Duration::from_millis(100)).unwrap();
            while let Ok(done) = completed(here.as_fd()) {
                back += done.sends;
            }
        }
        drop(there);
    }

    #[test]
    fn other_errors_are_no_completions() {
        let mut error = [0; 16];
        error[4] = ORIGIN_ZEROCOPY;
        error[8] = 3;
        error[12] = 5;
        assert_eq!(of_error(&error), Some(Completed { sends: 3, copied: false }));
        error[6] = CODE_COPIED;
        assert_eq!(of_error(&error), Some(Completed { sends: 3, copied: true }));
        assert_eq!(of_error(&error[..15]), None);
        error[4] = 2;
        assert_eq!(of_error(&error), None);
    }
}
