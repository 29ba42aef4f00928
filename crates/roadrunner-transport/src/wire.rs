//! A connection between hosts, and how it is protected from those who are on the way.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use roadrunner_sys as sys;

use crate::Caller;
use crate::hose::{Hose, TcpLink};
use crate::identity::Identity;
use crate::link::Link;
use crate::tls::Tls;

/// How calls of other hosts are protected from those who are on the way.
#[derive(Clone, Debug)]
pub enum Protection {
    /// They are not, and so stay on this host.
    Loopback,
    /// They are not: whoever is on the way can read and change them, and whoever comes is let in.
    Insecure,
    /// TLS 1.3 with certificates on both sides.
    Tls(Identity),
}

impl Protection {
    /// Whether an address may be spoken to or listened at like this.
    pub(crate) fn allow(&self, address: SocketAddr) -> io::Result<()> {
        if address.ip().is_loopback() || !matches!(self, Self::Loopback) {
            return Ok(());
        }
        let what = format!(
            "{address} is not on this host, so it takes --tls DIR with this node's certificate, or --insecure in a network where nobody else is"
        );
        Err(io::Error::new(io::ErrorKind::Unsupported, what))
    }
}

/// A connection with its protection.
pub(crate) enum Wire {
    Plain(TcpLink),
    Tls(Box<Tls>),
}

impl Wire {
    /// What ends the connection, from another thread.
    pub(crate) fn hang_up(&self) -> Box<dyn Fn() + Send> {
        match self {
            Self::Plain(plain) => plain.hang_up(),
            Self::Tls(tls) => tls.hang_up(),
        }
    }

    fn link(&mut self) -> &mut dyn Link {
        match self {
            Self::Plain(plain) => plain,
            Self::Tls(tls) => &mut **tls,
        }
    }
}

impl Link for Wire {
    fn passes_descriptors(&self) -> bool {
        false
    }

    fn settle(&mut self) -> io::Result<()> {
        self.link().settle()
    }

    fn write(&mut self, parts: &[IoSlice<'_>], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
        self.link().write(parts, fds)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.link().flush()
    }

    fn read_first(&mut self, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
        self.link().read_first(into, fds)
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.link().read(into)
    }

    fn peer(&self) -> u32 {
        0
    }

    fn caller(&self) -> Caller {
        match self {
            Self::Plain(_) => Caller::Unnamed,
            Self::Tls(tls) => tls.caller(),
        }
    }

    fn wait(&mut self, ready: sys::Ready, wait: Duration) -> io::Result<bool> {
        self.link().wait(ready, wait)
    }

    fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(plain) => plain.is_quiet(),
            Self::Tls(tls) => tls.is_quiet(),
        }
    }

    fn is_old(&self, early: Duration) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(tls) => tls.is_old(early),
        }
    }

    fn hose(&mut self) -> Option<&mut Hose> {
        self.link().hose()
    }
}
