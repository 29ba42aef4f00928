//! Who is at the other end of a UNIX socket, and who this process is.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Who was at the other end of a UNIX socket when it was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerCredentials {
    /// Process id, as seen from here; 0 where the process can't be seen from here.
    pub pid: u32,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// The process at the other end of a connected UNIX socket (`SO_PEERCRED`).
///
/// # Errors
/// `NotConnected` for a socket without such a peer; when it is no socket.
pub fn peer_credentials(socket: BorrowedFd<'_>) -> io::Result<PeerCredentials> {
    let unset = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
    // SAFETY: a `ucred` is three integers.
    let peer = unsafe { socket_option(socket, libc::SO_PEERCRED, unset) }?;
    if peer.uid == u32::MAX {
        return Err(io::ErrorKind::NotConnected.into());
    }
    Ok(PeerCredentials { pid: peer.pid.cast_unsigned(), uid: peer.uid, gid: peer.gid })
}

/// A descriptor of the process at the other end of a connected UNIX socket (`SO_PEERPIDFD`), which
/// stays that process's where its id is given to another one. `None` where the kernel doesn't know
/// the option (before Linux 6.5).
///
/// # Errors
/// When the peer is gone, the process has no descriptor left, or the socket has no such peer.
pub fn peer_pidfd(socket: BorrowedFd<'_>) -> io::Result<Option<OwnedFd>> {
    // SAFETY: a descriptor is an integer.
    match unsafe { socket_option(socket, libc::SO_PEERPIDFD, -1) } {
        // SAFETY: R4.
        Ok(fd) if fd >= 0 => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Ok(_) => Err(io::ErrorKind::NotConnected.into()),
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads an option of the socket level over `value`.
///
/// # Safety
/// Any bytes are a `T`.
unsafe fn socket_option<T>(
    socket: BorrowedFd<'_>,
    name: libc::c_int,
    mut value: T,
) -> io::Result<T> {
    let size = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let mut len = size;
    let place = ptr::from_mut(&mut value).cast();
    // SAFETY: R3, and the caller says that whatever the kernel writes there is a value.
    let got = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, name, place, &raw mut len)
    };
    if got < 0 {
        Err(io::Error::last_os_error())
    } else if len == size {
        Ok(value)
    } else {
        Err(io::Error::other(format!("socket option {name} has {len} bytes, not {size}")))
    }
}

/// The user that this process acts as.
#[must_use]
pub fn user() -> u32 {
    // SAFETY: R2.
    unsafe { libc::geteuid() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;
    use std::process;

    #[test]
    fn a_peer_is_known_by_its_process() {
        let (here, _there) = UnixStream::pair().unwrap();
        let peer = peer_credentials(here.as_fd()).unwrap();
        // SAFETY: R2.
        let (uid, gid) = (unsafe { libc::geteuid() }, unsafe { libc::getegid() });
        assert_eq!(peer, PeerCredentials { pid: process::id(), uid, gid });
        if let Some(pidfd) = peer_pidfd(here.as_fd()).unwrap() {
            let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
            let said = std::fs::read_to_string(path).unwrap();
            assert!(said.contains(&format!("Pid:\t{}\n", process::id())), "{said}");
        }
    }

    #[test]
    fn nobody_is_known_over_tcp() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let error = peer_credentials(stream.as_fd()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
        assert!(!matches!(peer_pidfd(stream.as_fd()), Ok(Some(_))));
    }
}
