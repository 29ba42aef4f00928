//! Connections that end in time: while they are made, and when their peer's host is gone.

use std::io;
use std::mem::{self, offset_of};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::time::{Duration, Instant};

/// Connects to a listening UNIX socket, and waits as long as `wait` where its queue is full: a process
/// that hangs accepts nobody, and a plain `connect` waits for it without end.
///
/// # Errors
/// `TimedOut` where that was not enough; `InvalidInput` for an address without a name; else as
/// `connect`.
pub fn connect_unix(address: &SocketAddr, wait: Duration) -> io::Result<UnixStream> {
    let until = Instant::now() + wait;
    let (name, len) = raw(address)?;
    // SAFETY: R2.
    let fd = unsafe { libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: R4.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let stream = UnixStream::from(socket);
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        // The kernel's `connect` waits as long as a send may (unix(7) doesn't say so, its source does).
        // A zero would be for ever, and what is less than a microsecond is one.
        stream.set_write_timeout(Some(left.max(Duration::from_micros(1))))?;
        let place = (&raw const name).cast();
        // SAFETY: R3, the address is a local and `len` says how much of it is one.
        if unsafe { libc::connect(stream.as_raw_fd(), place, len) } == 0 {
            stream.set_write_timeout(None)?;
            return Ok(stream);
        }
        match io::Error::last_os_error() {
            error if error.kind() == io::ErrorKind::Interrupted => {}
            error if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            error => return Err(error),
        }
    }
}

/// Without a word of the peer for so long: a probe is sent, and then one after the other.
const SILENCE_S: libc::c_int = 10;
const BETWEEN_PROBES_S: libc::c_int = 5;

/// Without an answer for so long the peer's host is gone.
const GONE_MS: libc::c_int = 30_000;

/// Has the kernel end a TCP connection some 30 s after its peer's host has gone without a word, as one does that loses
/// its power or its network, and with `ETIMEDOUT`. Without this it is 15 minutes where bytes are on their way, and
/// never where none are. A peer that takes no bytes for as long counts as gone too.
///
/// # Errors
/// As `setsockopt`.
pub fn end_with_peer(socket: BorrowedFd<'_>) -> io::Result<()> {
    set_number(socket, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, SILENCE_S)?;
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_KEEPINTVL, BETWEEN_PROBES_S)?;
    // tcp(7): it goes before the number of probes.
    set_number(socket, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, GONE_MS)
}

/// Sets an option of a socket that is a number.
pub(crate) fn set_number(
    socket: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    let place = (&raw const value).cast();
    // SAFETY: R3, the kernel reads a local.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, place, len) };
    if set < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The family of UNIX sockets, as addresses have it.
const FAMILY: libc::sa_family_t = 1;

/// An address as the kernel has it, and its length.
fn raw(address: &SocketAddr) -> io::Result<(libc::sockaddr_un, libc::socklen_t)> {
    let refused = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, what);
    let (start, name) = match (address.as_pathname(), address.as_abstract_name()) {
        (Some(path), _) => (0, path.as_os_str().as_bytes()),
        (_, Some(name)) => (1, name),
        _ => return Err(refused("a socket without a name")),
    };
    // SAFETY: a C structure of integers, for which zeros are values.
    let mut raw: libc::sockaddr_un = unsafe { mem::zeroed() };
    raw.sun_family = FAMILY;
    let end = start + name.len();
    let place = raw.sun_path.get_mut(start..end).ok_or_else(|| refused("too long a name"))?;
    for (to, from) in place.iter_mut().zip(name) {
        *to = *from as libc::c_char;
    }
    // Behind a path the zero is part of it; there is room for one, as `SocketAddr` saw to.
    let zero = usize::from(start == 0);
    let len = offset_of!(libc::sockaddr_un, sun_path) + end + zero;
    Ok((raw, libc::socklen_t::try_from(len).map_err(io::Error::other)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixListener;
    use std::process;

    const SHORT: Duration = Duration::from_millis(50);

    #[test]
    fn the_end_of_a_peer_is_looked_for() {
        let (here, _there) = crate::testing::loopback();
        end_with_peer(here.as_fd()).unwrap();
        let number = |level, name| -> libc::c_int {
            let (mut value, mut len) = (0, 4);
            let (place, room) = ((&raw mut value).cast(), &raw mut len);
            // SAFETY: R3.
            assert_eq!(unsafe { libc::getsockopt(here.as_raw_fd(), level, name, place, room) }, 0);
            value
        };
        assert_eq!(number(libc::SOL_SOCKET, libc::SO_KEEPALIVE), 1);
        assert_eq!(number(libc::IPPROTO_TCP, libc::TCP_KEEPIDLE), SILENCE_S);
        assert_eq!(number(libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), GONE_MS);
        // A socket of another kind has no such options.
        let (unix, _peer) = UnixStream::pair().unwrap();
        assert!(end_with_peer(unix.as_fd()).is_err());
    }

    fn listening(name: &str) -> (UnixListener, SocketAddr) {
        let name = format!("roadrunner-connect-{}-{name}", process::id());
        let address = SocketAddr::from_abstract_name(name).unwrap();
        (UnixListener::bind_addr(&address).unwrap(), address)
    }

    #[test]
    fn names_of_both_kinds_are_found() {
        let (listener, address) = listening("abstract");
        let _stream = connect_unix(&address, SHORT).unwrap();
        listener.accept().unwrap();
        let path = std::env::temp_dir().join(format!("roadrunner-connect-{}", process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let address = SocketAddr::from_pathname(&path).unwrap();
        let stream = connect_unix(&address, SHORT);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(stream.unwrap().write_timeout().unwrap(), None);
        listener.accept().unwrap();
        drop(listener);
        let gone = connect_unix(&address, SHORT).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn nobody_waits_for_ever_at_a_full_queue() {
        let (listener, address) = listening("full");
        // SAFETY: R2; a listening socket takes a new length of its queue.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 0) }, 0);
        let mut waiting = Vec::new();
        let refused = loop {
            match connect_unix(&address, SHORT) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100, "the queue is never full");
        };
        assert_eq!(refused.kind(), io::ErrorKind::TimedOut);
        // Who waits gets in as soon as there is room.
        listener.accept().unwrap();
        connect_unix(&address, SHORT).unwrap();
    }
}
