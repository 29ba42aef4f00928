//! Connecting to a UNIX socket by a time.

use std::io;
use std::mem::{self, offset_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
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
    raw.sun_family = libc::sa_family_t::try_from(libc::AF_UNIX).map_err(io::Error::other)?;
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
    use std::os::unix::net::UnixListener;
    use std::process;

    const SHORT: Duration = Duration::from_millis(50);

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
