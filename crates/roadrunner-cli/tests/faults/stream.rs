//! A connection over either way, for peers that are no Roadrunner.

use std::io::{self, IoSlice, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use roadrunner_sys as sys;

use crate::world::{Address, Listener, MARGIN};

#[derive(Debug)]
pub(crate) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    /// A connection whose reads and writes end, at the latest where a hang is told from a busy machine.
    pub(crate) fn to(address: &Address) -> Self {
        let stream = match address {
            Address::Unix(address) => Self::Unix(UnixStream::connect_addr(address).unwrap()),
            Address::Tcp(address) => Self::Tcp(TcpStream::connect(address).unwrap()),
        };
        stream.patient(MARGIN);
        stream
    }

    pub(crate) fn accepted(listener: &Listener) -> io::Result<Self> {
        Ok(match listener {
            Listener::Unix(listener) => Self::Unix(listener.accept()?.0),
            Listener::Tcp(listener) => Self::Tcp(listener.accept()?.0),
        })
    }

    pub(crate) fn patient(&self, patience: Duration) {
        match self {
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(patience)).unwrap();
                stream.set_write_timeout(Some(patience)).unwrap();
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(patience)).unwrap();
                stream.set_write_timeout(Some(patience)).unwrap();
                stream.set_nodelay(true).unwrap();
            }
        }
    }

    pub(crate) fn receive(&self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => {
                sys::receive_with_descriptors(stream.as_fd(), into, sys::MAX_DESCRIPTORS, fds)
            }
            Self::Tcp(stream) => (&*stream).read(into),
        }
    }

    pub(crate) fn send(&self, mut bytes: &[u8], mut fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = match self {
                Self::Unix(stream) => {
                    sys::send_with_descriptors(stream.as_fd(), &[IoSlice::new(bytes)], fds)?
                }
                Self::Tcp(stream) => (&*stream).write(bytes)?,
            };
            (bytes, fds) = (&bytes[sent..], &[]);
        }
        Ok(())
    }

    pub(crate) fn shut(&self, how: Shutdown) {
        // Whoever is gone has been shut.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(how),
            Self::Tcp(stream) => stream.shutdown(how),
        };
    }

    /// Has the end be a reset instead of a farewell, over TCP.
    pub(crate) fn slam(&self) {
        if let Self::Tcp(stream) = self {
            rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).unwrap();
        }
    }
}
